"""Which channel gets the next batch."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from athena_async.channels.balancers import Candidate, PeakEwma, make_balancer


def channel(endpoint: str, outstanding_bytes: int = 0, seconds_per_image: float = 0.0) -> Candidate:
    return Candidate(endpoint, outstanding_bytes, outstanding_bytes // 1000, seconds_per_image)


def picks(name: str, offered: list[Candidate], count: int, weights: dict[str, float] | None = None) -> list[int]:
    balancer = make_balancer(name, weights or {}, random.Random(1))  # type: ignore[arg-type]
    return [balancer.pick(offered) for _ in range(count)]


def test_round_robin_takes_turns() -> None:
    assert picks("round_robin", [channel("a"), channel("b"), channel("c")], 6) == [0, 1, 2, 0, 1, 2]


def test_round_robin_shares_by_endpoint_and_then_by_channel() -> None:
    assert picks("round_robin", [channel("a"), channel("a"), channel("b")], 8) == [0, 2, 1, 2, 0, 2, 1, 2]


def test_round_robin_is_fair_to_an_endpoint_that_is_there_every_other_time() -> None:
    balancer = make_balancer("round_robin", {}, random.Random(1))
    counts: Counter[str] = Counter()
    for turn in range(300):
        offered = [channel(name) for name in ("a", "b", "c") if name != "b" or turn % 2]
        counts[offered[balancer.pick(offered)].endpoint] += 1
    assert counts["b"] >= 70, "half of its 150 chances"
    assert abs(counts["a"] - counts["c"]) <= 2, "who stands behind an absent one gains nothing"


def test_random_shares_by_endpoint() -> None:
    counts = Counter(picks("random", [channel("a"), channel("a"), channel("b")], 3000))
    assert counts[2] == pytest.approx(1500, rel=0.1)
    assert counts[0] == pytest.approx(750, rel=0.15)


def test_weighted_follows_weights_and_interleaves() -> None:
    offered = [channel("a"), channel("b"), channel("c")]
    assert picks("weighted", offered, 7, {"a": 5.0}) == [0, 0, 1, 0, 2, 0, 0]


def test_weighted_does_not_make_up_for_an_absence() -> None:
    balancer = make_balancer("weighted", {}, random.Random(1))
    for _ in range(100):
        balancer.pick([channel("a")])
    both = [channel("a"), channel("b")]
    assert Counter(balancer.pick(both) for _ in range(10)) == {0: 5, 1: 5}


class TestLeastLoaded:
    def test_fewer_outstanding_bytes_win(self) -> None:
        assert set(picks("least_loaded", [channel("a", 9000, 0.01), channel("b", 1000, 0.01)], 20)) == {1}

    def test_slow_endpoint_does_not_win_by_being_idle(self) -> None:
        assert set(picks("least_loaded", [channel("slow", 0, 0.2), channel("fast", 600_000, 0.01)], 20)) == {1}

    def test_idle_ones_compare_by_latency(self) -> None:
        assert set(picks("least_loaded", [channel("slow", 0, 0.2), channel("fast", 0, 0.1)], 20)) == {1}

    def test_one_without_measurement_counts_as_fast_as_the_other(self) -> None:
        assert set(picks("least_loaded", [channel("new", 0, 0.0), channel("known", 5000, 0.1)], 20)) == {0}
        assert set(picks("least_loaded", [channel("new", 9000, 0.0), channel("known", 5000, 0.1)], 20)) == {1}

    def test_looks_at_two_and_so_leaves_the_worst_of_three_out(self) -> None:
        offered = [channel("a", 100, 0.1), channel("b", 200, 0.1), channel("c", 300, 0.1)]
        counts = Counter(picks("least_loaded", offered, 900))
        assert counts[2] == 0
        assert counts[0] > counts[1] > 200

    def test_single_candidate(self) -> None:
        assert picks("least_loaded", [channel("a")], 2) == [0, 0]


class TestPeakEwma:
    def test_is_zero_before_the_first_observation(self) -> None:
        assert PeakEwma().value(5.0) == 0.0

    def test_rises_at_once(self) -> None:
        estimate = PeakEwma()
        estimate.observe(0.1, 0.0)
        estimate.observe(2.0, 0.1)
        assert estimate.value(0.1) == 2.0

    def test_falls_by_63_percent_in_its_time_constant(self) -> None:
        estimate = PeakEwma(decay_s=10.0)
        estimate.observe(1.0, 0.0)
        assert estimate.value(10.0) == pytest.approx(0.368, abs=0.001)
        estimate.observe(0.1, 10.0)
        assert 0.1 < estimate.value(10.0) < 0.5
