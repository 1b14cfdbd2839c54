"""Intake before an engine that only notes what it is given, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any, cast

import pytest
from aiolimiter import AsyncLimiter

from athena_async import wire
from athena_async.config import ClientConfig, RetryConfig
from athena_async.engine import Engine
from athena_async.errors import ClassificationError, ClientClosedError, ErrorCode
from athena_async.images.inputs import HASH_ONLY_BYTES, ImageInput, Source
from athena_async.intake import Intake
from athena_async.resilience.limits import InFlightLimit
from athena_async.results import ClassificationResult, Outcome
from athena_async.streams.demultiplexer import CorrelationIds
from athena_async.streams.sinks import GatheringSink, StreamingSink
from athena_async.streams.ticket import Ticket
from tests.unit.streams.fakes import SCORES, settle
from tests.virtual_time import VirtualTimeLoop, run_virtual


def image(number: int) -> ImageInput:
    return ImageInput(md5=f"{number:032x}")


class FakeEngine:
    """Keeps accepted tickets until the test answers them. Plays the parts of an engine that intake uses."""

    def __init__(self, max_images: int = 1000, max_bytes: int = 10**9) -> None:
        self.limit = InFlightLimit(max_images, max_bytes)
        self.ids = CorrelationIds("own")
        self.flow = self.singles = self.workers = self
        self.accepted: list[Ticket] = []
        self.chunks: list[int] = []
        self.submitted_s: list[float] = []
        self.closed = False
        self.outcome: wire.Frame | ClassificationError = wire.Frame(b"", b"", 0)
        self.asked: list[Ticket] = []
        self.hang = False

    def submit(self, tickets: Sequence[Ticket]) -> None:
        assert tickets, "nothing to take in"
        self.chunks.append(len(tickets))
        self.submitted_s.append(asyncio.get_running_loop().time())
        self.accepted.extend(tickets)
        if self.closed:
            self.answer(Outcome.FAILED)

    def answer(self, outcome: Outcome = Outcome.CLASSIFIED) -> None:
        """Answers whatever is open."""
        for ticket in [ticket for ticket in self.accepted if not ticket.settled]:
            ticket.settled = True
            ticket.sink.deliver(ClassificationResult(ticket.correlation_id, ticket.index, outcome))
            self.limit.release(1, ticket.reserved_bytes)

    def close(self) -> None:
        self.closed = True
        self.limit.close()

    def encoding_now(self) -> str:
        return "none"

    async def prepare(self, items: Sequence[tuple[Source, str, str]], encoding: str) -> list[Any]:
        return [self.outcome for _ in items]

    async def ask(self, ticket: Ticket, frame: wire.Frame) -> ClassificationResult:
        self.asked.append(ticket)
        if self.hang:
            await asyncio.Event().wait()
        return ticket.classified(SCORES, 0.0)


def play(
    scene: Callable[[Intake, FakeEngine], Awaitable[None]],
    rate: Callable[[], AsyncLimiter] | None = None,
    **limits: int,
) -> None:
    async def main() -> None:
        engine = FakeEngine(**limits)
        config = ClientConfig(affiliate="ours", timeout_s=60.0, retry=RetryConfig())
        await scene(Intake(config, cast(Engine, engine), rate() if rate else None), engine)

    run_virtual(main())


async def consume(sink: StreamingSink) -> list[ClassificationResult]:
    results = []
    while (result := await sink.next()) is not None:
        results.append(result)
    return results


def test_a_ticket_has_what_the_image_says_or_else_what_the_client_says() -> None:
    async def scene(intake: Intake, engine: FakeEngine) -> None:
        await asyncio.sleep(5.0)
        mine = ImageInput(md5="0" * 32, correlation_id="mine", affiliate="theirs")
        await intake.feed([image(0), mine], GatheringSink())
        first, second = engine.accepted
        assert (first.index, second.index) == (0, 1)
        assert (first.affiliate, second.affiliate) == ("ours", "theirs")
        assert first.correlation_id.startswith("own-")
        assert second.correlation_id == "mine"
        assert (first.accepted_s, first.deadline_s) == (5.0, 65.0)
        assert engine.limit.size_bytes == 2 * HASH_ONLY_BYTES

    play(scene)


def test_gives_one_result_each_in_order_with_rejects_among_them() -> None:
    async def scene(intake: Intake, engine: FakeEngine) -> None:
        sink = GatheringSink()
        await intake.feed([image(0), object(), image(1), ImageInput(correlation_id="x" * 65, md5="0" * 32)], sink)
        engine.answer()
        results = await sink.wait()
        assert [result.index for result in results] == [0, 1, 2, 3]
        assert [result.ok for result in results] == [True, False, True, False]
        assert [result.error and result.error.code for result in results[1::2]] == [
            ErrorCode.INVALID_INPUT,
            ErrorCode.CORRELATION_ID_INVALID,
        ]
        assert engine.limit.images == 0, "a reject holds no place"

    play(scene)


def test_takes_chunks_and_lets_the_loop_turn_between_them() -> None:
    async def scene(intake: Intake, engine: FakeEngine) -> None:
        turns = 0

        async def beside() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(beside())
        await intake.feed((image(number) for number in range(300)), GatheringSink())
        task.cancel()
        assert engine.chunks == [128, 128, 44]
        assert turns >= 3

    play(scene)


def test_what_a_slow_source_takes_is_no_part_of_an_images_time() -> None:
    async def scene(intake: Intake, engine: FakeEngine) -> None:
        loop = cast(VirtualTimeLoop, asyncio.get_running_loop())

        def slow() -> Iterator[ImageInput]:
            for number in range(3):
                loop.jump(2.0)
                yield image(number)

        await intake.feed(slow(), GatheringSink())
        assert [ticket.accepted_s for ticket in engine.accepted] == [2.0, 4.0, 6.0]
        assert [ticket.deadline_s for ticket in engine.accepted] == [62.0, 64.0, 66.0]

    play(scene)


def test_waits_for_the_limit_and_hands_over_what_it_has_first() -> None:
    async def scene(intake: Intake, engine: FakeEngine) -> None:
        sink = GatheringSink()
        feeding = asyncio.create_task(intake.feed([image(number) for number in range(5)], sink))
        await settle()
        assert engine.chunks == [2]
        while not feeding.done():
            engine.answer()
            await settle()
        engine.answer()
        assert [result.index for result in await sink.wait()] == [0, 1, 2, 3, 4]
        assert engine.limit.images == 0

    play(scene, max_images=2)


def test_the_rate_holds_and_nobody_waits_for_those_behind() -> None:
    async def scene(intake: Intake, engine: FakeEngine) -> None:
        feeding = asyncio.create_task(intake.feed([image(number) for number in range(30)], GatheringSink()))
        await asyncio.sleep(1.05)
        assert len(engine.accepted) == 9, "one at once, and eight a second after it"
        await feeding
        gaps = [later - earlier for earlier, later in zip(engine.submitted_s, engine.submitted_s[1:], strict=False)]
        assert min(gaps) == 0.125
        assert all(t.accepted_s == s for t, s in zip(engine.accepted, engine.submitted_s, strict=True))

    play(scene, rate=lambda: AsyncLimiter(1.0, 0.125))  # binary fractions: virtual time forgives no rounding


def test_a_high_rate_still_hands_over_chunks() -> None:
    async def scene(intake: Intake, engine: FakeEngine) -> None:
        await intake.feed([image(number) for number in range(256)], GatheringSink())
        assert engine.chunks == [128, 128]

    play(scene, rate=lambda: AsyncLimiter(1000.0, 1.0))


@pytest.mark.parametrize("one", [b"bytes", bytearray(b"x"), memoryview(b"x"), "path.jpg", 5, None])
def test_refuses_what_is_iterable_by_accident(one: object) -> None:
    async def scene(intake: Intake, engine: FakeEngine) -> None:
        with pytest.raises(TypeError, match="iterable of images"):
            await intake.feed(cast(Any, one), GatheringSink())
        sink = StreamingSink(10)
        await intake.feed_stream(cast(Any, one), sink)
        with pytest.raises(TypeError, match="iterable of images"):
            await sink.next()

    play(scene)


def _breaks_after(count: int) -> Iterator[ImageInput]:
    for number in range(count):
        yield image(number)
    raise OSError("the disk is gone")


async def _breaks_async(count: int) -> AsyncIterator[ImageInput]:
    for one in _breaks_after(count):
        yield one


@pytest.mark.parametrize("count", [0, 1, 99, 128, 200])
@pytest.mark.parametrize("source", [_breaks_after, _breaks_async])
def test_a_source_that_fails_is_told_after_the_results_of_all_that_it_gave(
    source: Callable[[int], Any], count: int
) -> None:
    async def scene(intake: Intake, engine: FakeEngine) -> None:
        sink = StreamingSink(1000)
        await intake.feed_stream(source(count), sink)
        engine.answer()
        for _ in range(count):
            assert await sink.next() is not None
        with pytest.raises(OSError, match="the disk is gone"):
            await sink.next()

    play(scene)


def test_the_stream_takes_no_more_than_its_window() -> None:
    async def scene(intake: Intake, engine: FakeEngine) -> None:
        pulled = 0

        def endless() -> Iterator[ImageInput]:
            nonlocal pulled
            while True:
                pulled += 1
                yield image(pulled)

        sink = StreamingSink(10)
        feeding = asyncio.create_task(intake.feed_stream(endless(), sink))
        await settle()
        assert pulled == 10
        engine.answer()
        await settle()
        assert pulled == 10, "answered, but not consumed"
        for taken in range(1, 4):
            await sink.next()
            await settle()
            assert pulled == 10 + taken
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)

    play(scene)


def test_closing_while_a_stream_waits_for_room_in_the_limit_ends_it() -> None:
    """The image that was not let in has no result: whoever waits for the stream's end must not wait for it."""

    async def scene(intake: Intake, engine: FakeEngine) -> None:
        sink = StreamingSink(100)
        feeding = asyncio.create_task(intake.feed_stream([image(number) for number in range(5)], sink))
        consuming = asyncio.create_task(consume(sink))
        await settle()
        engine.close()
        await feeding
        engine.answer()
        with pytest.raises(ClientClosedError):
            await asyncio.wait_for(consuming, 1.0)

    play(scene, max_images=2)


def test_closing_while_many_wait_for_room_raises_for_the_feeder() -> None:
    async def scene(intake: Intake, engine: FakeEngine) -> None:
        feeding = asyncio.create_task(intake.feed([image(number) for number in range(5)], GatheringSink()))
        await settle()
        engine.close()
        with pytest.raises(ClientClosedError):
            await feeding
        assert engine.limit.images == 2, "those that were let in hold their places until they are settled"

    play(scene, max_images=2)


def test_cancelling_while_waiting_holds_no_place_for_those_that_were_not_let_in() -> None:
    async def scene(intake: Intake, engine: FakeEngine) -> None:
        feeding = asyncio.create_task(intake.feed([image(number) for number in range(5)], GatheringSink()))
        await settle()
        feeding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await feeding
        engine.answer()
        assert (engine.limit.images, engine.limit.size_bytes) == (0, 0)

    play(scene, max_images=2)


def test_cancelling_while_the_rate_holds_back_gives_every_let_in_image_to_the_engine() -> None:
    async def scene(intake: Intake, engine: FakeEngine) -> None:
        sink = StreamingSink(100)
        feeding = asyncio.create_task(intake.feed_stream([image(number) for number in range(50)], sink))
        await asyncio.sleep(2.1)
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
        assert engine.limit.images == len(engine.accepted) == 24
        engine.answer()
        with pytest.raises(ClientClosedError):
            await asyncio.wait_for(consume(sink), 1.0)

    play(scene, rate=lambda: AsyncLimiter(8.0, 1.0))


def test_single_holds_a_place_only_while_it_is_asked() -> None:
    async def scene(intake: Intake, engine: FakeEngine) -> None:
        assert (await intake.single(image(1))).ok
        assert engine.limit.images == 0
        engine.hang = True
        asking = asyncio.create_task(intake.single(image(2)))
        await settle()
        assert engine.limit.images == 1
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert (engine.limit.images, engine.limit.size_bytes) == (0, 0)

    play(scene)


def test_single_tells_what_is_wrong_with_the_image_without_a_call() -> None:
    async def scene(intake: Intake, engine: FakeEngine) -> None:
        engine.outcome = ClassificationError(ErrorCode.INVALID_IMAGE, "truncated")
        for result in (await intake.single(object()), await intake.single(image(1))):
            assert result.outcome is Outcome.FAILED
        assert engine.asked == []
        assert engine.limit.images == 0

    play(scene)
