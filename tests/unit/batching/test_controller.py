"""The batch controller as a value: told what was answered, asked for bounds."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

import pytest

from athena_async.batching.controller import BatchController, BatchPlan
from athena_async.batching.moves import Setting
from athena_async.batching.response import Response
from athena_async.config import BatchingConfig

KIB = 1024
MIB = 1024 * KIB


def drive(
    controller: BatchController,
    cost_s: Callable[[int, float], float],
    seconds: float,
    *,
    workers: int = 1,
    image_bytes: int = 50,
    noise: float = 0.1,
    start_s: float = 0.0,
    way_s: float = 0.001,
) -> tuple[float, list[float]]:
    """A saturated client in virtual time; ``cost_s(images, now)`` is a worker's time for a batch, ``way_s`` that there
    and back.

    Returns images per second and all latencies.
    """
    rng = random.Random(1)
    free = [start_s] * workers
    answers: list[tuple[float, int, float, int, int]] = []
    done, latencies, sent, now = 0, [], 0, start_s
    while now < start_s + seconds:
        plan = controller.plan(now)
        if len(answers) < plan.in_flight:
            images = max(1, min(plan.images, plan.size_bytes // image_bytes))
            begin = max(now, heapq.heappop(free))
            end = begin + cost_s(images, begin) * rng.lognormvariate(0.0, noise)
            heapq.heappush(free, end)
            heapq.heappush(answers, (end + way_s, sent, now, images, len(answers) + 1))
            sent += 1
            continue
        now, _, sent_s, images, in_flight = heapq.heappop(answers)
        done += images
        latencies.append(now - sent_s)
        controller.observe(
            images=images, size_bytes=images * image_bytes, latency_s=now - sent_s, in_flight=in_flight,
            queue_depth=1000, now=now,
        )  # fmt: skip
    return done / seconds, latencies


def p95(latencies: list[float]) -> float:
    return sorted(latencies)[int(0.95 * len(latencies))]


def answer(
    controller: BatchController, count: int, latency_s: float, now: float = 0.0, queue_depth: int = 100
) -> float:
    """Full batches, one at a time, each taking ``latency_s``. Returns the time after the last."""
    for _ in range(count):
        plan = controller.plan(now)
        now += latency_s
        controller.observe(
            images=plan.images, size_bytes=plan.images * 50, latency_s=latency_s, in_flight=plan.in_flight,
            queue_depth=queue_depth, now=now,
        )  # fmt: skip
    return now


def slowly(controller: BatchController, times: float, now: float) -> float:
    """A batch at ``times`` the cost of a server that takes 100 ms a batch and 5 ms an image."""
    plan = controller.plan(now)
    return answer(controller, 1, times * (0.1 + 0.005 * plan.images) * plan.in_flight, now)


def until_it_says(controller: BatchController, reason: str) -> float:
    """Answers from that server until the controller has found its place, and then until it gives this reason."""
    now = 0.0
    while now < 60.0 or controller.snapshot().reason != reason:
        now = slowly(controller, 1.0, now)
        assert now < 600.0, "it never came to that"
    return now


def per_image_share(controller: BatchController) -> float:
    """The part of a batch's time that is taken to be for its images."""
    state = controller.snapshot()
    per_images_s = state.per_image_s * state.images
    return per_images_s / (per_images_s + state.per_batch_s)


@pytest.fixture
def controller() -> BatchController:
    return BatchController(BatchingConfig())


def test_a_thin_link_far_away_is_soon_kept_full(controller: BatchController) -> None:
    """With one batch in flight the link rests on the way back; two large ones take longer than the target."""
    image_s = 602_112 / 6.25e6
    rate, latencies = drive(
        controller, lambda images, _: images * image_s, 25.0, image_bytes=602_112, noise=0.0, way_s=0.08
    )
    assert rate > 0.93 / image_s
    assert p95(latencies) < 1.0


def test_starts_small_and_with_one_batch_in_flight(controller: BatchController) -> None:
    assert controller.plan(0.0) == BatchPlan(images=16, size_bytes=MIB, in_flight=1)


class TestSlowStart:
    """Bytes of a request while nobody knows what the link carries."""

    @pytest.mark.parametrize(("mbit_per_s", "most_bytes"), [(1, MIB), (2, 2 * MIB), (50, 4_128_768)])
    def test_a_request_takes_no_longer_on_the_link_than_a_peer_may_be_silent(
        self, controller: BatchController, mbit_per_s: float, most_bytes: int
    ) -> None:
        _, latencies = drive(
            controller, lambda images, now: images * 602_112 * 8e-6 / mbit_per_s, 200.0, image_bytes=602_112
        )
        assert max(latencies) < 10.0
        assert controller.plan(0.0).size_bytes <= most_bytes

    def test_a_slow_service_gets_full_requests_all_the_same(self, controller: BatchController) -> None:
        drive(controller, lambda images, now: 3.0, 60.0, image_bytes=602_112)
        assert controller.plan(0.0).size_bytes == BatchingConfig().max_bytes

    def test_what_timed_out_was_too_much(self, controller: BatchController) -> None:
        drive(controller, lambda images, now: 0.01, 5.0, image_bytes=602_112)
        assert controller.plan(5.0).size_bytes == BatchingConfig().max_bytes
        for now in (6.0, 8.0, 10.0):
            controller.congested(now)
        assert controller.plan(10.0).size_bytes == BatchingConfig().max_bytes // 8
        drive(controller, lambda images, now: 0.01, 5.0, image_bytes=602_112, start_s=11.0)
        assert controller.plan(16.0).size_bytes == BatchingConfig().max_bytes

    def test_a_size_that_was_chosen_stands(self) -> None:
        controller = BatchController(BatchingConfig(fixed_size=6))
        controller.congested(1.0)
        assert controller.plan(1.0).size_bytes == BatchingConfig().max_bytes


def test_start_respects_a_small_maximum() -> None:
    assert BatchController(BatchingConfig(max_images=4)).plan(0.0).images == 4


class TestDue:
    def test_nothing_waits(self, controller: BatchController) -> None:
        assert not controller.due(ready_images=0, ready_bytes=0, oldest_wait_s=9.0, in_flight=0)

    def test_lone_image_leaves_at_once_when_nothing_is_in_flight(self, controller: BatchController) -> None:
        assert controller.due(ready_images=1, ready_bytes=50, oldest_wait_s=0.0, in_flight=0)

    @pytest.mark.parametrize(
        ("ready_images", "ready_bytes", "waited_s", "due"),
        [(1, 50, 0.0, False), (1, 50, 0.005, True), (16, 800, 0.0, True), (2, 5_000_000, 0.0, True)],
        ids=["company may come", "lingered", "full of images", "full of bytes"],
    )
    def test_while_another_is_in_flight(self, ready_images: int, ready_bytes: int, waited_s: float, due: bool) -> None:
        controller = BatchController(BatchingConfig(fixed_size=16))
        asked = controller.due(ready_images=ready_images, ready_bytes=ready_bytes, oldest_wait_s=waited_s, in_flight=1)
        assert asked is due

    def test_never_beyond_the_batches_in_flight(self, controller: BatchController) -> None:
        assert not controller.due(ready_images=99, ready_bytes=0, oldest_wait_s=9.0, in_flight=1)


class TestClimbs:
    def test_to_the_largest_batches_where_cost_is_per_batch(self, controller: BatchController) -> None:
        drive(controller, lambda images, now: 0.08, 15.0)
        assert controller.plan(0.0).images >= 150

    def test_to_the_knee_and_not_beyond(self, controller: BatchController) -> None:
        rate, _ = drive(controller, lambda n, now: 0.03 + 0.001 * n + 0.01 * max(0, n - 32), 60.0)
        assert rate > 0.88 * 32 / 0.063

    def test_to_as_many_in_flight_as_the_server_has_workers(self, controller: BatchController) -> None:
        rate, latencies = drive(controller, lambda images, now: 0.005 * images, 30.0, workers=4)
        assert controller.plan(0.0).in_flight >= 4
        assert rate > 0.9 * 4 / 0.005
        assert p95(latencies) < 1.0

    def test_to_large_batches_where_latency_is_far_below_target(self, controller: BatchController) -> None:
        drive(controller, lambda images, now: 0.0003 + 0.000003 * images, 2.0, noise=0.6)
        plan = controller.plan(0.0)
        assert plan.images == 200
        assert plan.in_flight >= 2

    def test_by_bytes_where_those_are_the_limit(self, controller: BatchController) -> None:
        drive(controller, lambda images, now: 0.0003 * images, 2.0, image_bytes=602_112)
        assert controller.plan(0.0).in_flight >= 2
        assert controller.plan(0.0).size_bytes == BatchingConfig().max_bytes


class TestKeepsTheTarget:
    def test_where_cost_is_per_image_and_high(self, controller: BatchController) -> None:
        _, latencies = drive(controller, lambda images, now: 0.05 * images, 120.0)
        assert p95(latencies) <= 1.0

    def test_while_the_server_slows_down_fivefold(self, controller: BatchController) -> None:
        scale = lambda now: 1.0 + 4.0 * min(1.0, now / 40.0)  # noqa: E731
        _, latencies = drive(controller, lambda n, now: (0.03 + 0.002 * n) * scale(now), 60.0)
        assert p95(latencies) <= 1.0

    def test_after_a_sudden_change_and_climbs_again_after_it(self, controller: BatchController) -> None:
        cost = lambda n, now: (0.03 + 0.002 * n) * (5.0 if 20.0 <= now < 90.0 else 1.0)  # noqa: E731
        before, _ = drive(controller, cost, 20.0)
        drive(controller, cost, 10.0, start_s=20.0)
        _, latencies = drive(controller, cost, 60.0, start_s=30.0)
        drive(controller, cost, 20.0, start_s=90.0)
        after, _ = drive(controller, cost, 20.0, start_s=110.0)
        assert p95(latencies) <= 1.0
        assert after > 0.8 * before

    def test_nearly_within_15_s_where_everything_takes_twenty_times_as_long(self) -> None:
        """A third of the target is then the fixed cost of a batch, so that noise decides what seems to be reachable."""
        controller = BatchController(BatchingConfig(target_latency_s=0.3))
        cost = lambda n, now: (0.005 + 0.0005 * n) * (20.0 if now >= 8.0 else 1.0)  # noqa: E731
        drive(controller, cost, 23.0)
        _, latencies = drive(controller, cost, 30.0, start_s=23.0)
        assert p95(latencies) <= 0.5, "3 s at first"

    def test_but_does_not_give_up_throughput_for_one_that_cannot_be_kept(self, controller: BatchController) -> None:
        cost = lambda images, now: 1.5 + 0.0001 * images  # noqa: E731
        drive(controller, cost, 150.0, workers=4)
        rate, _ = drive(controller, cost, 150.0, workers=4, start_s=150.0)
        assert rate > 100.0, "a lone image takes 1.5 s, so one image at a time would bring 0.7/s"

    def test_one_long_pause_is_no_reason_to_reduce(self, controller: BatchController) -> None:
        now = answer(controller, 400, 0.3)
        before = controller.snapshot().decreases
        now = answer(controller, 1, 3.0, now)
        answer(controller, 30, 0.3, now)
        assert controller.snapshot().decreases == before


class TestSuddenlySlow:
    """A server that takes many times as long all at once, one mechanism at a time."""

    def test_nothing_is_tried_behind_a_batch_that_was_over_the_target(self, controller: BatchController) -> None:
        now = answer(controller, 2, 0.4)
        now = answer(controller, 1, 1.2, now)
        assert controller.snapshot().reason == "start", "with a mean of 0.8 s something would be tried"
        answer(controller, 1, 0.4, now)
        assert controller.snapshot().reason.startswith("trying")

    def test_a_trial_of_less_that_is_over_the_target_goes_on_down(self, controller: BatchController) -> None:
        now = until_it_says(controller, "trying smaller batches")
        tried = controller.plan(now)
        while controller.snapshot().reason == "trying smaller batches":
            now = slowly(controller, 3.0, now)
        assert controller.snapshot().reason == "latency over target"
        assert controller.plan(now).images < tried.images

    @pytest.mark.parametrize("reason", ["trying smaller batches", "held, against smaller batches"])
    def test_nothing_is_learnt_from_what_was_measured_before_it(self, controller: BatchController, reason: str) -> None:
        """Half as large a batch on a server that is 2.5 times as slow takes longer, and not for a fixed cost."""
        now = until_it_says(controller, reason)
        before = per_image_share(controller)
        while controller.snapshot().decreases == 0:
            now = slowly(controller, 2.5, now)
        for _ in range(10):
            now = slowly(controller, 2.5, now)
        assert before > 0.7
        assert per_image_share(controller) >= before - 0.1


class TestResponse:
    def test_a_smaller_batch_that_took_as_long_has_a_fixed_cost(self) -> None:
        response = Response()
        response.learn(Setting(200, 2), 2000.0, Setting(100, 2), 1000.0, 1.0)
        assert response.by_images.value == pytest.approx(0.0)

    def test_a_smaller_batch_that_took_longer_tells_of_the_server_and_not_of_batches(self) -> None:
        """Taken for a fixed cost it made a server that had turned 20 times slower look like one that no smaller
        batch makes faster, and for half a minute nothing was reduced."""
        response = Response()
        before = response.by_images.value
        response.learn(Setting(200, 2), 1700.0, Setting(163, 2), 94.0, 0.5)
        assert response.by_images.value == before
        assert response.lone_s(Setting(163, 1), 1.7) < 0.5 * 1.7

    def test_below_a_knee_a_reduction_is_no_smaller_than_for_a_cost_per_image(self) -> None:
        response = Response()
        response.by_images.value, response.by_in_flight.value = 1.5, 0.9
        assert response.reduced(Setting(100, 2), 0.6) == Setting(60, 2)


class TestFrozen:
    @pytest.mark.parametrize(("images", "size_bytes"), [(3, 150), (1, 602_112)])
    def test_while_the_application_cannot_fill_the_batches(
        self, controller: BatchController, images: int, size_bytes: int
    ) -> None:
        before = controller.plan(0.0)
        for step in range(200):
            controller.observe(
                images=images,
                size_bytes=size_bytes,
                latency_s=0.05,
                in_flight=1,
                queue_depth=0,
                now=1.0 + step * 0.1,
            )
        assert controller.plan(0.0) == before
        assert controller.snapshot().application_limited
        assert controller.snapshot().decreases == 0

    def test_but_a_batch_that_bytes_cut_short_counts(self, controller: BatchController) -> None:
        for step in range(200):
            controller.observe(
                images=6, size_bytes=3_612_672, latency_s=0.05, in_flight=1, queue_depth=50, now=1.0 + step * 0.1
            )
        assert not controller.snapshot().application_limited
        assert controller.snapshot().images_per_s > 0

    def test_by_a_fixed_size(self) -> None:
        controller = BatchController(BatchingConfig(fixed_size=24, max_batches_in_flight=5))
        drive(controller, lambda images, now: 3.0, 60.0)
        controller.congested(60.0)
        assert controller.plan(0.0) == BatchPlan(24, BatchingConfig().max_bytes, 5)
        assert controller.snapshot().images_per_s > 0

    def test_answers_to_batches_sent_before_the_first_answer_do_not_count(self, controller: BatchController) -> None:
        for step in range(8):
            controller.observe(
                images=16,
                size_bytes=800,
                latency_s=10.0 + step * 0.01,
                in_flight=1,
                queue_depth=50,
                now=10.0 + step * 0.01,
            )
        assert controller.snapshot().decreases == 0


class TestCongestion:
    def test_halves_what_is_in_flight_then_the_images(self) -> None:
        controller = BatchController(BatchingConfig())
        drive(controller, lambda images, now: 0.0003, 2.0)
        before = controller.plan(0.0)
        controller.congested(2.5)
        after = controller.plan(2.5)
        assert after.in_flight <= before.in_flight // 2
        assert after.images <= before.images
        for step in range(20):
            controller.congested(10.0 + step)
        assert controller.plan(40.0).images == 1
        assert controller.plan(40.0).in_flight == 1
        assert controller.snapshot().reason == "congested"

    def test_signals_of_the_same_moment_count_once(self) -> None:
        controller = BatchController(BatchingConfig())
        now = answer(controller, 3, 0.5)
        before = controller.snapshot().decreases
        for step in range(10):
            controller.congested(now + step * 0.04)
        assert controller.snapshot().decreases == before + 1


class TestRefused:
    def test_limit_that_the_server_named(self, controller: BatchController) -> None:
        controller.refused(3_000_000, 1_048_576, 1.0)
        assert controller.plan(1.0).size_bytes == 1_048_576

    def test_largest_answered_size_where_it_named_none(self, controller: BatchController) -> None:
        controller.observe(images=4, size_bytes=900 * KIB, latency_s=0.1, in_flight=1, queue_depth=9, now=1.0)
        controller.refused(1000 * KIB, None, 2.0)
        assert controller.plan(2.0).size_bytes == 900 * KIB

    def test_half_where_nothing_is_known(self, controller: BatchController) -> None:
        controller.refused(1000 * KIB, None, 2.0)
        assert controller.plan(2.0).size_bytes == 500 * KIB

    def test_named_limit_above_what_was_refused_is_not_believed(self, controller: BatchController) -> None:
        controller.refused(1000 * KIB, 4096 * KIB, 2.0)
        assert controller.plan(2.0).size_bytes == 500 * KIB

    def test_bound_never_rises_again(self, controller: BatchController) -> None:
        controller.refused(1000 * KIB, 300 * KIB, 1.0)
        controller.refused(2000 * KIB, 1500 * KIB, 2.0)
        drive(controller, lambda images, now: 0.01, 5.0, image_bytes=10 * KIB, start_s=3.0)
        assert controller.plan(9.0).size_bytes == 300 * KIB


def test_snapshot_shows_what_was_fitted(controller: BatchController) -> None:
    drive(controller, lambda images, now: 0.08, 15.0, noise=0.02)
    state = controller.snapshot()
    assert state.per_batch_s + state.per_image_s * state.images == pytest.approx(0.08, rel=0.2)
    assert state.per_batch_s > 0.06
    assert state.baseline_s == pytest.approx(0.08 * state.in_flight, rel=0.6)
    assert 0.08 <= state.latency_p95_s <= 1.0
    assert state.reason


def test_throughput_of_one_run_equals_that_of_the_next() -> None:
    first, second = (drive(BatchController(BatchingConfig()), lambda n, now: 0.02, 5.0) for _ in range(2))
    assert first == second
