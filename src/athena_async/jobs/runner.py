"""One run over many files: walk, skip what is settled, classify, keep each result, report."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeVar

import anyio
import anyio.to_thread
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from athena_async.errors import ClientClosedError, ErrorCode
from athena_async.images.inputs import ImageInput
from athena_async.jobs.records import Record
from athena_async.jobs.report import Report
from athena_async.jobs.sinks import Sink
from athena_async.jobs.sources import FileEntry, FileSource
from athena_async.results import ClassificationResult, Outcome

_UNWRITTEN_RECORDS = 1024
_WRITE_LINGER_S = 0.25

T = TypeVar("T")


class StreamingClient(Protocol):
    """What a run needs of `athena_async.AthenaClient`."""

    def stream(self, images: AsyncIterable[ImageInput]) -> AsyncGenerator[ClassificationResult, None]: ...

    async def aclose(self, drain_timeout_s: float) -> object: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLimits:
    """When a run ends before its files do.

    Attributes:
        refusals: stop after so many answers in a row that only tell of the service or the access to it;
            0 never stops.
        drain_timeout_s: a stopped run waits for the images in flight for so long.
    """

    refusals: int = 100
    drain_timeout_s: float = 30.0


class Stop:
    """Asks a run to end: no further file is taken up, images in flight are awaited. The first reason counts."""

    def __init__(self) -> None:
        self._event = anyio.Event()
        self.reason: str | None = None

    def __repr__(self) -> str:
        return f"Stop(reason={self.reason!r})"

    def set(self, reason: str) -> None:
        if self.reason is None:
            self.reason = reason
            self._event.set()

    @property
    def is_set(self) -> bool:
        return self.reason is not None

    async def wait(self) -> None:
        await self._event.wait()


@dataclass(slots=True)
class Job:
    """One run; made in a running event loop, for one call of `run`.

    Invariants: ``_open`` holds the images handed to the client and not yet settled, by their index;
    ``_taken`` their paths and those of records not yet written. Both are bounded by the client's limits
    and `_UNWRITTEN_RECORDS`, however many files there are. The sink is used by one thread at a time. ``_hurry``
    is set while the writer has no reason to linger.

    Args:
        client: open, and used by nobody else: stopping the run closes it.
        source: the files.
        sink: where records go; closed at the end of the run.
        report: brought up to date as results come.
        stop: ends the run early.
        left_out: absolute paths that are never classified, such as the output itself.
    """

    client: StreamingClient
    source: FileSource
    sink: Sink
    report: Report = field(default_factory=lambda: Report(anyio.current_time()))
    stop: Stop = field(default_factory=Stop)
    limits: RunLimits = field(default_factory=RunLimits)
    left_out: frozenset[str] = frozenset()
    _open: dict[int, FileEntry] = field(default_factory=dict, init=False)
    _taken: set[str] = field(default_factory=set, init=False)
    _taken_count: int = field(default=0, init=False)
    _hurry: anyio.Event = field(default_factory=anyio.Event, init=False)
    _ended: bool = field(default=False, init=False)
    _sink_thread: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(1), init=False)

    async def run(self) -> None:
        """Runs to the end of the files, or until stopped.

        Cancellation ends the run at once: results that are not yet written are dropped, and their
        images run again on a resume.

        Raises:
            OSError, LedgerError: the output cannot be written; images in flight are cancelled.
            AthenaError: the client refused to work at all.
        """
        completed = False
        try:
            await self._classify()
            completed = True
        except BaseExceptionGroup as group:
            raise first_error(group) from None
        finally:
            with anyio.CancelScope(shield=True):
                await self._in_sink_thread(partial(self.sink.close, complete=completed))
            self.report.left_count += len(self._open)
            self.report.ended_s = anyio.current_time()
            self.report.stopped = self.stop.reason

    async def _classify(self) -> None:
        send, receive = anyio.create_memory_object_stream[Record](_UNWRITTEN_RECORDS)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._drain_when_stopped)
            async with anyio.create_task_group() as writers:
                writers.start_soon(self._write, receive)
                async with send, aclosing(self.client.stream(self._images())) as results:
                    await self._take_results(results, send)
                self._ended = True
                self._hurry.set()
            tasks.cancel_scope.cancel()

    async def _take_results(
        self, results: AsyncIterator[ClassificationResult], send: MemoryObjectSendStream[Record]
    ) -> None:
        """Results go to the writer; images that the closing client gave back unsent are left for a resume."""
        try:
            async for result in results:
                record = Record(self._open.pop(result.index), result)
                if self.stop.is_set and _was_not_sent(result):
                    self.report.left_count += 1
                    continue
                self._tally(record)
                await send.send(record)
                if send.statistics().current_buffer_used >= _UNWRITTEN_RECORDS // 2:
                    self._hurry.set()
        except ClientClosedError:
            if not self.stop.is_set:
                raise

    def _tally(self, record: Record) -> None:
        self.report.add(record)
        if 0 < self.limits.refusals <= self.report.refused_in_a_row and record.result.error:
            self.stop.set(f"the last {self.report.refused_in_a_row} images were refused: {record.result.error.message}")

    async def _images(self) -> AsyncIterator[ImageInput]:
        async with aclosing(self.source.chunks(self.report.add_unreadable)) as chunks:
            async for chunk in chunks:
                for entry in await self._pending(chunk):
                    if self.stop.is_set:
                        return
                    yield self._take(entry)

    def _take(self, entry: FileEntry) -> ImageInput:
        self._open[self._taken_count] = entry
        self._taken_count += 1
        self._taken.add(entry.path)
        return ImageInput(path=entry.path)

    async def _pending(self, chunk: list[FileEntry]) -> list[FileEntry]:
        found = {entry.path: entry for entry in chunk if entry.path not in self.left_out}
        candidates = [entry for path, entry in found.items() if path not in self._taken]
        pending = await self._in_sink_thread(partial(self.sink.pending, candidates))
        self.report.skipped.update(pending.settled)
        return pending.entries

    async def _write(self, records: MemoryObjectReceiveStream[Record]) -> None:
        """Writes behind the results, in batches: a flush to the disk takes as long for one as for many."""
        with records:
            async for first in records:
                with anyio.move_on_after(_WRITE_LINGER_S):
                    await self._hurry.wait()
                batch = [first, *_waiting(records)]
                if not self._ended:
                    self._hurry = anyio.Event()
                await self._in_sink_thread(partial(self.sink.write, batch))
                self._taken.difference_update(record.entry.path for record in batch)

    async def _drain_when_stopped(self) -> None:
        await self.stop.wait()
        await self.client.aclose(drain_timeout_s=self.limits.drain_timeout_s)

    async def _in_sink_thread(self, work: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(work, limiter=self._sink_thread)


def _was_not_sent(result: ClassificationResult) -> bool:
    return result.outcome is Outcome.FAILED and result.error is not None and result.error.code is ErrorCode.CLOSED


def _waiting(records: MemoryObjectReceiveStream[Record]) -> list[Record]:
    """What stands in the stream now."""
    waiting: list[Record] = []
    while records.statistics().current_buffer_used:
        waiting.append(records.receive_nowait())
    return waiting


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that ended everything else, out of the groups around it."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
