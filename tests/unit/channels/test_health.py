"""Circuit breaker and ejection of endpoints, with the time as an argument."""

from __future__ import annotations

import random

import pytest

from athena_async.channels.health import EndpointState, HealthBoard
from athena_async.config import BreakerConfig

FOUR = ("a:1", "b:1", "c:1", "d:1")
SIX = (*FOUR, "e:1", "f:1")


def board(endpoints: tuple[str, ...] = FOUR, **config: float) -> HealthBoard:
    return HealthBoard(endpoints, BreakerConfig(**config), random.Random(1))  # type: ignore[arg-type]


def fail(health: HealthBoard, endpoint: str, now: float, times: int = 3) -> float:
    """Fails until the last time; returns the ejection's seconds, 0.0 without one."""
    ejection = None
    for _ in range(times):
        ejection = health.failed(endpoint, "reset", now)
    return ejection.ejected_s if ejection else 0.0


def test_third_failure_in_a_row_ejects() -> None:
    health = board()
    assert fail(health, "a:1", 0.0, times=2) == 0.0
    assert health.eligible(0.0) == FOUR
    ejection = health.failed("a:1", "connection reset", 0.0)
    assert ejection is not None
    assert (ejection.endpoint, ejection.reason) == ("a:1", "connection reset")
    assert 5.0 <= ejection.ejected_s <= 6.25
    assert health.eligible(0.1) == FOUR[1:]
    assert health.next_change_s(1.0) == pytest.approx(ejection.ejected_s - 1.0)


def test_success_in_between_starts_the_count_anew() -> None:
    health = board()
    fail(health, "a:1", 0.0, times=2)
    health.succeeded("a:1", 0.5)
    assert fail(health, "a:1", 1.0, times=2) == 0.0


def test_half_open_allows_one_probe_and_its_answer_closes() -> None:
    health = board()
    fail(health, "a:1", 0.0)
    assert health.state("a:1", 7.0) is EndpointState.HALF_OPEN
    assert health.eligible(7.0) == FOUR
    health.probe_started("a:1", 7.0)
    assert health.eligible(7.1) == FOUR[1:]
    assert health.succeeded("a:1", 7.5)
    assert health.state("a:1", 7.5) is EndpointState.CLOSED
    assert health.eligible(7.5) == FOUR


def test_failed_probe_ejects_for_twice_as_long_up_to_the_maximum() -> None:
    health = board()
    ejected_s, now, times = fail(health, "a:1", 0.0), 0.0, []
    for _ in range(9):
        now += ejected_s
        health.probe_started("a:1", now)
        ejected_s = fail(health, "a:1", now, times=1)
        times.append(ejected_s)
    assert all(10.0 * 2**n <= seconds <= 12.5 * 2**n for n, seconds in enumerate(times[:4]))
    assert all(240.0 <= seconds <= 300.0 for seconds in times[-3:])


def test_probe_that_was_dropped_leaves_room_for_another() -> None:
    health = board()
    fail(health, "a:1", 0.0)
    health.probe_started("a:1", 7.0)
    health.probe_dropped("a:1")
    assert "a:1" in health.eligible(7.0)


def test_a_batch_that_was_sent_before_the_ejection_ends_no_probe() -> None:
    health = board()
    before, probe = object(), object()
    health.probe_started("a:1", 0.0, before)
    fail(health, "a:1", 0.0)
    health.probe_started("a:1", 7.0, probe)
    health.probe_dropped("a:1", before)
    assert "a:1" not in health.eligible(7.0)
    health.probe_dropped("a:1", probe)
    assert "a:1" in health.eligible(7.0)


def test_an_answer_to_a_batch_of_before_the_ejection_closes_no_breaker() -> None:
    health = board()
    fail(health, "a:1", 1.0)
    assert not health.succeeded("a:1", 8.0, sent_s=0.5)
    assert health.state("a:1", 8.0) is EndpointState.HALF_OPEN
    assert health.succeeded("a:1", 8.0, sent_s=7.5)
    assert health.state("a:1", 8.0) is EndpointState.CLOSED


def test_ejections_are_forgotten_after_lasting_health() -> None:
    health = board()
    fail(health, "a:1", 0.0)
    fail(health, "a:1", 7.0, times=1)
    health.succeeded("a:1", 20.0)
    assert health.snapshot(20.0)[0].ejections == 2
    assert health.snapshot(51.0)[0].ejections == 1
    assert 10.0 <= fail(health, "a:1", 51.0) <= 12.5
    health.succeeded("a:1", 70.0)
    assert fail(health, "a:1", 500.0) <= 6.25


def test_flapping_endpoint_is_ejected_for_longer_each_time() -> None:
    health, now, times = board(), 0.0, []
    for _ in range(5):
        times.append(fail(health, "a:1", now))
        now += times[-1]
        health.probe_started("a:1", now)
        assert health.succeeded("a:1", now)
        now += 10.0
    assert times == sorted(times)
    assert times[-1] >= 80.0


def test_last_endpoint_is_never_ejected() -> None:
    alone = board(("a:1",))
    assert fail(alone, "a:1", 0.0, times=50) == 0.0
    assert alone.eligible(0.0) == ("a:1",)
    health = board(panic_fraction=0.0)
    for endpoint in FOUR[:3]:
        assert fail(health, endpoint, 0.0) > 0.0
    assert fail(health, "d:1", 0.0, times=10) == 0.0
    assert health.eligible(0.0) == ("d:1",)


def test_panic_uses_all_and_an_answer_closes() -> None:
    health = board()
    fail(health, "a:1", 0.0)
    fail(health, "b:1", 0.0)
    assert health.eligible(0.1) == FOUR[2:], "half are healthy: no panic yet"
    fail(health, "c:1", 0.0)
    assert health.eligible(0.1) == FOUR
    assert health.succeeded("a:1", 0.2)
    assert health.eligible(0.3) == ("a:1", "d:1")


def test_late_answer_does_not_close_an_open_breaker() -> None:
    health = board()
    fail(health, "a:1", 0.0)
    assert not health.succeeded("a:1", 1.0)
    assert health.state("a:1", 1.0) is EndpointState.OPEN


def test_failures_while_open_change_nothing() -> None:
    health = board()
    ejected_s = fail(health, "a:1", 0.0)
    assert fail(health, "a:1", 1.0, times=9) == 0.0
    assert health.next_change_s(1.0) == pytest.approx(ejected_s - 1.0)


class TestHealthCheck:
    def test_that_fails_and_then_succeeds_brings_the_probe_forward(self) -> None:
        health = board()
        fail(health, "a:1", 0.0)
        health.health_checked("a:1", False, 1.0)
        health.health_checked("a:1", True, 2.0)
        assert health.state("a:1", 2.0) is EndpointState.HALF_OPEN

    def test_that_never_failed_shortens_nothing(self) -> None:
        health = board()
        fail(health, "a:1", 0.0)
        health.health_checked("a:1", True, 2.0)
        assert health.state("a:1", 2.0) is EndpointState.OPEN

    def test_means_nothing_for_a_closed_one(self) -> None:
        health = board()
        for _ in range(9):
            health.health_checked("a:1", False, 1.0)
        assert health.eligible(1.0) == FOUR


class TestLatency:
    @staticmethod
    def serve(health: HealthBoard, endpoints: tuple[str, ...], slow: dict[str, float], rounds: int = 20) -> list[str]:
        ejected = []
        for step in range(rounds):
            for endpoint in endpoints:
                if endpoint in health.eligible(step * 0.1):
                    ejection = health.answered(endpoint, slow.get(endpoint, 0.01), 10, step * 0.1)
                    ejected += [ejection.endpoint] if ejection else []
        return ejected

    def test_outlier_among_six_is_ejected(self) -> None:
        assert self.serve(board(SIX), SIX, {"c:1": 0.2}) == ["c:1"]

    def test_below_five_endpoints_latency_ejects_nobody(self) -> None:
        assert self.serve(board(), FOUR, {"c:1": 0.2}) == []

    def test_four_times_the_median_is_no_outlier(self) -> None:
        assert self.serve(board(SIX), SIX, {"c:1": 0.04}) == []

    def test_one_slow_batch_is_no_outlier(self) -> None:
        health = board(SIX)
        self.serve(health, SIX, {})
        assert health.answered("c:1", 0.1, 10, 2.0) is None

    def test_never_ejects_into_a_panic(self) -> None:
        slow = {"a:1": 9.0, "b:1": 1.0, "c:1": 0.3}
        health = board(SIX, panic_fraction=0.7)
        assert len(self.serve(health, SIX, slow, rounds=40)) <= 1
        assert len(health.eligible(5.0)) >= 5

    def test_is_measured_anew_after_the_return(self) -> None:
        health = board(SIX)
        self.serve(health, SIX, {"c:1": 0.2})
        assert health.succeeded("c:1", 10.0)
        assert all(health.answered("c:1", 0.01, 10, 10.0 + step) is None for step in range(10))


def test_snapshot_shows_each_endpoint() -> None:
    health = board()
    health.answered("b:1", 0.02, 10, 0.0)
    fail(health, "a:1", 0.0)
    first, second, *_ = health.snapshot(1.0)
    assert (first.state, first.failures, first.ejections, first.reason) == (EndpointState.OPEN, 3, 1, "reset")
    assert 4.0 <= first.open_for_s <= 5.25
    assert (second.state, second.seconds_per_image, second.open_for_s) == (EndpointState.CLOSED, 0.02, 0.0)
    assert "a:1" in repr(health)
