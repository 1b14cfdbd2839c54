"""Whether an image is sent again: the table of codes, and the budget that bounds all resends together.

Every resend may be billed, so three bounds hold at once: sends per image (`RetryPolicy`), resends per
first send across the client (`RetryBudget`), and the image's own deadline.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from enum import Enum
from typing import Final

from athena_async.config import RetryConfig
from athena_async.errors import ErrorCode
from athena_async.resilience.backoff import Backoff

UNCLASSIFIABLE_MARK: Final = "Image Classification Error"
"""Part of the service's message for an image that it cannot read: sending it again never helps."""


def message_is_retryable(message: str) -> bool:
    """Whether an image's error message leaves room for success later."""
    return UNCLASSIFIABLE_MARK not in message


@dataclass(frozen=True, slots=True)
class Resend:
    """Send the image again.

    Attributes:
        after_s: seconds to wait first.
        refresh_credentials: have a new token before it; the old one was refused.
    """

    after_s: float
    refresh_credentials: bool = False


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Settle the image with its error. ``reason`` is for people: why it is not sent again."""

    reason: str


Decision = Resend | GiveUp


class Rule(Enum):
    """What a code says about sending the same image again."""

    TRANSIENT = "retried with backoff"
    MODEL = "retried after a delay, model_error_retries times"
    ONCE = "retried once"
    CREDENTIALS = "retried once with a new token"
    FINAL = "never retried"


RULES: Final[dict[ErrorCode, Rule]] = {
    ErrorCode.UNAVAILABLE: Rule.TRANSIENT,
    ErrorCode.DEADLINE_EXCEEDED: Rule.TRANSIENT,
    ErrorCode.RESOURCE_EXHAUSTED: Rule.TRANSIENT,
    ErrorCode.MODEL_ERROR: Rule.MODEL,
    ErrorCode.UNSPECIFIED: Rule.ONCE,
    ErrorCode.UNAUTHENTICATED: Rule.CREDENTIALS,
    ErrorCode.IMAGE_TOO_LARGE: Rule.FINAL,
    ErrorCode.AFFILIATE_NOT_PERMITTED: Rule.FINAL,
    ErrorCode.DEPLOYMENT_ID_INVALID: Rule.FINAL,
    ErrorCode.CORRELATION_ID_INVALID: Rule.FINAL,
    ErrorCode.INVALID_INPUT: Rule.FINAL,
    ErrorCode.INVALID_IMAGE: Rule.FINAL,
    ErrorCode.UNSUPPORTED_FORMAT: Rule.FINAL,
    ErrorCode.PERMISSION_DENIED: Rule.FINAL,
    ErrorCode.INVALID_ARGUMENT: Rule.FINAL,
    ErrorCode.NOT_FOUND: Rule.FINAL,
    ErrorCode.UNIMPLEMENTED: Rule.FINAL,
    ErrorCode.CLOSED: Rule.FINAL,
    ErrorCode.INTERNAL: Rule.FINAL,
}
"""Every code has its row: a new one without is an error in the tests, not a silent default."""


class RetryPolicy:
    """Decides about one image after one error. Keeps nothing between calls.

    It does not touch the budget: whoever acts on a `Resend` asks `RetryBudget` as well.
    """

    def __init__(self, config: RetryConfig) -> None:
        self._config = config
        self._backoff = Backoff(config.base_s, config.cap_s)

    def __repr__(self) -> str:
        return f"RetryPolicy({self._config!r})"

    def decide(
        self,
        code: ErrorCode,
        *,
        attempts: int,
        rng: random.Random,
        message_retryable: bool = True,
        model_errors: int = 0,
        refreshed: bool = False,
        pushback_s: float | None = None,
        remaining_s: float = math.inf,
    ) -> Decision:
        """What to do with an image that came back with ``code``.

        Args:
            code: why the last send brought no classification.
            attempts: sends so far, the failed one included; at least 1.
            rng: draws the jitter.
            message_retryable: `message_is_retryable` of the image's error message.
            model_errors: MODEL_ERRORs of this image so far, this one included.
            refreshed: the token was renewed for this image before; a second refusal is final.
            pushback_s: seconds that the server asked to wait; a negative value means "do not retry".
            remaining_s: seconds to the image's deadline.
        """
        refusal = self._refusal(RULES[code], attempts, message_retryable, model_errors, refreshed)
        if refusal is not None:
            return GiveUp(refusal)
        if pushback_s is not None and pushback_s < 0:
            return GiveUp("the server asked not to retry")
        resend = self._resend(RULES[code], attempts, pushback_s or 0.0, rng)
        if resend.after_s >= remaining_s:
            return GiveUp("its deadline comes before the next attempt")
        return resend

    def _refusal(
        self, rule: Rule, attempts: int, message_retryable: bool, model_errors: int, refreshed: bool
    ) -> str | None:
        config = self._config
        reasons = {
            "the same image would fail again": rule is Rule.FINAL or not message_retryable,
            "at_most_once": config.at_most_once,
            "sent max_attempts times": attempts >= config.max_attempts,
            "model_error_retries are used up": rule is Rule.MODEL and model_errors > config.model_error_retries,
            "an unspecified error is retried once": rule is Rule.ONCE and attempts > 1,
            "refused with a fresh token too": rule is Rule.CREDENTIALS and refreshed,
        }
        return next((reason for reason, holds in reasons.items() if holds), None)

    def _resend(self, rule: Rule, attempts: int, pushback_s: float, rng: random.Random) -> Resend:
        if rule is Rule.CREDENTIALS:
            return Resend(pushback_s, refresh_credentials=True)
        # The service asks for a delay after a model error, and full jitter alone may draw almost none.
        floor_s = max(pushback_s, self._config.base_s) if rule is Rule.MODEL else pushback_s
        return Resend(self._backoff.delay_s(attempts - 1, rng, floor_s))


@dataclass(frozen=True, slots=True)
class BudgetState:
    """A `RetryBudget` for `AthenaClient.stats`: images it could resend now, resends granted and refused so far."""

    available: int
    granted: int
    refused: int


class RetryBudget:
    """A token bucket in images, one for the whole client.

    Invariants:
        * It starts full; ``0 <= tokens <= capacity``.
        * Resends granted never exceed ``capacity + ratio * first sends`` (refunds taken off), so that
          against a server that fails everything the added load falls to ``ratio`` once it is spent.

    Args:
        capacity: resends it holds when full.
        ratio: resends that each first send earns.
    """

    def __init__(self, capacity: int, ratio: float) -> None:
        self._capacity = capacity
        self._ratio = ratio
        self._tokens = float(capacity)
        self._granted = 0
        self._refused = 0

    def __repr__(self) -> str:
        return f"RetryBudget({self.available}/{self._capacity}, ratio={self._ratio}, granted={self._granted})"

    @property
    def available(self) -> int:
        """Images that `try_spend` would grant now."""
        return math.floor(self._tokens + 1e-6)  # ten tenths are one, whatever floats say

    def first_send(self, images: int) -> None:
        """``images`` were handed to the network for the first time: the budget earns."""
        self._tokens = min(self._capacity, self._tokens + self._ratio * images)

    def try_spend(self, images: int) -> int:
        """Returns how many of ``images`` may be sent again, from 0 to all, and takes them off."""
        granted = min(images, self.available)
        self._tokens = max(0.0, self._tokens - granted)
        self._granted += granted
        self._refused += images - granted
        return granted

    def refund(self, images: int) -> None:
        """``images`` that were granted were not sent after all: a late answer or a deadline came first."""
        self._tokens = min(self._capacity, self._tokens + images)
        self._granted -= images

    def snapshot(self) -> BudgetState:
        return BudgetState(self.available, self._granted, self._refused)
