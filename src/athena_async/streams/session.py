"""One stream on one channel: a task that writes, a task that reads, keep-alive, and opening again.

The session knows its batches but not what their images mean: it reports through `Hooks`.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from dataclasses import dataclass

import anyio

from athena_async import wire
from athena_async.channels.channel import Access, CallFailed, Metadata, StreamCall, Transport
from athena_async.errors import CredentialsError, ErrorCode
from athena_async.resilience.backoff import Backoff
from athena_async.streams.hooks import Hooks
from athena_async.streams.loss import REFUSALS, Loss, LostBatch
from athena_async.streams.state import Input, State, after
from athena_async.streams.ticket import Batch, Ticket

_SHORT_LIFE_S = 1.0
# How long a server may take to end its half of a call after we ended ours.
_HALF_CLOSE_S = 5.0


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """What all sessions of a client share."""

    request_head: bytes
    keepalive_interval_s: float
    connect_timeout_s: float
    idle_timeout_s: float
    backoff: Backoff
    outbox_batches: int = 2


class Session:
    """A channel and, while there is work, its one stream.

    Invariants: ``state`` changes only through the table in `athena_async.streams.state`; one
    reader and one writer per call; a batch handed to `send` stands in ``batches`` until all of its images
    are answered or the stream is lost; on a loss every open image is reported exactly once; while ``stalled``
    it is handed no batch.
    """

    def __init__(
        self,
        endpoint: str,
        channel_id: int,
        access: Access,
        settings: SessionSettings,
        hooks: Hooks,
        rng: random.Random,
    ) -> None:
        self.endpoint = endpoint
        self.channel_id = channel_id
        self.state = State.IDLE
        self.batches: dict[Batch, None] = {}
        self.outstanding_bytes = 0
        self.outstanding_images = 0
        self.unwritten_bytes = 0
        self.created_s = asyncio.get_running_loop().time()
        self.used_s = self.created_s
        self.heard_s = float("-inf")
        self.stalled = False
        self.transport: Transport | None = None
        self._access = access
        self._settings = settings
        self._hooks = hooks
        self._rng = rng
        self._outbox: deque[Batch] = deque()
        self._changed = asyncio.Event()
        self._call: StreamCall | None = None
        self._opened_s: float | None = None
        self._half_closed = False
        self._failures = 0
        self._auth_retried = False
        self._heard = self._read_over = False
        self._abandoned = ""
        self._backoff_s = 0.0

    def __repr__(self) -> str:
        return (
            f"Session({self.endpoint} #{self.channel_id} {self.state}, {len(self.batches)} batches, "
            f"{self.outstanding_images} images, {self.outstanding_bytes} bytes)"
        )

    @property
    def ready(self) -> bool:
        """Whether it may be handed a batch now."""
        if self.state is not State.OPEN or self._half_closed or self.stalled:
            return False
        return len(self._outbox) < self._settings.outbox_batches

    @property
    def is_going_away(self) -> bool:
        """Whether the server asks to leave this connection: a new channel should take over."""
        return self.state is State.OPEN and self.transport is not None and self.transport.is_going_away()

    def silent_s(self, now: float) -> float:
        """How long it has owed answers and nothing was heard: none to its batches, wherever, and none on its stream.

        0.0 while it owes none. A batch that is sent meanwhile is no news.
        """
        if not self.batches:
            return 0.0
        oldest = next(iter(self.batches))
        begun_s = max(batch.progress_s for batch in self.batches if batch is oldest or batch.is_begun)
        return now - max(begun_s, self.heard_s)

    def demand(self) -> None:
        """Images wait: open a stream if there is none."""
        if self.state is State.IDLE:
            self._enter(Input.DEMAND)

    def send(self, batch: Batch) -> None:
        """Queues a batch for the writer. Only while `ready`."""
        self.batches[batch] = None
        self.outstanding_bytes += batch.size_bytes
        self.outstanding_images += len(batch.tickets)
        self.unwritten_bytes += batch.size_bytes
        self.used_s = batch.sent_s
        self._outbox.append(batch)
        self._changed.set()

    def finished(self, batch: Batch, now: float) -> None:
        """The last image of a batch is answered, on whatever stream."""
        self._drop(batch)
        self.used_s = self.heard_s = now
        self.stalled = False
        self._hooks.batch_finished(self, batch, now)
        if self.state is State.DRAINING:
            self._changed.set()

    def release(self, batch: Batch) -> list[Ticket]:
        """Gives up on a batch; its open images are the caller's now."""
        self._drop(batch)
        if self.state is State.DRAINING:
            self._changed.set()
        return batch.release()

    def drain(self) -> None:
        """No new batches; the session ends when those in flight are answered."""
        self._enter(Input.DRAIN)

    def close(self) -> None:
        """Ends the session now. Open images are reported as lost."""
        self._enter(Input.CLOSE)
        if self._call is not None:
            self._call.cancel()

    def abandon_call(self, reason: str) -> None:
        """Gives up a call that is stuck: it is lost for this reason, and another will be opened."""
        if self._call is not None:
            self._abandoned = reason
            self._call.cancel()

    async def run(self) -> None:
        """Lives until closed or drained. Cancelling closes the channel and reports open images as lost."""
        try:
            while self.state is not State.CLOSED:
                if self.state is State.CONNECTING:
                    await self._one_call()
                elif self.state is State.BACKOFF:
                    await self._back_off()
                else:
                    await self._wait_changed(None)
        finally:
            self._enter(Input.CLOSE)
            if self.batches or self._opened_s is not None:
                self._report_loss(CallFailed(ErrorCode.CLOSED, "the client was closed"))
            if self.transport is not None:
                with anyio.CancelScope(shield=True):
                    await self.transport.aclose()

    def _enter(self, given: Input) -> None:
        self.state = after(self.state, given)
        self._changed.set()

    async def _back_off(self) -> None:
        """Waits the whole backoff, unless the session is drained or closed meanwhile."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self._backoff_s
        while self.state is State.BACKOFF and (left_s := until_s - loop.time()) > 0.0:
            await self._wait_changed(left_s)
        if self.state is State.BACKOFF:
            self._enter(Input.WAITED)
            self._hooks.room()

    async def _wait_changed(self, timeout_s: float | None) -> bool:
        """True when something changed, also before the call; False when the time is over."""
        loop = asyncio.get_running_loop()
        until_s = None if timeout_s is None else loop.time() + timeout_s
        timer = None if until_s is None else loop.call_at(until_s, self._changed.set)
        try:
            await self._changed.wait()
        finally:
            if timer is not None:
                timer.cancel()
        self._changed.clear()
        return until_s is None or loop.time() < until_s

    async def _one_call(self) -> None:
        self._heard = self._half_closed = False
        self._abandoned = ""
        metadata: Metadata = ()
        failure: CallFailed | None
        try:
            metadata = await self._access.authorize()
            call = await self._open(metadata)
        except (CallFailed, CredentialsError, TimeoutError) as error:
            failure = self._as_failure(error)
        else:
            failure = await self._converse(call)
        finally:
            self._call = None
        if metadata and failure is not None and failure.code is ErrorCode.UNAUTHENTICATED:
            self._access.refused(metadata)
        self._end_call(failure)

    def _as_failure(self, error: CallFailed | CredentialsError | TimeoutError) -> CallFailed:
        if isinstance(error, CallFailed):
            return error
        if isinstance(error, CredentialsError):
            return CallFailed.of_credentials(error)
        return CallFailed(ErrorCode.UNAVAILABLE, f"no connection within {self._settings.connect_timeout_s:g} s")

    async def _open(self, metadata: Metadata) -> StreamCall:
        if self.transport is None:
            self.transport = await self._access.connect(self.endpoint)
        call = self._call = self.transport.open_stream(metadata)
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                await call.connected()
                # Joins the deployment, so that its answers come here before the first image leaves.
                await call.write(self._settings.request_head)
        except BaseException:
            call.cancel()
            raise
        return call

    async def _converse(self, call: StreamCall) -> CallFailed | None:
        """Reads until the stream ends. None where the server ended it in peace."""
        if self.state is not State.CONNECTING:
            call.cancel()
            return None
        self._read_over = False
        self._opened_s = self.used_s = asyncio.get_running_loop().time()
        self._enter(Input.CONNECTED)
        self._hooks.opened(self)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._write, call)
                failure = await self._read(call)
                # The writer ends by itself. Were it cancelled, the exception's frames would hold the call, and so
                # the connection, until the next garbage collection.
                self._read_over = True
                self._changed.set()
                call.cancel()
        finally:
            call.cancel()
        return failure

    async def _read(self, call: StreamCall) -> CallFailed | None:
        while True:
            try:
                data = await call.read()
            except CallFailed as failure:
                return failure
            if data is None:
                return None
            if not self._heard:
                self._heard, self._auth_retried = True, False
            self.heard_s = asyncio.get_running_loop().time()
            self.stalled = False
            try:
                response = wire.read_response(data)
            except wire.DecodeError:
                return CallFailed(ErrorCode.INTERNAL, f"the server sent {len(data)} bytes that are no ClassifyResponse")
            self._hooks.received(self, response)

    async def _write(self, call: StreamCall) -> None:
        """Ends when the call does; the reader knows why."""
        loop = asyncio.get_running_loop()
        head = self._settings.request_head
        try:
            while not self._is_over(loop.time()) and not self._read_over:
                if not self._outbox:
                    if not await self._wait_changed(self._settings.keepalive_interval_s):
                        await call.write(head)
                    continue
                batch = self._outbox.popleft()
                request = wire.join_request(head, batch.leave())
                self._hooks.writing(self, batch)
                started_s = loop.time()
                try:
                    await call.write(request)
                finally:
                    self.unwritten_bytes -= batch.size_bytes
                self._hooks.wrote(self, len(request), loop.time() - started_s)
                self._hooks.room()
            if not self._read_over:
                await self._end_our_half(call)
        except CallFailed:
            return

    async def _end_our_half(self, call: StreamCall) -> None:
        self._half_closed = True
        await call.done_writing()
        while not self._read_over and await self._wait_changed(_HALF_CLOSE_S):
            pass
        call.cancel()

    def _is_over(self, now: float) -> bool:
        """Whether nothing more is to be written: drained, or idle for long."""
        if self.batches:
            return False
        idle_s = self._settings.idle_timeout_s
        resting = self.state is State.OPEN and 0 < idle_s <= now - self.used_s and self._hooks.may_rest()
        return resting or self.state in (State.DRAINING, State.CLOSED)

    def _end_call(self, failure: CallFailed | None) -> None:
        if self._heard:
            self._failures = 0
        if self.state is State.CLOSED:
            return
        failure = self._why_lost(failure)
        was_open = self._opened_s is not None
        age_s = 0.0 if self._opened_s is None else asyncio.get_running_loop().time() - self._opened_s
        self._opened_s = None
        if failure is None:
            self._enter(Input.RESTED)
            self._hooks.rested(self)
            return
        self._backoff_s = self._next_backoff_s(failure)
        self._enter(Input.LOST)
        self._report_loss(failure, unread=age_s < self._settings.connect_timeout_s, was_open=was_open)

    def _why_lost(self, failure: CallFailed | None) -> CallFailed | None:
        """None where the stream ended in peace."""
        if self._half_closed and not self.batches:
            return None  # we ended it, and however the server took that, nothing is lost
        if self._abandoned:
            return CallFailed(ErrorCode.UNAVAILABLE, self._abandoned, is_local=True)
        if failure is not None or self._opened_s is None:
            return failure
        is_short = asyncio.get_running_loop().time() - self._opened_s < _SHORT_LIFE_S
        if self.batches or (is_short and self.state is State.OPEN):
            return CallFailed(ErrorCode.UNAVAILABLE, "the server ended the stream")
        return None

    def _next_backoff_s(self, failure: CallFailed) -> float:
        if failure.code is ErrorCode.UNAUTHENTICATED and not self._auth_retried:
            return 0.0
        delay_s = self._settings.backoff.delay_s(self._failures, self._rng, max(0.0, failure.pushback_s or 0.0))
        self._failures += 1
        return delay_s

    def _report_loss(self, failure: CallFailed, *, unread: bool = False, was_open: bool = False) -> None:
        """``unread``: a call so young that was turned away cannot have been read before."""
        turned_away = failure.code in REFUSALS and not self._heard
        first_refusal = failure.code is ErrorCode.UNAUTHENTICATED and not self._auth_retried
        if first_refusal:
            # The token is refreshed and tried once more before anybody is told.
            self._auth_retried = True
        unsent = turned_away and unread
        silent_s = self.silent_s(asyncio.get_running_loop().time())
        lost = [self._take_back(batch, unsent or not batch.written) for batch in list(self.batches)]
        self._outbox.clear()
        self.unwritten_bytes = 0
        self.stalled = False
        self._hooks.lost(self, Loss(lost, failure, turned_away and not first_refusal, silent_s, was_open))

    def _take_back(self, batch: Batch, unsent: bool) -> LostBatch:
        request_bytes = len(self._settings.request_head) + batch.size_bytes
        tickets = self.release(batch)
        for ticket in tickets:
            ticket.attempts -= unsent
        return LostBatch(tickets, request_bytes, unsent, batch.was_read)

    def _drop(self, batch: Batch) -> None:
        if batch in self.batches:
            del self.batches[batch]
            if batch in self._outbox:
                self._outbox.remove(batch)
                self.unwritten_bytes -= batch.size_bytes
            self.outstanding_bytes -= batch.size_bytes
            self.outstanding_images -= len(batch.tickets)
            self._hooks.batch_over(self, batch)
