"""Turns, medians and targets."""

from __future__ import annotations

import math

import pytest

from benchmarks.measure import (
    HAND_ROLLED,
    OFFICIAL,
    OURS,
    Figure,
    Peer,
    Row,
    Scale,
    Target,
    compare,
    percentile,
    take_turns,
)

pytestmark = pytest.mark.anyio


async def test_peers_take_turns_after_their_warm_up() -> None:
    order: list[str] = []

    def peer(name: str) -> Peer:
        async def run() -> float:
            order.append(name)
            return float(len(order))

        return run

    figures = await take_turns({"a": peer("a"), "b": peer("b")}, rounds=2)
    assert order == ["a", "b", "a", "b", "a", "b"]
    assert figures == {"a": Figure((3.0, 5.0)), "b": Figure((4.0, 6.0))}


def test_a_figure_is_a_median_with_its_spread() -> None:
    figure = Figure((9.0, 1.0, 2.0))
    assert (figure.median, figure.low, figure.high) == (2.0, 1.0, 9.0)


def test_targets_compare_medians() -> None:
    figures = {OURS: Figure((30.0,)), OFFICIAL: Figure((10.0,))}
    (target,) = compare(figures, OFFICIAL, 3)
    assert target == Target(">= 3x official", 3.0, 3)
    assert target.met
    assert not compare(figures, OFFICIAL, 1 / 3, at_least=False)[0].met
    assert compare(figures, HAND_ROLLED, 1) == []


def test_a_target_without_a_figure_is_not_met() -> None:
    assert not Target("at most", math.nan, 1.0, at_least=False).met


def test_a_ratio_to_a_missing_peer_or_to_0_is_no_number() -> None:
    row = Row("S1", "what", "images/s", {OURS: Figure((1.0,)), HAND_ROLLED: Figure((0.0,))})
    assert math.isnan(row.ratio(OURS, OFFICIAL))
    assert math.isnan(row.ratio(OURS, HAND_ROLLED))


@pytest.mark.parametrize(("percent", "expected"), [(0, 1), (50, 50), (95, 95), (99, 99), (100, 100)])
def test_percentiles_are_values_that_occurred(percent: float, expected: float) -> None:
    assert percentile([float(i) for i in range(100, 0, -1)], percent) == expected


def test_no_values_have_no_percentile() -> None:
    assert math.isnan(percentile([], 50))


def test_quick_picks_the_small_numbers() -> None:
    assert (Scale(quick=True).pick(5, 1), Scale().pick(5, 1)) == (1, 5)
