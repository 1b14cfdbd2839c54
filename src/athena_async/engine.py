"""Wires images, batching, channels and streams; owns every task of a client.

One root task holds one task group: preprocessing, a session per channel, the watch that acts when time
passes, and the watchers of credentials. It ends when the engine is closed, or with the first fault of this
library, which then settles every open image: nobody waits for ever.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence

import anyio
from anyio.abc import TaskGroup

from athena_async import events, wire
from athena_async.auth.credentials import Credentials
from athena_async.batching.batcher import Batcher
from athena_async.batching.controller import BatchController
from athena_async.channels.channel import Access, CallFailed, Connect
from athena_async.channels.health import EndpointState, HealthBoard
from athena_async.channels.pool import Pool
from athena_async.channels.unary import UnaryCalls
from athena_async.config import ClientConfig
from athena_async.errors import ClassificationError, ClientClosedError, ErrorCode
from athena_async.images.encoding import EncodingPolicy
from athena_async.images.workers import PreprocessWorkers
from athena_async.preparation import Failed, Preparation
from athena_async.resilience.backoff import Backoff
from athena_async.resilience.limits import InFlightLimit
from athena_async.resilience.retry import RetryBudget
from athena_async.results import DrainReport, Outcome
from athena_async.streams.arbiter import Arbiter, ArbiterHooks
from athena_async.streams.demultiplexer import CorrelationIds, Demultiplexer
from athena_async.streams.fleet import Fleet, FleetHooks
from athena_async.streams.foreign import ForeignResults
from athena_async.streams.session import Session, SessionSettings
from athena_async.streams.settlement import Settlement
from athena_async.streams.singles import SingleCalls, SuspectHearing
from athena_async.streams.ticket import Batch, Sink, Ticket

_BUSY_TICK_S = 0.05
_TICK_S = 0.25
_IDLE_TICK_S = 5.0
_HALF_CLOSE_S = 0.5
_PROBE_TIMEOUT_S = 5.0


class Engine:
    """The client's inside.

    Invariants: every accepted image stands in the demultiplexer until it is settled, and in exactly one of
    preparation, batcher, a batch, recovery, a hearing, or a retry timer; the root task's group owns all tasks.
    """

    def __init__(
        self,
        config: ClientConfig,
        deployment_id: str,
        connect: Connect,
        credentials: Credentials,
        watch_files: Callable[[], Awaitable[None]] | None,
        emit: Callable[[events.Event], None],
        rng: random.Random,
    ) -> None:
        self.deployment_id = deployment_id
        self.backlog: int | None = None
        self._config = config
        self._credentials = credentials
        self._watch_files = watch_files
        self._emit = emit
        self._clock = asyncio.get_running_loop().time
        self._attention = asyncio.Event()
        self._stop = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._root: asyncio.Task[None] | None = None
        self._tasks: TaskGroup | None = None
        self._closed = False

        limits, retry = config.limits, config.retry
        self.ids = CorrelationIds()
        self.demultiplexer = Demultiplexer(self.ids.prefix)
        self.limit = InFlightLimit(limits.max_in_flight, limits.max_in_flight_bytes)
        self.settlement = Settlement(self.demultiplexer, self.limit, emit, self._clock, self._empty.set)
        budget_images = limits.max_in_flight if retry.budget_images is None else retry.budget_images
        self.budget = RetryBudget(budget_images, retry.budget_ratio)
        self.health = HealthBoard(config.endpoints, config.breaker, rng)
        self.controllers = {endpoint: BatchController(config.batching) for endpoint in config.endpoints}
        self.foreign = ForeignResults(limits.foreign_results)
        self.encoding = EncodingPolicy()
        self.workers = PreprocessWorkers(config.preprocess)
        access = Access(connect, credentials.metadata, credentials.refused)
        self.unary = UnaryCalls(access)
        self.preparation = Preparation(self.workers, self.encoding_now, self._prepared, emit)
        self.arbiter = Arbiter(
            retry, self.demultiplexer, self.settlement, self.budget, self._arbiter_hooks(), self._clock, rng
        )
        self.singles = SingleCalls(retry, self.unary, self.health, self.budget, self._count_resent, rng)
        self.hearing = SuspectHearing(self.singles, self.settlement, self.budget)
        pool: Pool[Session] = Pool(config.endpoints, config.pool, self.health, rng)
        self.fleet = Fleet(
            pool,
            self.health,
            config.pool,
            self._session_settings(),
            access,
            self._fleet_hooks(),
            rng,
        )
        self.batcher: Batcher[Session] = Batcher(
            self.controllers, lambda room: pool.pick(self._clock(), room), self._batch_sent, config.batching.linger_s
        )

    def __repr__(self) -> str:
        return f"Engine({self.limit!r}, {self.preparation!r}, {self.batcher!r}, {self.fleet!r}, {self.arbiter!r})"

    @property
    def is_open(self) -> bool:
        return self._root is not None and not self._closed

    async def start(self) -> None:
        """Starts the root task and returns once it runs."""
        started = asyncio.Event()
        self._root = asyncio.create_task(self._run(started), name="athena_async engine")
        waiter = asyncio.create_task(started.wait())
        await asyncio.wait({self._root, waiter}, return_when=asyncio.FIRST_COMPLETED)
        waiter.cancel()
        if self._root.done():
            self._root.result()

    def encoding_now(self) -> str:
        """What preprocessing makes of pixels at this moment."""
        choice = self._config.preprocess.encoding
        return self.encoding.choose(self._clock()) if choice == "auto" else choice

    def submit(self, tickets: Sequence[Ticket]) -> None:
        """Takes in images that hold places in the limit. Each will be settled once."""
        if self._closed:
            self._refuse(tickets)
            return
        self._empty.clear()
        self.settlement.totals.accepted_count += len(tickets)
        self._emit(events.ImagesAccepted(self._clock(), len(tickets)))
        self.arbiter.deadlines.add(tickets)
        encoding = self.encoding_now()
        ready: list[Ticket] = []
        failed: list[tuple[Ticket, ClassificationError]] = []
        for ticket in tickets:
            if not self.demultiplexer.register(ticket):
                failed.append((ticket, _duplicate_id(ticket)))
            elif self.workers.is_cheap(ticket.source, encoding):
                frame = self.workers.prepare_inline(ticket.source, ticket.affiliate, ticket.correlation_id)
                if isinstance(frame, wire.Frame):
                    ticket.prepared(frame)
                    ready.append(ticket)
                else:
                    failed.append((ticket, frame))
            else:
                self.preparation.submit(ticket)
        self._prepared(ready, failed)
        self._attention.set()

    def abandon(self, sink: Sink) -> None:
        """Nobody waits for these results any more: what was not sent is dropped, the rest is awaited silently."""
        sink.abandoned = True

        def unsent(ticket: Ticket) -> bool:
            return ticket.sink is sink and not ticket.attempts

        dropped = self.batcher.remove(unsent) + self.preparation.remove(unsent)
        self.settlement.fail(dropped, Outcome.FAILED, ErrorCode.CLOSED, "the caller was cancelled")

    def spawn(self, feed: Callable[[], Awaitable[None]]) -> anyio.CancelScope:
        """Runs a task that feeds images until it ends, its scope is cancelled, or the engine ends."""
        if self._tasks is None:
            raise ClientClosedError("the client is not open")
        scope = anyio.CancelScope()

        async def run() -> None:
            with scope:
                await feed()

        self._tasks.start_soon(run)
        return scope

    def want_streams(self) -> None:
        """Have streams open though no image waits: somebody reads foreign results."""
        self.fleet.demand(waiting=True)

    async def aclose(self, drain_timeout_s: float) -> DrainReport:
        """Takes nothing new, waits for open images, settles what is left, ends every task.

        Cancelling it cuts the wait short; the engine is closed all the same.
        """
        self._closed = True
        self.limit.close()
        try:
            with anyio.move_on_after(drain_timeout_s):
                await self._empty.wait()
        finally:
            report = self._give_up_rest()
            with anyio.CancelScope(shield=True):
                await self._end()
        return report

    async def _end(self) -> None:
        self.foreign.close()
        self.fleet.drain()
        if self._root is not None:
            with anyio.move_on_after(_HALF_CLOSE_S):
                await self.fleet.wait_empty()
            self._stop.set()
            await asyncio.wait({self._root})
            if not self._root.cancelled():
                self._root.result()

    def _give_up_rest(self) -> DrainReport:
        left = self.demultiplexer.open_tickets()
        unsent = [ticket for ticket in left if not ticket.attempts]
        sent = [ticket for ticket in left if ticket.attempts]
        self.settlement.fail(unsent, Outcome.FAILED, ErrorCode.CLOSED, "the client was closed before it was sent")
        message = "the client was closed before an answer came; it was sent and may have been classified"
        self.settlement.fail(sent, Outcome.UNKNOWN, ErrorCode.CLOSED, message)
        self.batcher.remove(lambda ticket: ticket.settled)
        self._emit(events.Drained(self._clock(), len(left)))
        return DrainReport(
            tuple(ticket.correlation_id for ticket in unsent), tuple(ticket.correlation_id for ticket in sent)
        )

    def _refuse(self, tickets: Sequence[Ticket]) -> None:
        for ticket in tickets:
            self.limit.release(1, ticket.reserved_bytes)
        if any(not ticket.sink.abandoned for ticket in tickets):
            raise ClientClosedError("the client was closed")

    async def _run(self, started: asyncio.Event) -> None:
        try:
            async with self.workers, anyio.create_task_group() as tasks:
                self._tasks = tasks
                self.fleet.start(lambda run, session: tasks.start_soon(run, session))  # noqa: PLW0108 - narrows the signature
                tasks.start_soon(self.preparation.run)
                tasks.start_soon(self._watch)
                tasks.start_soon(self._probe)
                tasks.start_soon(self._follow, self._credentials.wait_changed, "credentials changed")
                if self._watch_files is not None:
                    tasks.start_soon(self._follow, self._watch_files, "certificate changed")
                started.set()
                await self._stop.wait()
                self.fleet.close()
                tasks.cancel_scope.cancel()
        except BaseException as fault:
            self._fail_everything(fault)
            raise
        finally:
            self._closed = True
            self.batcher.close()
            with anyio.CancelScope(shield=True):
                await self.unary.aclose()
                await self._credentials.aclose()

    def _fail_everything(self, fault: BaseException) -> None:
        """A fault of this library must not leave anybody waiting."""
        self.limit.close()
        self.foreign.close()
        left = self.demultiplexer.open_tickets()
        self.settlement.fail(left, Outcome.UNKNOWN, ErrorCode.INTERNAL, f"the client stopped: {type(fault).__name__}")

    async def _watch(self) -> None:
        """Acts when time passes, often while something is wrong, seldom when idle."""
        while True:
            interval_s = self._tick_interval_s()
            planned_s = self._clock() + interval_s
            with anyio.move_on_after(interval_s) as wait:
                await self._attention.wait()
            self._attention.clear()
            late_s = self._clock() - planned_s if wait.cancelled_caught else 0.0
            self.arbiter.tick(late_s)
            self.batcher.remove(lambda ticket: ticket.settled)
            self.fleet.watch(self.arbiter.latency.usual_s, self.arbiter.recovery.grace_s)
            self.fleet.adjust(waiting=len(self.batcher) > 0)
            self._pump()

    def _tick_interval_s(self) -> float:
        if self.arbiter.is_busy:
            return _BUSY_TICK_S
        next_s = self.arbiter.deadlines.next_s()
        if next_s is None:
            return _IDLE_TICK_S
        return min(_TICK_S, max(0.0, next_s - self._clock()))

    async def _probe(self) -> None:
        """Asks the deployment what it holds while images wait for it, and ejected endpoints how they are."""
        while True:
            await asyncio.sleep(self._config.pool.probe_interval_s)
            now = self._clock()
            for endpoint in self._config.endpoints:
                if self.health.state(endpoint, now) is EndpointState.OPEN:
                    await self._ask_backlog(endpoint)
            if len(self.arbiter.recovery):
                count = await self._ask_backlog(self.health.eligible(now)[0])
                self.arbiter.recovery.backlog(count, self._clock())

    async def _ask_backlog(self, endpoint: str) -> int | None:
        """What the deployment holds, by one endpoint; None where it would not say."""
        try:
            rows = await self.unary.list_deployments(endpoint, _PROBE_TIMEOUT_S)
        except CallFailed:
            self.health.health_checked(endpoint, False, self._clock())
            return None
        self.health.health_checked(endpoint, True, self._clock())
        self.backlog = next((row.backlog for row in rows if row.deployment_id == self.deployment_id), 0)
        return self.backlog

    async def _follow(self, wait_changed: Callable[[], Awaitable[None]], reason: str) -> None:
        while True:
            await wait_changed()
            self.fleet.renew(reason)
            await self.unary.renew()

    def _prepared(self, tickets: list[Ticket], failed: Failed) -> None:
        """Images leave preprocessing."""
        now = self._clock()
        if failed:
            self.settlement.settle(
                [(t, t.result(Outcome.FAILED, now, e.code, e.message, retryable=e.retryable)) for t, e in failed]
            )
        for ticket in tickets:
            if self.hearing.is_barred(ticket.affiliate):
                self.hearing.settle_barred(ticket)
            else:
                self._reserve_exactly(ticket)
        tickets = [ticket for ticket in tickets if not ticket.settled]
        if tickets:
            self.batcher.offer(tickets, now)
            self._pump()

    def _reserve_exactly(self, ticket: Ticket) -> None:
        assert ticket.frame is not None
        size_bytes = ticket.frame.size_bytes
        self.settlement.totals.source_bytes += ticket.source_bytes
        self.limit.adjust(size_bytes - ticket.reserved_bytes)
        ticket.reserved_bytes = size_bytes

    def _pump(self) -> None:
        self.batcher.pump(self._clock())
        if len(self.batcher) or len(self.arbiter.recovery):
            self.fleet.demand(waiting=len(self.batcher) > 0)

    def _batch_sent(self, session: Session, batch: Batch) -> None:
        self.budget.first_send(len(batch.tickets) - batch.resent)
        self._count_resent(batch.resent)
        self.fleet.sent(session, batch)

    def _count_resent(self, images: int) -> None:
        self.settlement.totals.resent_count += images

    def _send_again(self, tickets: list[Ticket]) -> None:
        self.batcher.offer_first([ticket for ticket in tickets if not ticket.settled], self._clock())
        self._attention.set()

    def _answered(self, session: Session, batch: Batch, latency_s: float) -> None:
        self.arbiter.latency.observe(latency_s)
        self.controllers[session.endpoint].observe(
            images=len(batch.tickets),
            size_bytes=batch.size_bytes,
            latency_s=latency_s,
            in_flight=batch.in_flight,
            queue_depth=batch.queue_depth,
            now=self._clock(),
        )

    def _wrote(self, size_bytes: int, waited_s: float) -> None:
        self.settlement.totals.sent_bytes += size_bytes
        self.encoding.observe_write(size_bytes, waited_s, self._clock())

    def _strays(self, late_count: int, foreign: list[wire.Answer]) -> None:
        totals = self.settlement.totals
        dropped_count = self.foreign.put(foreign) if foreign else 0
        totals.late_count += late_count
        totals.foreign_count += len(foreign)
        totals.foreign_dropped_count += dropped_count
        self._emit(events.StrayAnswers(self._clock(), late_count, len(foreign), dropped_count))

    def _turned_away(self, failure: CallFailed) -> None:
        """Every endpoint refuses us: what waits is failed clearly, since waiting would not help."""
        waiting = self.batcher.remove(lambda _ticket: True)
        fresh = [ticket for ticket in waiting if not ticket.attempts]
        resent = [ticket for ticket in waiting if ticket.attempts]
        self.settlement.fail(fresh, Outcome.FAILED, failure.code, failure.message)
        self.settlement.fail(resent, Outcome.UNKNOWN, failure.code, failure.message)

    def _settle_alone(self, suspects: list[Ticket], error: wire.ServiceError) -> None:
        if self._tasks is not None:
            self._tasks.start_soon(self.hearing.hear, suspects, error)

    def _hold(self, held: bool) -> None:
        if held:
            self.batcher.pause()
            self._attention.set()
        else:
            self.batcher.resume()
            self._attention.set()

    def _session_settings(self) -> SessionSettings:
        config = self._config
        return SessionSettings(
            wire.request_head(self.deployment_id),
            config.keepalive_interval_s,
            config.pool.connect_timeout_s,
            config.pool.idle_timeout_s,
            Backoff(config.retry.base_s, config.retry.cap_s),
        )

    def _arbiter_hooks(self) -> ArbiterHooks:
        return ArbiterHooks(
            send_again=self._send_again,
            hold=self._hold,
            settle_alone=self._settle_alone,
            in_flight=lambda: self.fleet.in_flight(),  # noqa: PLW0108 - the fleet is made after the arbiter
            timed_out=lambda batch: self._congested(batch.carrier.endpoint),
            refused_size=lambda endpoint, sent_bytes, allowed_bytes: self.controllers[endpoint].refused(
                sent_bytes, allowed_bytes, self._clock()
            ),
            strays=self._strays,
            emit=self._emit,
        )

    def _fleet_hooks(self) -> FleetHooks:
        return FleetHooks(
            received=self.arbiter.received,
            lost=self.arbiter.lost,
            wrote=self._wrote,
            answered=self._answered,
            batch_over=lambda endpoint: self.batcher.finished(endpoint),  # noqa: PLW0108 - made after the fleet
            congested=self._congested,
            overdue=self.arbiter.overdue,
            reading=lambda is_reading: self.arbiter.recovery.reading(is_reading, self._clock()),
            turned_away=self._turned_away,
            changed=self._pump,
            may_rest=lambda: not self.foreign.readers and not self.arbiter.is_busy,
            emit=self._emit,
        )

    def _congested(self, endpoint: str) -> None:
        self.controllers[endpoint].congested(self._clock())


def _duplicate_id(ticket: Ticket) -> ClassificationError:
    message = f"correlation id {ticket.correlation_id!r} is in flight already; ids must be unique within a deployment"
    return ClassificationError(ErrorCode.CORRELATION_ID_INVALID, message)
