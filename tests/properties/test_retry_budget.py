"""The retry budget under any use, and against a server that fails everything (P11)."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from athena_async.config import RetryConfig
from athena_async.errors import ErrorCode
from athena_async.resilience.retry import Resend, RetryBudget, RetryPolicy


class BudgetMachine(RuleBasedStateMachine):
    @initialize(capacity=st.integers(0, 500), ratio=st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0]))
    def build(self, capacity: int, ratio: float) -> None:
        self.capacity, self.ratio = capacity, ratio
        self.budget = RetryBudget(capacity, ratio)
        self.first_sends = self.granted = 0

    @rule(images=st.integers(0, 300))
    def first_send(self, images: int) -> None:
        self.budget.first_send(images)
        self.first_sends += images

    @rule(images=st.integers(0, 300))
    def spend(self, images: int) -> None:
        available = self.budget.available
        granted = self.budget.try_spend(images)
        assert granted == min(images, available)
        self.granted += granted

    @rule(images=st.integers(0, 300))
    def refund(self, images: int) -> None:
        given_back = min(images, self.granted)
        self.budget.refund(given_back)
        self.granted -= given_back

    @invariant()
    def resends_stay_within_capacity_and_earnings(self) -> None:
        assert self.granted <= self.capacity + self.ratio * self.first_sends + 1e-3
        assert self.budget.snapshot().granted == self.granted
        assert 0 <= self.budget.available <= self.capacity


BudgetMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestBudget = BudgetMachine.TestCase


@given(st.integers(0, 1000), st.integers(1, 50))
@settings(max_examples=20, deadline=None)
def test_server_that_fails_everything_gets_three_attempts_and_a_tenth_more_load(seed: int, batch: int) -> None:
    """P11: every send comes back UNAVAILABLE; 20,000 images."""
    rng = random.Random(seed)
    policy, budget = RetryPolicy(RetryConfig()), RetryBudget(1000, 0.1)
    waiting: list[int] = []
    resends_late = first_late = 0
    most_attempts = 0
    for step in range(0, 20_000, batch):
        budget.first_send(batch)
        failed, waiting = [1] * batch + waiting, []
        wanted = [n for n in failed if isinstance(policy.decide(ErrorCode.UNAVAILABLE, attempts=n, rng=rng), Resend)]
        granted = budget.try_spend(len(wanted))
        waiting = [n + 1 for n in wanted[:granted]]
        most_attempts = max([most_attempts, *waiting])
        if step >= 12_000:
            first_late += batch
            resends_late += granted
    assert most_attempts <= 3
    assert resends_late <= 0.1 * first_late + 1
