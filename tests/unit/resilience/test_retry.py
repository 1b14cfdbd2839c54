"""Which images are sent again, and how many of them."""

from __future__ import annotations

import random
from typing import Any

import pytest

from athena_async.config import RetryConfig
from athena_async.errors import ErrorCode
from athena_async.resilience.retry import (
    RULES,
    Decision,
    GiveUp,
    Resend,
    RetryBudget,
    RetryPolicy,
    Rule,
    message_is_retryable,
)


def decide(code: ErrorCode, attempts: int = 1, config: RetryConfig | None = None, **given: Any) -> Decision:
    return RetryPolicy(config or RetryConfig()).decide(code, attempts=attempts, rng=random.Random(1), **given)


def test_every_code_has_its_rule() -> None:
    assert set(RULES) == set(ErrorCode)


@pytest.mark.parametrize("code", [ErrorCode.UNAVAILABLE, ErrorCode.DEADLINE_EXCEEDED, ErrorCode.RESOURCE_EXHAUSTED])
def test_transient_codes_are_retried_up_to_max_attempts(code: ErrorCode) -> None:
    assert isinstance(decide(code, 1), Resend)
    assert isinstance(decide(code, 2), Resend)
    assert isinstance(decide(code, 3), GiveUp)


@pytest.mark.parametrize("code", [code for code, rule in RULES.items() if rule is Rule.FINAL])
def test_final_codes_are_not(code: ErrorCode) -> None:
    assert isinstance(decide(code), GiveUp)


@pytest.mark.parametrize(
    "code",
    [
        ErrorCode.PERMISSION_DENIED, ErrorCode.INVALID_ARGUMENT, ErrorCode.NOT_FOUND,
        ErrorCode.AFFILIATE_NOT_PERMITTED, ErrorCode.IMAGE_TOO_LARGE,
    ],
)  # fmt: skip
def test_codes_that_the_guides_call_final_are_final(code: ErrorCode) -> None:
    assert RULES[code] is Rule.FINAL


def test_waits_grow_with_the_attempts() -> None:
    policy, rng = RetryPolicy(RetryConfig(max_attempts=5, base_s=1.0, cap_s=60.0)), random.Random(1)
    for attempts in (1, 2, 3):
        drawn = [policy.decide(ErrorCode.UNAVAILABLE, attempts=attempts, rng=rng) for _ in range(500)]
        longest = max(each.after_s for each in drawn if isinstance(each, Resend))
        assert longest == pytest.approx(2.0 ** (attempts - 1), rel=0.05)


class TestModelError:
    def test_is_retried_twice_after_a_delay(self) -> None:
        config = RetryConfig(max_attempts=10, base_s=0.5)
        for errors in (1, 2):
            resend = decide(ErrorCode.MODEL_ERROR, errors, config, model_errors=errors)
            assert isinstance(resend, Resend)
            assert resend.after_s >= 0.5
        assert isinstance(decide(ErrorCode.MODEL_ERROR, 3, config, model_errors=3), GiveUp)

    def test_other_reasons_for_attempts_do_not_use_its_retries_up(self) -> None:
        config = RetryConfig(max_attempts=10)
        assert isinstance(decide(ErrorCode.MODEL_ERROR, 6, config, model_errors=1), Resend)

    def test_is_final_for_an_image_that_cannot_be_classified(self) -> None:
        message = "Image Classification Error: wrong size"
        assert not message_is_retryable(message)
        assert message_is_retryable("model is warming up")
        assert isinstance(
            decide(ErrorCode.MODEL_ERROR, model_errors=1, message_retryable=message_is_retryable(message)), GiveUp
        )


def test_unspecified_is_retried_once() -> None:
    assert isinstance(decide(ErrorCode.UNSPECIFIED, 1), Resend)
    assert isinstance(decide(ErrorCode.UNSPECIFIED, 2), GiveUp)


def test_unauthenticated_asks_for_a_new_token_once() -> None:
    assert decide(ErrorCode.UNAUTHENTICATED) == Resend(0.0, refresh_credentials=True)
    assert isinstance(decide(ErrorCode.UNAUTHENTICATED, 2, refreshed=True), GiveUp)


@pytest.mark.parametrize("code", list(ErrorCode))
def test_at_most_once_never_resends(code: ErrorCode) -> None:
    assert isinstance(decide(code, config=RetryConfig(at_most_once=True), model_errors=1), GiveUp)


def test_servers_pushback_is_heeded() -> None:
    resend = decide(ErrorCode.UNAVAILABLE, pushback_s=7.0)
    assert isinstance(resend, Resend)
    assert resend.after_s >= 7.0
    assert isinstance(decide(ErrorCode.UNAVAILABLE, pushback_s=-1.0), GiveUp)


def test_deadline_before_the_next_attempt_gives_up() -> None:
    assert isinstance(decide(ErrorCode.UNAVAILABLE, pushback_s=7.0, remaining_s=6.0), GiveUp)
    assert isinstance(decide(ErrorCode.UNAVAILABLE, pushback_s=7.0, remaining_s=20.0), Resend)


class TestBudget:
    def test_starts_full_and_grants_what_it_has(self) -> None:
        budget = RetryBudget(100, 0.1)
        assert budget.try_spend(60) == 60
        assert budget.try_spend(60) == 40
        assert budget.try_spend(60) == 0
        assert budget.snapshot().refused == 80

    def test_ten_first_sends_earn_one_resend(self) -> None:
        budget = RetryBudget(100, 0.1)
        budget.try_spend(100)
        for _ in range(9):
            budget.first_send(1)
        assert budget.available == 0
        budget.first_send(1)
        assert budget.available == 1

    def test_never_holds_more_than_its_capacity(self) -> None:
        budget = RetryBudget(5, 1.0)
        budget.first_send(1000)
        assert budget.available == 5

    def test_takes_back_what_was_not_sent(self) -> None:
        budget = RetryBudget(10, 0.1)
        budget.try_spend(10)
        budget.refund(4)
        assert budget.available == 4
        assert budget.snapshot().granted == 6

    def test_without_capacity_grants_nothing(self) -> None:
        assert RetryBudget(0, 0.0).try_spend(5) == 0
