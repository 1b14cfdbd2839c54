"""Waits before another try."""

from __future__ import annotations

import random

import pytest

from athena_async.resilience.backoff import Backoff


def test_ceiling_doubles_up_to_the_cap() -> None:
    backoff = Backoff(base_s=0.1, cap_s=1.0)
    assert [backoff.ceiling_s(n) for n in range(6)] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0])


def test_huge_attempts_do_not_overflow() -> None:
    assert Backoff(0.1, 10.0).ceiling_s(100_000) == 10.0


def test_jitter_is_full() -> None:
    rng = random.Random(1)
    drawn = [Backoff(0.1, 10.0).delay_s(3, rng) for _ in range(5000)]
    assert 0.0 <= min(drawn) < 0.01
    assert 0.79 < max(drawn) <= 0.8
    assert sum(drawn) / len(drawn) == pytest.approx(0.4, rel=0.05)


def test_pushback_is_a_floor_with_jitter_on_top() -> None:
    rng = random.Random(1)
    drawn = [Backoff(0.1, 10.0).delay_s(0, rng, at_least_s=30.0) for _ in range(100)]
    assert min(drawn) >= 30.0
    assert max(drawn) <= 30.1
    assert len(set(drawn)) > 90, "clients that were told the same time must not come back together"
