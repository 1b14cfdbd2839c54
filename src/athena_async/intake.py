"""From the caller's iterable to accepted tickets: normalised, within the limits, in chunks."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Iterator
from typing import Protocol

from aiolimiter import AsyncLimiter

from athena_async.config import ClientConfig
from athena_async.engine import Engine
from athena_async.errors import ClassificationError, ClientClosedError
from athena_async.images.inputs import Source, to_source
from athena_async.results import ClassificationResult, Outcome
from athena_async.streams.sinks import GatheringSink, StreamingSink
from athena_async.streams.ticket import Sink, Ticket

Images = Iterable[object] | AsyncIterable[object]

_CHUNK = 128


class IndexedSink(Sink, Protocol):
    """A sink that numbers its images."""

    def expect(self) -> int: ...


class Intake:
    """Takes images in.

    Invariants: each image taken from an iterable is expected by its sink and gets one result; places in the
    limit are held exactly for tickets handed to the engine; the loop gets a turn after each chunk.
    """

    def __init__(self, config: ClientConfig, engine: Engine, rate: AsyncLimiter | None) -> None:
        self._config = config
        self._engine = engine
        self._rate = rate
        self._clock = asyncio.get_running_loop().time

    async def feed(self, images: Images, sink: IndexedSink) -> None:
        """Takes in everything. Returns when the last image is accepted, not when it is answered.

        Raises:
            ClientClosedError: the client was closed meanwhile.
            TypeError: ``images`` is not iterable.
        """
        if isinstance(images, AsyncIterable):
            await self._feed_async(images, sink)
            return
        source = iter(_many(images))
        more = True
        while more:
            more = await self._take_chunk(source, _CHUNK, sink)

    async def feed_stream(self, images: Images, sink: StreamingSink) -> None:
        """Takes in as much as the consumer has room for, then more. Never raises: the sink is told how it ended."""
        failure: BaseException | None = ClientClosedError("the client was closed")
        try:
            if isinstance(images, AsyncIterable):
                await self._feed_async(images, sink, sink.wait_room)
            else:
                await self._feed_sync(images, sink)
            failure = None
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            failure = error  # nobody cancelled us: the source awaited something that was
        except Exception as error:  # noqa: BLE001 - it is the consumer's, and raised there
            failure = error
        finally:
            sink.end(failure)

    async def single(self, image: object) -> ClassificationResult:
        """One image by the unary RPC, within the same limits. Cancelling cancels the call."""
        try:
            source = to_source(image)
        except ClassificationError as error:
            return _rejected(error, 0)
        engine = self._engine
        if self._rate is not None:
            await self._rate.acquire()
        await engine.flow.limit.acquire(source.estimate_bytes)
        try:
            ticket = self._ticket(source, 0, _NO_SINK)
            items = [(source, ticket.affiliate, ticket.correlation_id)]
            frame = (await engine.workers.prepare(items, engine.flow.encoding_now()))[0]
            if isinstance(frame, ClassificationError):
                return ticket.result(
                    Outcome.FAILED, self._clock(), frame.code, frame.message, retryable=frame.retryable
                )
            return await engine.flow.singles.ask(ticket, frame)
        finally:
            engine.flow.limit.release(1, source.estimate_bytes)

    async def _feed_async(
        self, images: AsyncIterable[object], sink: IndexedSink, room: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """One by one. A source that never suspends would keep the loop to itself, so each chunk gives it a turn."""
        taken_count = 0
        if room is not None:
            await room()
        async for image in images:
            await self._take((image,), sink)
            taken_count += 1
            if not taken_count % _CHUNK:
                await asyncio.sleep(0)
            if room is not None:
                await room()

    async def _feed_sync(self, images: Iterable[object], sink: StreamingSink) -> None:
        source = iter(_many(images))
        more = True
        while more:
            await sink.wait_room()
            more = await self._take_chunk(source, min(_CHUNK, sink.room), sink)

    async def _take_chunk(self, source: Iterator[object], count: int, sink: IndexedSink) -> bool:
        """False at the end of the source. What it raises is raised after what it gave before was taken in."""
        taken = await self._take(itertools.islice(source, count), sink)
        await asyncio.sleep(0)
        return taken > 0

    async def _take(self, images: Iterable[object], sink: IndexedSink) -> int:
        """Returns how many there were. Each is let in before the next is asked for: what waits here is one image."""
        accepted: list[Ticket] = []
        count = 0
        rate, limit = self._rate, self._engine.flow.limit
        try:
            for image in images:
                count += 1
                try:
                    source = to_source(image)
                except ClassificationError as error:
                    sink.deliver(_rejected(error, sink.expect()))
                    continue
                if rate is not None:
                    if not rate.has_capacity():
                        accepted = self._submit(accepted)  # those before it must not wait with it
                    await rate.acquire()
                if not limit.try_acquire(source.estimate_bytes):
                    accepted = self._submit(accepted)
                    await limit.acquire(source.estimate_bytes)
                # Expected only now: an image that is not let in has no result that the sink could wait for.
                accepted.append(self._ticket(source, sink.expect(), sink))
        finally:
            self._submit(accepted)
        return count

    def _submit(self, accepted: list[Ticket]) -> list[Ticket]:
        """Hands them over, if there are any; returns an empty list for the next."""
        if accepted:
            self._engine.submit(accepted)
        return []

    def _ticket(self, source: Source, index: int, sink: IndexedSink) -> Ticket:
        now = self._clock()  # each image's own: a source may be slow, and what it takes is no part of the latency
        return Ticket(
            source.correlation_id or self._engine.flow.ids.next(),
            index,
            source.affiliate or self._config.affiliate,
            source,
            sink,
            source.estimate_bytes,
            now,
            now + self._config.timeout_s,
        )


_NO_SINK = GatheringSink()


def _many(images: object) -> Iterable[object]:
    """Refuses what is iterable by accident: the bytes of one image, or one path."""
    if isinstance(images, bytes | bytearray | memoryview | str) or not isinstance(images, Iterable):
        raise TypeError(f"expected an iterable of images, got one {type(images).__name__}: put it in a list")
    return images


def _rejected(error: ClassificationError, index: int) -> ClassificationResult:
    """The result of something that is no image."""
    return ClassificationResult(error.correlation_id or "", index, Outcome.FAILED, (), error)
