"""The arbiter's decisions, in virtual time, with everything around it noted."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, cast

import pytest

from athena_async.channels.channel import CallFailed
from athena_async.config import RetryConfig
from athena_async.errors import ErrorCode
from athena_async.events import Event, GlobalErrorReceived, ImagesRecovered
from athena_async.resilience.limits import InFlightLimit
from athena_async.resilience.retry import RULES, RetryBudget, Rule
from athena_async.results import ClassificationResult, Outcome
from athena_async.streams.arbiter import Arbiter, ArbiterHooks
from athena_async.streams.demultiplexer import Demultiplexer
from athena_async.streams.loss import Loss, LostBatch
from athena_async.streams.session import Session
from athena_async.streams.settlement import Settlement
from athena_async.streams.ticket import Batch, Ticket
from athena_async.wire import Answer
from tests.unit.streams.fakes import ENDPOINT, FakeCarrier, ListSink, bad, batch_of, good, response, ticket
from tests.virtual_time import run_virtual

LOST = CallFailed(ErrorCode.UNAVAILABLE, "connection reset")
UNSIZED = CallFailed(ErrorCode.RESOURCE_EXHAUSTED, "Received message exceeds the maximum configured message size.")
TOO_LARGE = CallFailed(ErrorCode.RESOURCE_EXHAUSTED, "Received message larger than max (900 vs. 500)")


class Bench:
    """An arbiter, and the flow around it in few lines."""

    def __init__(self, budget: int = 100, **retry: Any) -> None:
        self.sink = ListSink()
        self.again: list[str] = []
        self.alone: list[str] = []
        self.held: list[bool] = []
        self.refused: list[tuple[str, int, int | None]] = []
        self.timed_out: list[Batch] = []
        self.late_count = 0
        self.foreign: list[str] = []
        self.events: list[Event] = []
        self.carrier = FakeCarrier()
        self.batches: list[Batch] = []
        self.clock = asyncio.get_running_loop().time
        self.session = cast(Session, self.carrier)
        self.limit = InFlightLimit(1000, 10**9)
        self.demultiplexer = Demultiplexer("own-")
        self.budget = RetryBudget(budget, 0.0)
        self.settlement = Settlement(self.demultiplexer, self.limit, self.events.append, self.clock, lambda: None)
        self.arbiter = Arbiter(
            RetryConfig(**{"grace_min_s": 1.0, "grace_max_s": 10.0, "base_s": 0.1, "cap_s": 1.0, **retry}),
            self.demultiplexer,
            self.settlement,
            self.budget,
            ArbiterHooks(
                send_again=lambda images: self.again.extend(t.correlation_id for t in images),
                hold=self.held.append,
                settle_alone=lambda images, _error: self.alone.extend(t.correlation_id for t in images),
                in_flight=lambda: [batch for batch in self.batches if batch.open_count],
                timed_out=self.timed_out.append,
                refused_size=lambda *args: self.refused.append(args),
                strays=self._strays,
                emit=self.events.append,
            ),
            self.clock,
            random.Random(1),
        )
        self.arbiter.recovery.reading(True, 0.0)

    def accept(self, *names: str, timeout_s: float = 120.0, size_bytes: int = 100) -> list[Ticket]:
        now = self.clock()
        images = [
            ticket(name, sink=self.sink, size_bytes=size_bytes, accepted_s=now, deadline_s=now + timeout_s)
            for name in names
        ]
        for image in images:
            assert self.limit.try_acquire(image.reserved_bytes)
            assert self.demultiplexer.register(image)
        self.arbiter.deadlines.add(images)
        return images

    def send(self, *names: str, **kwargs: Any) -> Batch:
        return self.resend(self.accept(*names, **kwargs))

    def resend(self, images: list[Ticket], *, written: bool = True) -> Batch:
        """What batcher and session do with them."""
        batch = batch_of(images, self.carrier, self.clock())
        batch.written = written
        self.batches.append(batch)
        return batch

    def receive(self, *answers: Answer, global_error: ErrorCode | None = None) -> None:
        self.arbiter.received(self.session, response(*answers, global_error=global_error))

    def lose(self, batch: Batch, failure: CallFailed = LOST, *, unsent: bool = False) -> list[Ticket]:
        """What a session does with a batch of a stream that ended."""
        images = batch.release()
        for image in images:
            image.attempts -= unsent
        lost = LostBatch(images, 40 + batch.size_bytes, unsent)
        self.arbiter.lost(self.session, Loss([lost], failure, False))
        return images

    def empty_deployment(self) -> None:
        self.arbiter.recovery.backlog(0, self.clock())

    async def pass_s(self, seconds: float, step_s: float = 0.05) -> None:
        for _ in range(round(seconds / step_s)):
            await asyncio.sleep(step_s)
            self.arbiter.tick()

    def result(self, name: str) -> ClassificationResult:
        return self.sink.by_id()[name]

    def _strays(self, late_count: int, foreign: list[Answer]) -> None:
        self.late_count += late_count
        self.foreign.extend(answer.correlation_id for answer in foreign)


def play(scene: Callable[[], Any]) -> None:
    run_virtual(scene())


# --- answers ---


def test_an_answer_settles_its_image_once_whatever_comes_after() -> None:
    async def scene() -> None:
        bench = Bench()
        batch = bench.send("own-a", "mine")
        bench.receive(good("own-a"), good("own-a"), bad("own-a", ErrorCode.MODEL_ERROR))
        assert bench.result("own-a").ok
        assert bench.late_count == 2
        bench.receive(good("mine"))
        bench.receive(good("own-a"), bad("mine", ErrorCode.IMAGE_TOO_LARGE))
        assert bench.late_count == 4
        assert [result.outcome for result in bench.sink.results] == [Outcome.CLASSIFIED] * 2
        assert bench.carrier.over == [batch]
        assert (bench.limit.images, bench.limit.size_bytes, len(bench.demultiplexer)) == (0, 0, 0)

    play(scene)


def test_answers_of_others_are_handed_on() -> None:
    async def scene() -> None:
        bench = Bench()
        bench.send("own-a")
        bench.receive(good("theirs"), good("own-a"), bad("theirs-too", ErrorCode.MODEL_ERROR))
        assert bench.foreign == ["theirs", "theirs-too"]
        assert len(bench.sink.results) == 1

    play(scene)


FINAL = [code for code, rule in RULES.items() if rule is Rule.FINAL]


@pytest.mark.parametrize("code", FINAL)
def test_final_codes_fail_at_once(code: ErrorCode) -> None:
    async def scene() -> None:
        bench = Bench()
        bench.send("a")
        bench.receive(bad("a", code, "the service's words"))
        error = bench.result("a").error
        assert error is not None
        assert (bench.result("a").outcome, error.code, error.message) == (Outcome.FAILED, code, "the service's words")
        await bench.pass_s(5.0)
        assert bench.again == []

    play(scene)


def test_a_model_error_is_retried_twice_after_a_delay_and_then_final() -> None:
    async def scene() -> None:
        bench = Bench()
        images = bench.send("a").tickets
        waits = []
        for attempt in (1, 2):
            before = bench.clock()
            bench.receive(bad("a", ErrorCode.MODEL_ERROR))
            assert bench.again == ["a"] * (attempt - 1), "not at once"
            while len(bench.again) < attempt:
                await asyncio.sleep(0.01)
            waits.append(bench.clock() - before)
            bench.resend(list(images))
        assert min(waits) >= 0.1
        bench.receive(bad("a", ErrorCode.MODEL_ERROR))
        result = bench.result("a")
        assert (result.outcome, result.attempts) == (Outcome.FAILED, 3)
        assert result.error is not None
        assert result.error.code is ErrorCode.MODEL_ERROR
        await bench.pass_s(5.0)
        assert bench.again == ["a", "a"]
        assert bench.budget.snapshot().granted == 2

    play(scene)


def test_an_unclassifiable_image_is_not_retried_whatever_its_code() -> None:
    async def scene() -> None:
        bench = Bench()
        bench.send("a")
        bench.receive(bad("a", ErrorCode.MODEL_ERROR, "Image Classification Error: not 448x448"))
        result = bench.result("a")
        assert result.error is not None
        assert not result.error.retryable

    play(scene)


@pytest.mark.parametrize("retry", [{"at_most_once": True}, {"max_attempts": 1}, {"model_error_retries": 0}])
def test_configurations_that_forbid_a_retry(retry: dict[str, Any]) -> None:
    async def scene() -> None:
        bench = Bench(**retry)
        bench.send("a")
        bench.receive(bad("a", ErrorCode.MODEL_ERROR))
        assert bench.result("a").outcome is Outcome.FAILED

    play(scene)


def test_without_budget_an_error_is_final() -> None:
    async def scene() -> None:
        bench = Bench(budget=1)
        bench.send("a", "b")
        bench.receive(bad("a", ErrorCode.MODEL_ERROR), bad("b", ErrorCode.MODEL_ERROR))
        assert list(bench.sink.by_id()) == ["b"]

    play(scene)


def test_a_retry_that_would_come_after_the_deadline_is_none() -> None:
    async def scene() -> None:
        bench = Bench(base_s=2.0, cap_s=2.0)
        bench.send("a", timeout_s=1.5)
        bench.receive(bad("a", ErrorCode.MODEL_ERROR))
        assert bench.result("a").outcome is Outcome.FAILED

    play(scene)


def test_while_an_image_waits_for_its_retry_duplicates_of_the_error_are_late_and_a_score_counts() -> None:
    async def scene() -> None:
        bench = Bench()
        bench.send("own-a")
        for _ in range(3):
            bench.receive(bad("own-a", ErrorCode.MODEL_ERROR))
        assert bench.late_count == 2
        assert bench.budget.snapshot().granted == 1
        bench.receive(good("own-a"))
        assert bench.result("own-a").ok
        await bench.pass_s(5.0)
        assert bench.again == []
        assert bench.budget.snapshot().granted == 0, "what was not sent after all is given back"

    play(scene)


# --- losses ---


def test_possibly_sent_images_wait_for_the_deployment_and_are_sent_once_it_is_empty() -> None:
    async def scene() -> None:
        bench = Bench()
        bench.lose(bench.send("a", "b"))
        await bench.pass_s(5.0)
        assert bench.again == []
        bench.receive(good("a"))
        assert bench.result("a").ok
        bench.empty_deployment()
        await bench.pass_s(0.9)
        assert bench.again == []
        await bench.pass_s(0.2)
        assert bench.again == ["b"]
        recovered = [e for e in bench.events if isinstance(e, ImagesRecovered)]
        assert [(e.answered, e.resent) for e in recovered] == [(1, 0), (0, 1)]

    play(scene)


def test_unsent_images_go_again_at_once_and_cost_no_attempt_and_no_budget() -> None:
    async def scene() -> None:
        bench = Bench(budget=0, max_attempts=1)
        (image,) = bench.lose(bench.send("a"), unsent=True)
        assert bench.again == ["a"]
        assert image.attempts == 0
        assert len(bench.arbiter.recovery) == 0

    play(scene)


def test_at_most_once_ends_unknown_after_a_loss() -> None:
    async def scene() -> None:
        bench = Bench(at_most_once=True)
        bench.lose(bench.send("a"))
        bench.empty_deployment()
        await bench.pass_s(2.0)
        result = bench.result("a")
        assert result.outcome is Outcome.UNKNOWN
        assert result.error is not None
        assert "connection reset" in result.error.message
        assert bench.again == []

    play(scene)


def test_the_last_attempt_lost_ends_unknown() -> None:
    async def scene() -> None:
        bench = Bench(max_attempts=2)
        images = bench.lose(bench.send("a"))
        bench.empty_deployment()
        await bench.pass_s(1.5)
        assert bench.again == ["a"]
        bench.lose(bench.resend(images))
        bench.empty_deployment()
        await bench.pass_s(1.5)
        assert (bench.result("a").outcome, bench.result("a").attempts) == (Outcome.UNKNOWN, 2)
        assert bench.again == ["a"]

    play(scene)


def test_what_the_budget_does_not_grant_stays_an_orphan() -> None:
    async def scene() -> None:
        bench = Bench(budget=2)
        bench.lose(bench.send("a", "b", "c"))
        bench.empty_deployment()
        await bench.pass_s(1.5)
        assert bench.again == ["a", "b"]
        assert len(bench.arbiter.recovery) == 1
        bench.receive(good("c"))
        assert bench.result("c").ok

    play(scene)


def test_after_a_stall_nothing_is_resent_or_given_up_before_answers_were_read() -> None:
    async def scene() -> None:
        bench = Bench()
        bench.lose(bench.send("a", timeout_s=20.0))
        bench.empty_deployment()
        cast(Any, asyncio.get_running_loop()).jump(30.0)
        bench.arbiter.tick(late_s=30.0)
        assert (bench.again, bench.sink.results) == ([], [])
        bench.receive(good("a"))
        bench.arbiter.tick()
        assert bench.result("a").ok

    play(scene)


def test_images_left_out_of_an_answer_are_orphans() -> None:
    async def scene() -> None:
        bench = Bench()
        batch = bench.send("a", "b")
        bench.receive(good("a"))
        bench.arbiter.overdue([batch])
        assert len(bench.arbiter.recovery) == 1
        bench.empty_deployment()
        await bench.pass_s(1.5)
        assert bench.again == ["b"]

    play(scene)


# --- sizes ---


def test_a_request_refused_as_too_large_is_split_without_an_attempt() -> None:
    async def scene() -> None:
        bench = Bench(budget=0)
        images = bench.lose(bench.send("a", "b", size_bytes=430), TOO_LARGE)
        assert bench.again == ["a", "b"]
        assert [image.attempts for image in images] == [0, 0]
        assert bench.refused == [(ENDPOINT, 900, 500)]

    play(scene)


def test_an_image_that_was_refused_by_itself_goes_back_to_where_it_is_known_to_be_too_large() -> None:
    async def scene() -> None:
        bench = Bench(budget=0)
        (image,) = bench.lose(bench.send("a", size_bytes=860), TOO_LARGE)
        assert bench.refused == [(ENDPOINT, 900, 500)]
        assert (bench.again, image.attempts) == (["a"], 0)

    play(scene)


def test_a_small_request_on_the_same_stream_was_possibly_read() -> None:
    async def scene() -> None:
        bench = Bench()
        bench.lose(bench.send("a", size_bytes=100), TOO_LARGE)
        assert bench.again == []
        assert len(bench.arbiter.recovery) == 1

    play(scene)


def test_a_large_request_that_never_left_is_split_too() -> None:
    async def scene() -> None:
        bench = Bench()
        images = bench.lose(bench.send("a", "b", size_bytes=430), TOO_LARGE, unsent=True)
        assert bench.again == ["a", "b"]
        assert [image.attempts for image in images] == [0, 0]

    play(scene)


def test_where_no_size_is_named_the_largest_request_is_the_refused_one() -> None:
    async def scene() -> None:
        bench = Bench(budget=0)
        small, large, begun = (
            bench.send("a", size_bytes=100),
            bench.send("b", "c", size_bytes=430),
            bench.send("d", "e"),
        )
        unsent = bench.send("f", size_bytes=2000)
        bench.receive(good("d"))
        lost = [
            LostBatch(small.release(), 140, False),
            LostBatch(large.release(), 900, False),
            LostBatch(begun.release(), 1000, False, was_read=True),
            LostBatch(unsent.release(), 2040, True),
        ]
        bench.arbiter.lost(bench.session, Loss(lost, UNSIZED, False))
        assert bench.refused == [(ENDPOINT, 900, None)]
        assert bench.again == ["b", "c", "f"], "the one too large in parts, and what never left"
        assert sorted(t.correlation_id for t in bench.arbiter.recovery.tickets()) == ["a", "e"]

    play(scene)


def test_what_is_left_of_a_request_that_was_answered_in_part_is_not_too_large() -> None:
    """It has the refused size by chance: the service read it."""

    async def scene() -> None:
        bench = Bench()
        batch = bench.send("a", "b", size_bytes=430)
        bench.receive(good("a"))
        lost = LostBatch(batch.release(), 900, False, was_read=True)
        bench.arbiter.lost(bench.session, Loss([lost], TOO_LARGE, False))
        assert bench.arbiter.recovery.tickets() == list(batch.tickets[1:])

    play(scene)


def test_an_image_refused_by_itself_without_a_size_tells_its_own() -> None:
    async def scene() -> None:
        bench = Bench(budget=0)
        bench.lose(bench.send("a", size_bytes=860), UNSIZED)
        assert bench.refused == [(ENDPOINT, 900, None)]
        assert bench.again == ["a"]

    play(scene)


def test_the_last_open_image_of_a_refused_request_need_not_be_too_large_itself() -> None:
    async def scene() -> None:
        bench = Bench(budget=0)
        batch = bench.send("a", "b", size_bytes=430)
        bench.settlement.fail([batch.tickets[0]], Outcome.UNKNOWN, ErrorCode.DEADLINE_EXCEEDED, "no answer")
        bench.lose(batch, TOO_LARGE)
        assert bench.again == ["b"]

    play(scene)


# --- deadlines ---


@pytest.mark.parametrize("failure", [None, LOST])
def test_an_unsent_image_over_its_deadline_failed(failure: CallFailed | None) -> None:
    async def scene() -> None:
        bench = Bench()
        bench.accept("a", timeout_s=1.0)
        bench.arbiter.last_failure = failure
        await bench.pass_s(1.2)
        result = bench.result("a")
        assert (result.outcome, result.attempts) == (Outcome.FAILED, 0)
        assert result.error is not None
        assert result.error.code is (ErrorCode.DEADLINE_EXCEEDED if failure is None else ErrorCode.UNAVAILABLE)
        assert "not sent" in result.error.message

    play(scene)


def test_a_sent_image_over_its_deadline_is_unknown_and_its_late_answer_dropped() -> None:
    async def scene() -> None:
        bench = Bench()
        batch = bench.send("own-a", timeout_s=1.0)
        await bench.pass_s(1.2)
        result = bench.result("own-a")
        assert (result.outcome, result.error and result.error.code) == (Outcome.UNKNOWN, ErrorCode.DEADLINE_EXCEEDED)
        assert bench.timed_out == [batch]
        assert bench.carrier.released == [batch]
        bench.receive(good("own-a"))
        assert bench.late_count == 1
        assert len(bench.sink.results) == 1

    play(scene)


def test_an_image_that_never_got_past_the_outbox_was_not_sent() -> None:
    async def scene() -> None:
        bench = Bench()
        bench.resend(bench.accept("a", timeout_s=1.0), written=False)
        await bench.pass_s(1.2)
        result = bench.result("a")
        assert (result.outcome, result.attempts) == (Outcome.FAILED, 0)

    play(scene)


def test_an_orphan_over_its_deadline_is_unknown_and_forgotten() -> None:
    async def scene() -> None:
        bench = Bench()
        bench.lose(bench.send("a", timeout_s=1.0))
        await bench.pass_s(1.2)
        assert bench.result("a").outcome is Outcome.UNKNOWN
        assert len(bench.arbiter.recovery) == 0
        assert not bench.arbiter.is_busy

    play(scene)


def test_an_image_that_waits_for_its_retry_at_its_deadline_keeps_the_services_word() -> None:
    async def scene() -> None:
        bench = Bench(base_s=0.5, cap_s=0.5)
        bench.send("a", timeout_s=2.0)
        bench.receive(bad("a", ErrorCode.MODEL_ERROR, "the model is busy"))
        await asyncio.sleep(1.5)
        assert bench.again == ["a"], "it waits in the batcher now"
        await bench.pass_s(1.0)
        result = bench.result("a")
        assert (result.outcome, result.error and result.error.code) == (Outcome.FAILED, ErrorCode.MODEL_ERROR)

    play(scene)


def test_an_image_sent_again_after_an_error_and_then_lost_may_have_been_classified() -> None:
    async def scene() -> None:
        bench = Bench(base_s=0.1, cap_s=0.1)
        (image,) = bench.send("a", timeout_s=2.0).tickets
        bench.receive(bad("a", ErrorCode.MODEL_ERROR))
        await asyncio.sleep(0.5)
        assert bench.again == ["a"]
        bench.lose(bench.resend([image]))
        await bench.pass_s(2.0)
        result = bench.result("a")
        assert (result.outcome, result.attempts) == (Outcome.UNKNOWN, 2)

    play(scene)


def test_an_image_sent_again_after_an_error_that_never_left_keeps_the_services_word() -> None:
    async def scene() -> None:
        bench = Bench(base_s=0.1, cap_s=0.1)
        (image,) = bench.send("a", timeout_s=2.0).tickets
        bench.receive(bad("a", ErrorCode.MODEL_ERROR))
        await asyncio.sleep(0.5)
        bench.resend([image], written=False)
        await bench.pass_s(2.0)
        result = bench.result("a")
        assert (result.outcome, result.error and result.error.code) == (Outcome.FAILED, ErrorCode.MODEL_ERROR)
        assert result.attempts == 1

    play(scene)


def test_part_of_a_batch_may_expire() -> None:
    async def scene() -> None:
        bench = Bench()
        soon, later = bench.accept("soon", timeout_s=1.0) + bench.accept("later", timeout_s=9.0)
        batch = bench.resend([soon, later])
        await bench.pass_s(1.2)
        assert list(bench.sink.by_id()) == ["soon"]
        assert batch.open_count == 1
        bench.receive(good("later"))
        assert bench.result("later").ok

    play(scene)


# --- global errors ---


def test_the_innocent_are_awaited_and_the_suspects_heard_alone() -> None:
    async def scene() -> None:
        bench = Bench()
        bench.send("a", "b")
        bench.send("poisoned", "beside")
        bench.send("c")
        bench.receive(global_error=ErrorCode.UNSPECIFIED)
        assert bench.held == [True]
        assert bench.arbiter.is_busy
        await bench.pass_s(0.5)
        bench.receive(good("a"), good("b"))
        await bench.pass_s(0.5)
        assert bench.alone == []
        bench.receive(good("c"))
        await bench.pass_s(0.1)
        assert bench.alone == ["poisoned", "beside"]
        assert bench.held == [True, False]
        assert sorted(bench.sink.by_id()) == ["a", "b", "c"]
        assert all(result.ok for result in bench.sink.results)
        assert [e.suspects for e in bench.events if isinstance(e, GlobalErrorReceived)] == [5]

    play(scene)


def test_a_global_error_may_come_with_answers() -> None:
    async def scene() -> None:
        bench = Bench()
        bench.send("a")
        bench.send("poisoned")
        bench.receive(good("a"), global_error=ErrorCode.AFFILIATE_NOT_PERMITTED)
        await bench.pass_s(0.1)
        assert bench.result("a").ok
        assert bench.alone == ["poisoned"]

    play(scene)


def test_an_image_that_waits_for_its_retry_is_not_heard_as_well() -> None:
    async def scene() -> None:
        bench = Bench(base_s=3.0, cap_s=3.0)
        bench.send("waits", "beside")
        bench.receive(bad("waits", ErrorCode.MODEL_ERROR))
        bench.send("poisoned")
        bench.receive(global_error=ErrorCode.UNSPECIFIED)
        bench.receive(good("beside"))
        await bench.pass_s(2.0)
        assert bench.alone == ["poisoned"]
        await bench.pass_s(5.0)
        assert bench.again == ["waits"]

    play(scene)


def test_images_that_came_back_unsent_are_sent_again_and_not_heard() -> None:
    async def scene() -> None:
        bench = Bench()
        bench.send("poisoned")
        waiting = bench.send("waiting")
        bench.receive(global_error=ErrorCode.UNSPECIFIED)
        bench.lose(waiting, unsent=True)
        await bench.pass_s(2.0)
        assert bench.alone == ["poisoned"]
        assert bench.again == ["waiting"]

    play(scene)


def test_suspects_that_are_being_heard_are_not_suspects_of_the_next_error() -> None:
    async def scene() -> None:
        bench = Bench()
        bench.send("one")
        bench.receive(global_error=ErrorCode.UNSPECIFIED)
        await bench.pass_s(2.0)
        bench.send("two")
        bench.receive(global_error=ErrorCode.UNSPECIFIED)
        await bench.pass_s(2.0)
        assert bench.alone == ["one", "two"]

    play(scene)


@pytest.mark.parametrize("code", [ErrorCode.MODEL_ERROR, ErrorCode.CORRELATION_ID_INVALID, ErrorCode.IMAGE_TOO_LARGE])
def test_while_a_suspect_is_heard_an_error_on_a_stream_is_late_and_a_score_counts(code: ErrorCode) -> None:
    async def scene() -> None:
        bench = Bench()
        (suspect,) = bench.send("own-a").tickets
        bench.receive(global_error=ErrorCode.UNSPECIFIED)
        await bench.pass_s(2.0)
        assert bench.alone == ["own-a"]
        suspect.attempts += 1  # the hearing's call, which is under way
        bench.receive(bad("own-a", code))
        bench.empty_deployment()
        await bench.pass_s(20.0)
        assert bench.again == [], "its hearing alone asks for it"
        assert (bench.late_count, bench.sink.results, len(bench.arbiter.recovery)) == (1, [], 0)
        assert (suspect.is_unanswered, bench.budget.snapshot().granted) == (True, 0)
        bench.receive(good("own-a"))
        assert bench.result("own-a").ok

    play(scene)


def test_orphans_are_suspects_and_not_resent_while_they_are() -> None:
    async def scene() -> None:
        bench = Bench()
        bench.lose(bench.send("orphan"))
        bench.empty_deployment()
        bench.send("poisoned")
        bench.receive(global_error=ErrorCode.UNSPECIFIED)
        await bench.pass_s(2.0)
        assert bench.again == []
        assert sorted(bench.alone) == ["orphan", "poisoned"]
        assert len(bench.arbiter.recovery) == 0

    play(scene)


def test_a_bad_deployment_id_fails_whom_it_concerns_and_at_most_once_leaves_it_unknown() -> None:
    async def scene() -> None:
        bench = Bench()
        bench.send("a")
        bench.receive(global_error=ErrorCode.DEPLOYMENT_ID_INVALID)
        await bench.pass_s(2.0)
        assert (bench.result("a").outcome, bench.alone) == (Outcome.FAILED, [])
        once = Bench(at_most_once=True)
        once.send("a")
        once.receive(global_error=ErrorCode.UNSPECIFIED)
        await once.pass_s(2.0)
        assert (once.result("a").outcome, once.alone) == (Outcome.UNKNOWN, [])

    play(scene)


def test_an_inquest_ends_though_nobody_ever_answers() -> None:
    async def scene() -> None:
        bench = Bench()
        for name in "abc":
            bench.send(name, timeout_s=1.5)
        bench.receive(global_error=ErrorCode.UNSPECIFIED)
        bench.receive(global_error=ErrorCode.UNSPECIFIED)
        await bench.pass_s(5.0)
        assert bench.held == [True, False]
        assert bench.alone == ["a", "b", "c"]
        assert not bench.arbiter.is_busy

    play(scene)
