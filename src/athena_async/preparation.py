"""Accepted images on their way through the preprocessing threads."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Sequence

import anyio

from athena_async.config import RAW_FRAME_BYTES
from athena_async.errors import ClassificationError, ErrorCode
from athena_async.events import Event, ImagesPrepared
from athena_async.flow import Failed
from athena_async.images.workers import MAX_CHUNK, PreprocessWorkers
from athena_async.streams.ticket import Ticket
from athena_async.wire import Frame


class Preparation:
    """A queue and as many tasks as there are threads, each with one chunk in hand.

    Invariants: first come, first served; an image leaves once, prepared or failed; images that were settled
    meanwhile are dropped. The queue is bounded by the client's limits.
    """

    def __init__(
        self,
        workers: PreprocessWorkers,
        encoding: Callable[[], str],
        observe_frame: Callable[[int, int, float], None],
        may_run: Callable[[], bool],
        done: Callable[[list[Ticket], Failed], None],
        emit: Callable[[Event], None],
    ) -> None:
        self._workers = workers
        self._encoding = encoding
        self._observe_frame = observe_frame
        self._may_run = may_run
        self._done = done
        self._emit = emit
        self._queue: deque[Ticket] = deque()
        self._in_hand = 0
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        """Images that are queued or with a thread."""
        return len(self._queue) + self._in_hand

    def __repr__(self) -> str:
        return f"Preparation({len(self._queue)} queued, {self._workers.threads} threads)"

    def submit(self, ticket: Ticket) -> None:
        """Queues an image."""
        self._queue.append(ticket)
        self._changed.set()

    def wake(self) -> None:
        """What was prepared has left: look again whether more may be."""
        if self._queue:
            self._changed.set()

    def remove(self, gone: Callable[[Ticket], bool]) -> list[Ticket]:
        """Takes out the queued images for which ``gone`` holds, and returns them."""
        removed = [ticket for ticket in self._queue if gone(ticket)]
        if removed:
            self._queue = deque(ticket for ticket in self._queue if not gone(ticket))
        return removed

    async def run(self) -> None:
        """Works until cancelled. A thread at work is waited for; it cannot be interrupted."""
        async with anyio.create_task_group() as tasks:
            for _ in range(self._workers.threads):
                tasks.start_soon(self._work)

    async def _work(self) -> None:
        while True:
            while not (self._queue and self._may_run()):
                self._changed.clear()
                await self._changed.wait()
            tickets = self._take()
            if tickets:
                await self._prepare(tickets)

    def _take(self) -> list[Ticket]:
        ahead = [ticket.source for ticket in itertools.islice(self._queue, MAX_CHUNK)]
        count = self._workers.chunk_length(ahead, self._encoding())
        taken = [self._queue.popleft() for _ in range(min(count, len(self._queue)))]
        return [ticket for ticket in taken if not ticket.settled]

    async def _prepare(self, tickets: list[Ticket]) -> None:
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        items = [(ticket.source, ticket.affiliate, ticket.correlation_id) for ticket in tickets]
        self._in_hand += len(tickets)
        try:
            frames = await self._workers.prepare(items, self._encoding())
        finally:
            self._in_hand -= len(tickets)
        self._report(frames, started_s, loop.time())
        prepared: list[Ticket] = []
        failed: list[tuple[Ticket, ClassificationError]] = []
        for ticket, frame in zip(tickets, frames, strict=True):
            if ticket.settled:
                continue
            if ticket.sink.abandoned:
                failed.append((ticket, ClassificationError(ErrorCode.CLOSED, "the caller was cancelled")))
            elif isinstance(frame, Frame):
                ticket.prepared(frame)
                prepared.append(ticket)
            else:
                failed.append((ticket, frame))
        self._done(prepared, failed)

    def _report(self, frames: Sequence[Frame | ClassificationError], started_s: float, now: float) -> None:
        good = [frame for frame in frames if isinstance(frame, Frame)]
        for frame in good:
            self._observe_frame(RAW_FRAME_BYTES, len(frame.data), (now - started_s) / len(frames))
        self._emit(
            ImagesPrepared(
                now,
                len(good),
                len(frames) - len(good),
                sum(frame.original_bytes for frame in good),
                sum(frame.size_bytes for frame in good),
                now - started_s,
            )
        )
