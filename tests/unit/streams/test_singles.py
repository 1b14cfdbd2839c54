"""Images asked for one at a time, in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from athena_async._proto.athena import models_pb2
from athena_async.channels.channel import CallFailed, Metadata
from athena_async.channels.health import HealthBoard
from athena_async.channels.unary import UnaryCalls
from athena_async.config import BreakerConfig, RetryConfig
from athena_async.errors import ErrorCode
from athena_async.resilience.limits import ImageLimit, InFlightLimit
from athena_async.resilience.retry import RetryBudget
from athena_async.results import ClassificationResult, Outcome
from athena_async.streams.demultiplexer import Demultiplexer
from athena_async.streams.settlement import Settlement
from athena_async.streams.singles import SingleCalls, SuspectHearing
from athena_async.streams.ticket import Ticket
from athena_async.wire import ServiceError
from tests.unit.streams.fakes import ENDPOINT, FakeAccess, FakeTransport, ListSink, settle, ticket
from tests.virtual_time import run_virtual

DOWN = CallFailed(ErrorCode.UNAVAILABLE, "connection reset")
POISON = ServiceError(ErrorCode.UNSPECIFIED, "the whole request failed", "")


def scored() -> bytes:
    message = models_pb2.ClassificationOutput()
    message.classifications.add(label="UnknownCSAM-Ducks", weight=0.5)
    return message.SerializeToString()


def error(code: int, message: str = "no") -> bytes:
    output = models_pb2.ClassificationOutput()
    output.error.code, output.error.message = code, message  # type: ignore[assignment]
    return output.SerializeToString()


MODEL_ERROR = error(models_pb2.ERROR_CODE_MODEL_ERROR)
NOT_PERMITTED = error(models_pb2.ERROR_CODE_AFFILIATE_NOT_PERMITTED, "Affiliate ID 'bad' is not permitted")


class SlowTransport(FakeTransport):
    """Takes a second for each call, and classifies unless told otherwise. Notes how many it had at once."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way = self.most_under_way = 0

    async def classify_single(self, data: bytes, *, timeout_s: float, metadata: Metadata) -> bytes:
        self.unary_requests.append(data)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await asyncio.sleep(1.0)
        finally:
            self.under_way -= 1
        answer = self.unary_answers.popleft() if self.unary_answers else scored()
        assert isinstance(answer, bytes)
        return answer


class Bench:
    def __init__(
        self,
        *answers: bytes | CallFailed,
        budget: int = 100,
        ratio: float = 0.0,
        transport: FakeTransport | None = None,
        **retry: Any,
    ) -> None:
        self.transport = transport or FakeTransport()
        self.transport.unary_answers.extend(answers)
        self.clock = asyncio.get_running_loop().time
        self.sink = ListSink()
        self.resent_count = 0
        self.budget = RetryBudget(budget, ratio)
        self.limit = InFlightLimit(1000, 10**6)
        health = HealthBoard((ENDPOINT,), BreakerConfig(), random.Random(1))
        unary = UnaryCalls(FakeAccess(self.transport).access())
        config = RetryConfig(**{"base_s": 0.1, "cap_s": 1.0, **retry})
        self.singles = SingleCalls(config, unary, health, self.budget, ImageLimit(), self._resent, random.Random(1))
        table = Demultiplexer("own-")
        self.settlement = Settlement(table, self.limit, lambda _event: None, self.clock, lambda: None)
        self.hearing = SuspectHearing(self.singles, self.settlement, self.budget)

    @property
    def asked(self) -> list[str]:
        return [
            models_pb2.ClassificationInput.FromString(data).correlation_id for data in self.transport.unary_requests
        ]

    def ticket(self, name: str = "a", *, attempts: int = 0, **kwargs: Any) -> Ticket:
        one = ticket(name, sink=self.sink, accepted_s=self.clock(), **kwargs)
        one.attempts = attempts
        assert self.limit.try_acquire(one.reserved_bytes)
        return one

    async def ask(self, one: Ticket | None = None) -> ClassificationResult:
        one = one or self.ticket()
        assert one.frame is not None
        return await self.singles.ask(one, one.frame)

    def _resent(self, count: int) -> None:
        self.resent_count += count


def play(scene: Callable[[], Awaitable[None]]) -> None:
    run_virtual(scene())  # type: ignore[arg-type]


def test_asks_once_and_returns_the_scores() -> None:
    async def scene() -> None:
        bench = Bench(scored())
        result = await bench.ask()
        assert (result.outcome, result.attempts) == (Outcome.CLASSIFIED, 1)
        assert bench.resent_count == 0

    play(scene)


def test_model_errors_and_lost_calls_are_retried_within_attempts() -> None:
    async def scene() -> None:
        bench = Bench(MODEL_ERROR, DOWN, scored())
        assert (await bench.ask()).attempts == 3
        assert bench.resent_count == 2
        assert bench.clock() >= 0.1, "after a delay"
        bench = Bench(*[MODEL_ERROR] * 3, scored())
        result = await bench.ask()
        assert result.error is not None
        assert (result.outcome, result.error.code) == (Outcome.FAILED, ErrorCode.MODEL_ERROR)
        assert len(bench.asked) == 3

    play(scene)


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (ErrorCode.UNAVAILABLE, Outcome.UNKNOWN),
        (ErrorCode.DEADLINE_EXCEEDED, Outcome.UNKNOWN),
        (ErrorCode.INTERNAL, Outcome.UNKNOWN),
        (ErrorCode.PERMISSION_DENIED, Outcome.FAILED),
        (ErrorCode.INVALID_ARGUMENT, Outcome.FAILED),
        (ErrorCode.RESOURCE_EXHAUSTED, Outcome.FAILED),
    ],
)
def test_a_lost_call_is_unknown_and_a_refused_one_failed(code: ErrorCode, outcome: Outcome) -> None:
    async def scene() -> None:
        result = await Bench(CallFailed(code, "words"), max_attempts=1).ask()
        assert result.error is not None
        assert (result.outcome, result.error.code, result.error.message) == (outcome, code, "words")

    play(scene)


def test_a_refusal_after_a_lost_call_is_unknown_still() -> None:
    async def scene() -> None:
        bench = Bench(DOWN, CallFailed(ErrorCode.PERMISSION_DENIED, "no"))
        assert (await bench.ask()).outcome is Outcome.UNKNOWN
        suspect = Bench(CallFailed(ErrorCode.PERMISSION_DENIED, "no"))
        assert (await suspect.ask(suspect.ticket(attempts=1))).outcome is Outcome.UNKNOWN, "sent on a stream before"

    play(scene)


def test_without_budget_or_by_the_servers_wish_nothing_is_asked_again() -> None:
    async def scene() -> None:
        bench = Bench(DOWN, scored(), budget=0)
        assert (await bench.ask()).outcome is Outcome.UNKNOWN
        wish = Bench(CallFailed(ErrorCode.UNAVAILABLE, "do not come back", -1.0), scored())
        await wish.ask()
        assert (len(bench.asked), len(wish.asked)) == (1, 1)

    play(scene)


def test_an_image_over_its_deadline_is_not_asked_for() -> None:
    async def scene() -> None:
        bench = Bench(scored())
        never = bench.ticket("never", deadline_s=1.0)
        sent = bench.ticket("sent", deadline_s=1.0, attempts=1)
        await asyncio.sleep(1.0)
        for one, outcome in ((never, Outcome.FAILED), (sent, Outcome.UNKNOWN)):
            result = await bench.ask(one)
            assert result.error is not None
            assert (result.outcome, result.error.code) == (outcome, ErrorCode.DEADLINE_EXCEEDED)
        assert bench.asked == []

    play(scene)


def test_single_calls_earn_the_resends_that_they_spend() -> None:
    async def scene() -> None:
        bench = Bench(DOWN, DOWN, scored(), scored(), DOWN, scored(), budget=1, ratio=0.5)
        assert (await bench.ask()).outcome is Outcome.UNKNOWN, "sent twice, which spends the budget"
        assert bench.budget.available == 0
        assert [(await bench.ask()).attempts for _ in range(2)] == [1, 1]
        assert bench.budget.available == 1, "by two images, and not by what was sent again"
        assert (await bench.ask()).attempts == 2

    play(scene)


def test_a_send_that_the_budget_granted_and_that_is_not_made_is_given_back() -> None:
    async def scene() -> None:
        bench = Bench(scored(), DOWN)
        late = bench.ticket("late", attempts=1, deadline_s=1.0)
        await asyncio.sleep(1.0)
        await bench.hearing.hear([late], POISON)
        assert bench.asked == []
        assert [result.outcome for result in bench.sink.results] == [Outcome.UNKNOWN]
        assert bench.budget.snapshot().granted == 0

    play(scene)


def test_an_image_that_is_refused_as_too_large_is_asked_for_once() -> None:
    async def scene() -> None:
        refused = CallFailed(ErrorCode.RESOURCE_EXHAUSTED, "Received message larger than max (100 vs. 50)")
        bench = Bench(refused)
        result = await bench.ask()
        assert (result.outcome, result.attempts) == (Outcome.FAILED, 1)
        assert result.error is not None
        assert result.error.code is ErrorCode.IMAGE_TOO_LARGE
        assert f"{bench.ticket().frame_bytes} bytes" in result.error.message
        again = await bench.ask()
        assert (again.outcome, again.attempts, len(bench.asked)) == (Outcome.FAILED, 0, 1), "its like is not sent"

    play(scene)


def test_every_suspect_is_heard_alone_and_only_the_guilty_fails() -> None:
    async def scene() -> None:
        bench = Bench(scored(), error(models_pb2.ERROR_CODE_IMAGE_TOO_LARGE), scored())
        suspects = [bench.ticket(name, attempts=1) for name in "abc"]
        await bench.hearing.hear(suspects, POISON)
        outcomes = {name: result.outcome for name, result in bench.sink.by_id().items()}
        assert outcomes == {"a": Outcome.CLASSIFIED, "b": Outcome.FAILED, "c": Outcome.CLASSIFIED}
        assert bench.asked == ["a", "b", "c"]
        assert bench.resent_count == 3
        assert (bench.limit.images, bench.budget.snapshot().granted) == (0, 3)

    play(scene)


def test_a_suspect_that_was_settled_meanwhile_is_not_asked_for() -> None:
    async def scene() -> None:
        bench = Bench(DOWN, scored())
        a, b = bench.ticket("a", attempts=1), bench.ticket("b", attempts=1)
        b.settle()
        hearing = asyncio.create_task(bench.hearing.hear([a, b], POISON))
        await settle()
        assert bench.asked == ["a"]
        bench.settlement.settle([(a, a.classified((), 0.0))])
        await hearing
        assert bench.asked == ["a"], "its answer came on a stream while it waited to be asked for again"
        assert [result.outcome for result in bench.sink.results] == [Outcome.CLASSIFIED]

    play(scene)


def test_without_budget_a_suspect_is_unknown() -> None:
    async def scene() -> None:
        bench = Bench(scored(), budget=1)
        await bench.hearing.hear([bench.ticket("a", attempts=1), bench.ticket("b", attempts=1)], POISON)
        assert [result.outcome for result in bench.sink.results] == [Outcome.CLASSIFIED, Outcome.UNKNOWN]
        assert bench.asked == ["a"]

    play(scene)


def test_an_affiliate_that_is_not_permitted_is_remembered_for_a_minute() -> None:
    async def scene() -> None:
        bench = Bench(NOT_PERMITTED, scored(), scored())
        suspects = [bench.ticket(name, affiliate=who) for name, who in (("a", "bad"), ("b", "bad"), ("c", "good"))]
        await bench.hearing.hear(suspects, POISON)
        found = bench.sink.by_id()
        assert [found[name].ok for name in "abc"] == [False, False, True]
        assert found["b"].error is not None
        assert "'bad' is not permitted" in found["b"].error.message
        assert bench.asked == ["a", "c"], "the others of the affiliate are not sent at all"
        await asyncio.sleep(59.0)
        assert bench.hearing.is_barred("bad")
        assert not bench.hearing.is_barred("good")
        await asyncio.sleep(2.0)
        assert not bench.hearing.is_barred("bad")

    play(scene)


def test_hundreds_of_suspects_are_heard_before_their_deadline_in_their_order() -> None:
    async def scene() -> None:
        transport = SlowTransport()
        bench = Bench(transport=transport, budget=300)
        suspects = [bench.ticket(f"{n}", attempts=1, deadline_s=30.0) for n in range(200)]
        # Two global errors: those of the second join the line, and no further calls are made for them.
        await asyncio.gather(bench.hearing.hear(suspects[:150], POISON), bench.hearing.hear(suspects[150:], POISON))
        assert [result.outcome for result in bench.sink.results] == [Outcome.CLASSIFIED] * 200
        assert bench.clock() == 25.0
        assert transport.most_under_way == 8
        for asked in ([n for n in bench.asked if int(n) < 150], [n for n in bench.asked if int(n) >= 150]):
            assert asked == sorted(asked, key=int)
        assert bench.asked[:8] == [f"{n}" for n in range(8)]

    play(scene)


def test_an_affiliate_barred_while_several_are_heard_spares_those_in_line() -> None:
    async def scene() -> None:
        bench = Bench(*[NOT_PERMITTED] * 8, transport=SlowTransport())
        suspects = [bench.ticket(f"{n}", affiliate="bad", attempts=1) for n in range(20)]
        await bench.hearing.hear(suspects, POISON)
        assert len(bench.asked) == 8, "these were under way when the first answer came"
        assert {result.error and result.error.code for result in bench.sink.results} == {
            ErrorCode.AFFILIATE_NOT_PERMITTED
        }
        assert len(bench.sink.by_id()) == 20
        assert bench.budget.snapshot().granted == 8

    play(scene)


def test_cancelling_a_hearing_leaves_the_rest_open() -> None:
    async def scene() -> None:
        transport = SlowTransport()
        bench = Bench(transport=transport)
        suspects = [bench.ticket(f"{n}", attempts=1) for n in range(20)]
        hearing = asyncio.create_task(bench.hearing.hear(suspects, POISON))
        await asyncio.sleep(1.5)
        hearing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hearing
        assert (len(bench.sink.results), len(bench.asked), transport.under_way) == (8, 16, 0)
        assert bench.limit.images == 12

    play(scene)
