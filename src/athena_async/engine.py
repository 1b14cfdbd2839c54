"""The tasks of a client, all owned here: one root task holds one task group.

In it run preprocessing, a session per channel, the clock that lets the flow act when time passes, the probes of
endpoints and of the deployment's backlog, and the watchers of credentials. It ends when the engine is closed, or with
the first fault of this library, which then settles every open image: nobody waits for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import anyio
from anyio.abc import TaskGroup

from athena_async import wire
from athena_async.auth.credentials import Credentials
from athena_async.channels.channel import CallFailed
from athena_async.channels.health import EndpointState
from athena_async.config import ClientConfig
from athena_async.errors import ClassificationError, ClientClosedError, ErrorCode
from athena_async.events import Event
from athena_async.flow import Flow
from athena_async.images.workers import PreprocessWorkers
from athena_async.preparation import Preparation
from athena_async.results import DeploymentInfo, DrainReport, Outcome
from athena_async.streams.ticket import Sink, Ticket

_HALF_CLOSE_S = 0.5
_PROBE_TIMEOUT_S = 5.0


class Engine:
    """The client's inside.

    Invariants: the root task's group owns all tasks; after it ended, for whatever reason, no image is open and
    whoever waits for a place in the limit was told; an endpoint has one probe to answer at a time.
    """

    def __init__(
        self,
        config: ClientConfig,
        flow: Flow,
        credentials: Credentials,
        watch_files: Callable[[], Awaitable[None]] | None,
        emit: Callable[[Event], None],
    ) -> None:
        self.flow = flow
        self.workers = PreprocessWorkers(config.preprocess)
        self.preparation = Preparation(
            self.workers, flow.encoding_now, flow.encoding.observe_frame, flow.may_prepare, flow.prepared, emit
        )
        self._config = config
        self._credentials = credentials
        self._watch_files = watch_files
        self._clock = asyncio.get_running_loop().time
        self._stop = asyncio.Event()
        self._root: asyncio.Task[None] | None = None
        self._tasks: TaskGroup | None = None
        self._feeders: set[asyncio.Task[object] | None] = set()
        self._probed: set[str] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"Engine({self.preparation!r}, {self.flow!r})"

    @property
    def is_open(self) -> bool:
        return self._root is not None and not self._closed

    async def start(self) -> None:
        """Starts the root task and returns once it runs. Cancelling ends it again."""
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._root = asyncio.create_task(self._run(started), name="athena_async engine")
        try:
            await asyncio.wait({self._root, started}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._root.cancel()
            with anyio.CancelScope(shield=True):
                await asyncio.wait({self._root})
            raise
        if self._root.done():
            self._root.result()

    def submit(self, tickets: Sequence[Ticket]) -> None:
        """Takes in images that hold places in the limit. Each will be settled once."""
        if self._closed:
            self._refuse(tickets)
            return
        failed = self.flow.accept(tickets)
        if failed:
            duplicates = {id(ticket) for ticket, _ in failed}
            tickets = [ticket for ticket in tickets if id(ticket) not in duplicates]
        encoding = self.flow.encoding_now()
        is_cheap, prepare_inline = self.workers.is_cheap, self.workers.prepare_inline
        ready: list[Ticket] = []
        for ticket in tickets:
            source = ticket.source
            if not is_cheap(source, encoding):
                self.preparation.submit(ticket)
                continue
            frame = prepare_inline(source, ticket.affiliate, ticket.correlation_id)
            if isinstance(frame, ClassificationError):
                failed.append((ticket, frame))
            else:
                ticket.prepared(frame)
                ready.append(ticket)
        self.flow.prepared(ready, failed)

    def abandon(self, sink: Sink) -> None:
        """Nobody waits for these results any more: what was not sent is dropped, the rest is awaited silently."""
        sink.abandoned = True
        self.flow.drop_unsent(sink, self.preparation.remove(lambda ticket: ticket.sink is sink))

    async def list_deployments(self, endpoint: str, timeout_s: float) -> list[DeploymentInfo]:
        """Asks one endpoint. What our deployment holds is remembered; one that is not listed holds nothing.

        Raises:
            CallFailed: it did not answer.
        """
        rows = await self.flow.unary.list_deployments(endpoint, timeout_s)
        self.flow.backlog = next((row.backlog for row in rows if row.deployment_id == self.flow.deployment_id), 0)
        return rows

    def spawn(self, feed: Callable[[], Awaitable[None]]) -> anyio.CancelScope:
        """Runs a task that feeds images until it ends, its scope is cancelled, or the engine ends."""
        if self._tasks is None:
            raise ClientClosedError("the client is not open")
        scope = anyio.CancelScope()

        async def run() -> None:
            feeder = asyncio.current_task()
            self._feeders.add(feeder)
            try:
                with scope:
                    await feed()
            finally:
                self._feeders.discard(feeder)

        self._tasks.start_soon(run)
        return scope

    async def wait_closed(self) -> None:
        """Until every task has ended, whoever closes."""
        if self._root is not None:
            await asyncio.wait({self._root})

    async def aclose(self, drain_timeout_s: float) -> DrainReport:
        """Takes nothing new, waits for open images, settles what is left, ends every task.

        Cancelling it cuts the wait short; the engine is closed all the same.

        Raises:
            RuntimeError: called by a source of images, for whose end it would wait.
        """
        if asyncio.current_task() in self._feeders:
            raise RuntimeError("a source of images cannot close the client that reads it: end the source instead")
        self._closed = True
        self.flow.limit.close()
        try:
            with anyio.move_on_after(drain_timeout_s):
                await self.flow.empty.wait()
        finally:
            report = self.flow.give_up_rest()
            with anyio.CancelScope(shield=True):
                await self._end()
        return report

    async def _end(self) -> None:
        self.flow.foreign.close()
        self.flow.fleet.drain()
        if self._root is not None:
            with anyio.move_on_after(_HALF_CLOSE_S):
                await self.flow.fleet.wait_empty()
            self._stop.set()
            await asyncio.wait({self._root})
            if not self._root.cancelled():
                self._root.result()

    def _refuse(self, tickets: Sequence[Ticket]) -> None:
        """Closed meanwhile. Each image was promised a result; whoever feeds them is told by the limit."""
        for ticket in tickets:
            self.flow.limit.release(1, ticket.reserved_bytes)
            if not ticket.sink.abandoned:
                message = "the client was closed before it was sent"
                ticket.sink.deliver(ticket.result(Outcome.FAILED, self._clock(), ErrorCode.CLOSED, message))

    async def _run(self, started: asyncio.Future[None]) -> None:
        try:
            async with self.workers, anyio.create_task_group() as tasks:
                self._tasks = tasks
                self.flow.hear = self._hear
                self.flow.left = self.preparation.wake
                self.flow.fleet.start(lambda run, session: tasks.start_soon(run, session))  # noqa: PLW0108 - narrows the signature
                tasks.start_soon(self.preparation.run)
                tasks.start_soon(self._keep_time)
                tasks.start_soon(self._probe_backlog)
                for endpoint in self._config.endpoints:
                    tasks.start_soon(self._probe_ejected, endpoint)
                tasks.start_soon(self._follow, self._credentials.wait_changed, "credentials changed")
                if self._watch_files is not None:
                    tasks.start_soon(self._follow, self._watch_files, "certificate changed")
                started.set_result(None)
                await self._stop.wait()
                self.flow.fleet.close()
                tasks.cancel_scope.cancel()
            if not self._stop.is_set():
                # A task ended as cancelled, though nobody cancelled it; the group ends with it, and says nothing.
                self._stopped("one of its tasks was cancelled from outside")
        except Exception as fault:
            if not started.done():
                raise
            self._stopped(type(_first(fault)).__name__, fault)
        except BaseException as end:
            self.flow.fail_everything(f"the client stopped: {type(end).__name__}")
            raise
        finally:
            self._closed = True
            self.flow.batcher.close()
            with anyio.CancelScope(shield=True):
                await self.flow.unary.aclose()
                await self._credentials.aclose()

    def _stopped(self, why: str, fault: Exception | None = None) -> None:
        """The client ended by itself: so does every open image, and the event loop's handler is told why."""
        message = f"the client stopped: {why}"
        self.flow.fail_everything(message)
        context = {"message": message} if fault is None else {"message": message, "exception": fault}
        asyncio.get_running_loop().call_exception_handler(context)

    async def _keep_time(self) -> None:
        while True:
            interval_s = self.flow.tick_interval_s()
            planned_s = self._clock() + interval_s
            with anyio.move_on_after(interval_s) as wait:
                await self.flow.attention.wait()
            self.flow.attention.clear()
            self.flow.tick(self._clock() - planned_s if wait.cancelled_caught else 0.0)

    async def _probe_ejected(self, endpoint: str) -> None:
        """Asks an endpoint how it is while it is ejected."""
        while True:
            await asyncio.sleep(self._config.pool.probe_interval_s)
            if self.flow.health.state(endpoint, self._clock()) is EndpointState.OPEN and endpoint not in self._probed:
                await self._ask_backlog(endpoint)

    async def _probe_backlog(self) -> None:
        """Asks the deployment what it holds while images wait for it. Who does not answer is asked last next time."""
        order = list(self._config.endpoints)
        while True:
            await asyncio.sleep(self._config.pool.probe_interval_s)
            asked_s = self._clock()
            free = set(self.flow.health.eligible(asked_s)) - self._probed
            endpoint = next((endpoint for endpoint in order if endpoint in free), None)
            if endpoint is None or not self.flow.arbiter.recovery:
                continue
            count = await self._ask_backlog(endpoint)
            self.flow.arbiter.recovery.backlog(count, self._clock(), asked_s)
            if count is None:
                order.remove(endpoint)
                order.append(endpoint)

    async def _ask_backlog(self, endpoint: str) -> int | None:
        """What the deployment holds, by one endpoint; None where it would not say."""
        self._probed.add(endpoint)
        try:
            await self.list_deployments(endpoint, _PROBE_TIMEOUT_S)
        except CallFailed:
            self.flow.health.health_checked(endpoint, False, self._clock())
            return None
        finally:
            self._probed.discard(endpoint)
        self.flow.health.health_checked(endpoint, True, self._clock())
        return self.flow.backlog

    async def _follow(self, wait_changed: Callable[[], Awaitable[None]], reason: str) -> None:
        while True:
            await wait_changed()
            self.flow.fleet.renew(reason)
            await self.flow.unary.renew()

    def _hear(self, suspects: list[Ticket], error: wire.ServiceError) -> None:
        if self._tasks is not None:
            self._tasks.start_soon(self.flow.hearing.hear, suspects, error)


def _first(fault: Exception) -> Exception:
    """What happened, out of the groups that the tasks around it made of it."""
    while isinstance(fault, ExceptionGroup):
        fault = fault.exceptions[0]
    return fault
