"""Balancers choose among what they are offered, whatever that is, and share it as promised."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from athena_async.channels.balancers import Candidate, PeakEwma, make_balancer

NAMES = ("round_robin", "random", "weighted", "least_loaded")

candidates = st.lists(
    st.builds(
        Candidate,
        st.sampled_from(["a:1", "b:1", "c:1"]),
        st.integers(0, 10**9),
        st.integers(0, 10**5),
        st.floats(0.0, 100.0),
    ),
    min_size=1,
    max_size=9,
)


@given(st.sampled_from(NAMES), st.lists(candidates, min_size=1, max_size=20), st.integers(0, 9))
def test_pick_is_always_one_of_those_offered(name: str, calls: list[list[Candidate]], seed: int) -> None:
    balancer = make_balancer(name, {"a:1": 3.0}, random.Random(seed))  # type: ignore[arg-type]
    for offered in calls:
        assert 0 <= balancer.pick(offered) < len(offered)


@given(st.lists(st.sets(st.sampled_from("abcd"), min_size=1), min_size=1, max_size=60))
def test_round_robin_never_passes_over_an_endpoint_for_longer_than_there_are_others(calls: list[set[str]]) -> None:
    balancer = make_balancer("round_robin", {}, random.Random(0))
    passed_over: Counter[str] = Counter()
    for present in calls:
        names = sorted(present)
        chosen = names[balancer.pick([Candidate(name, 0, 0, 0.0) for name in names])]
        for name in present:
            passed_over[name] += 1
        passed_over[chosen] = 0
        assert max(passed_over.values()) <= 3


@given(st.lists(st.floats(0.1, 10.0), min_size=1, max_size=5))
def test_weighted_shares_follow_the_weights(weights: list[float]) -> None:
    named = {f"e{n}": weight for n, weight in enumerate(weights)}
    balancer = make_balancer("weighted", named, random.Random(0))
    offered = [Candidate(name, 0, 0, 0.0) for name in named]
    counts = Counter(offered[balancer.pick(offered)].endpoint for _ in range(500))
    for name, weight in named.items():
        assert abs(counts[name] - 500 * weight / sum(weights)) <= len(weights)


@given(st.lists(st.tuples(st.floats(1e-6, 100.0), st.floats(0.0, 50.0)), min_size=1, max_size=50))
def test_peak_ewma_is_never_below_what_was_just_seen_nor_above_the_worst(samples: list[tuple[float, float]]) -> None:
    estimate, now, worst = PeakEwma(), 0.0, 0.0
    for seconds, gap in samples:
        now += gap
        worst = max(worst, seconds)
        estimate.observe(seconds, now)
        assert seconds <= estimate.value(now) <= worst * (1 + 1e-9)
        assert estimate.value(now + 1.0) < estimate.value(now)
