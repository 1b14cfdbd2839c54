"""The latency target as a value."""

from __future__ import annotations

import pytest

from athena_async.batching.estimates import Throughput
from athena_async.batching.target import LatencyTarget


def measured(latency_s: float, count: int = 10) -> Throughput:
    rate = Throughput()
    for _ in range(count):
        rate.add(10, 1, latency_s)
    return rate


@pytest.fixture
def target() -> LatencyTarget:
    """One second. Before anything is learnt the 95th percentile is taken for 1.2 times the mean."""
    return LatencyTarget(1.0)


@pytest.mark.parametrize(("latency_s", "slow"), [(0.78, False), (0.8, True)])
def test_with_some_samples_the_percentile_is_kept_under_a_margin(
    target: LatencyTarget, latency_s: float, slow: bool
) -> None:
    assert target.is_slow(measured(latency_s), 0.0) is slow


@pytest.mark.parametrize(("latency_s", "count", "slow"), [(0.9, 4, False), (1.1, 4, True), (5.0, 1, False)])
def test_with_few_samples_the_mean_decides_and_with_one_nothing(
    target: LatencyTarget, latency_s: float, count: int, slow: bool
) -> None:
    assert target.is_slow(measured(latency_s, count), 0.0) is slow


def test_what_a_lone_batch_nearly_takes_is_not_over(target: LatencyTarget) -> None:
    assert target.is_over(1.1, 0.5)
    assert not target.is_over(1.9, 1.0)
    assert not target.is_slow(measured(1.5), 1.0)
    assert target.is_over(2.1, 1.0)
    assert target.is_slow(measured(1.9), 1.0)


def test_latency_is_free_far_below_the_target(target: LatencyTarget) -> None:
    assert target.is_free(measured(0.08))
    assert not target.is_free(measured(0.09))


def test_room_is_what_the_percentile_may_grow_by(target: LatencyTarget) -> None:
    assert target.room(measured(0.1), 0.0) == pytest.approx(0.95 / 0.12)
    assert target.room(measured(1.0), 1.0) == pytest.approx(1.9 / 1.2), "the target cannot be kept"


def test_a_wider_spread_raises_the_percentile(target: LatencyTarget) -> None:
    rate = measured(0.5)
    for _ in range(20):
        target.learn(1.5, rate)
    assert target.p95_s(rate) > 0.75


@pytest.mark.parametrize(
    ("mean_s", "last_s", "scale"),
    [
        (1.0, 1.0, 0.9 / (1.2 / 0.95)),
        (0.2, 1.425, 0.9 / 1.5),
        (0.2, 20.0, 0.45),
        (0.2, 0.2, 0.9),
    ],
)
def test_a_reduction_is_for_the_percentile_or_the_last_batch_and_by_at_most_about_half(
    target: LatencyTarget, mean_s: float, last_s: float, scale: float
) -> None:
    assert target.scale(measured(mean_s), last_s, 0.0) == pytest.approx(scale)


def test_it_takes_two_incidents_to_exceed_it(target: LatencyTarget) -> None:
    assert not target.is_exceeded(1.5, 0.0, 10.0)
    assert not target.is_exceeded(1.6, 0.0, 10.1), "in flight with the first"
    assert target.is_exceeded(1.5, 0.0, 12.0)


def test_what_was_over_under_another_setting_is_forgiven(target: LatencyTarget) -> None:
    target.is_exceeded(1.5, 0.0, 10.0)
    target.forgive()
    assert not target.is_exceeded(1.5, 0.0, 12.0)
