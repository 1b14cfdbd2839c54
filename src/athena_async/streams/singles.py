"""ClassifySingle: one image, one call, whose answer can only be its own.

Used by `AthenaClient.classify_single`, and to settle the suspects of a global error, each by itself.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator

import anyio

from athena_async import wire
from athena_async.channels.channel import CallFailed
from athena_async.channels.health import HealthBoard
from athena_async.channels.unary import UnaryCalls
from athena_async.config import RetryConfig
from athena_async.errors import ErrorCode
from athena_async.resilience.limits import ImageLimit
from athena_async.resilience.retry import GiveUp, RetryBudget, RetryPolicy, message_is_retryable
from athena_async.results import ClassificationResult, Outcome
from athena_async.streams.settlement import Settlement, too_large_message
from athena_async.streams.ticket import Ticket, service_failure

_BARRED_S = 60.0
_HEARD_AT_ONCE = 8
# After these the service may have classified the image all the same.
_POSSIBLY_CLASSIFIED = frozenset({ErrorCode.UNAVAILABLE, ErrorCode.DEADLINE_EXCEEDED, ErrorCode.INTERNAL})


class SingleCalls:
    """Asks for one image at a time, and again where the retry policy and the budget allow."""

    def __init__(
        self,
        config: RetryConfig,
        unary: UnaryCalls,
        health: HealthBoard,
        budget: RetryBudget,
        image_limit: ImageLimit,
        resent: Callable[[int], None],
        rng: random.Random,
    ) -> None:
        self._policy = RetryPolicy(config)
        self._unary = unary
        self._health = health
        self._budget = budget
        self._image_limit = image_limit
        self._resent = resent
        self._rng = rng
        self._clock = asyncio.get_running_loop().time

    async def ask(self, ticket: Ticket, frame: wire.Frame) -> ClassificationResult:
        """The image's result. Never raises for the service's faults. Cancelling cancels the call under way.

        Where it was sent before, the budget has granted this send; it is given back if it is not made.
        """
        if self._image_limit.takes(frame.size_bytes):
            return await self._ask(ticket, frame)
        if ticket.attempts:
            self._budget.refund(1)
        return self._failed(ticket, _too_large(frame), ticket.attempts > 0)

    async def _ask(self, ticket: Ticket, frame: wire.Frame) -> ClassificationResult:
        possibly_classified = ticket.attempts > 0
        while True:
            remaining_s = ticket.deadline_s - self._clock()
            # A suspect may be settled meanwhile by an answer on a stream; asking again would be billed.
            if remaining_s <= 0 or ticket.settled:
                if ticket.attempts:
                    self._budget.refund(1)
                over = CallFailed(ErrorCode.DEADLINE_EXCEEDED, "its deadline is over")
                return self._failed(ticket, over, possibly_classified)
            if ticket.attempts:
                self._resent(1)
            else:
                self._budget.first_send(1)
            ticket.attempts += 1
            endpoint = self._rng.choice(self._health.eligible(self._clock()))
            try:
                answer = await self._unary.classify_single(endpoint, frame, remaining_s)
            except CallFailed as error:
                failure = self._final_where_too_large(frame, error)
                possibly_classified |= failure.code in _POSSIBLY_CLASSIFIED
                after_s = self._retry_s(ticket, failure.code, True, failure.pushback_s)
                if after_s is None:
                    return self._failed(ticket, failure, possibly_classified)
            else:
                if answer.error is None:
                    return ticket.classified(answer.classifications, self._clock())
                after_s = self._after_image_error(ticket, answer.error)
                if after_s is None:
                    return service_failure(ticket, answer.error, self._clock())
            await asyncio.sleep(after_s)

    def _final_where_too_large(self, frame: wire.Frame, failure: CallFailed) -> CallFailed:
        if failure.refused_size is None:
            return failure
        self._image_limit.refused(frame.size_bytes, failure.refused_size.allowed_bytes)
        return _too_large(frame)

    def _after_image_error(self, ticket: Ticket, error: wire.ServiceError) -> float | None:
        ticket.erred(error)
        return self._retry_s(ticket, error.code, message_is_retryable(error.message), None)

    def _retry_s(
        self, ticket: Ticket, code: ErrorCode, message_retryable: bool, pushback_s: float | None
    ) -> float | None:
        """Seconds to wait before the next attempt; None for none. A refused token was refreshed below us."""
        decision = self._policy.decide(
            code,
            attempts=ticket.attempts,
            rng=self._rng,
            message_retryable=message_retryable,
            model_errors=ticket.model_errors,
            refreshed=True,
            pushback_s=pushback_s,
            remaining_s=ticket.deadline_s - self._clock(),
        )
        if isinstance(decision, GiveUp) or not self._budget.try_spend(1):
            return None
        return decision.after_s

    def _failed(self, ticket: Ticket, failure: CallFailed, possibly_classified: bool) -> ClassificationResult:
        outcome = Outcome.UNKNOWN if possibly_classified else Outcome.FAILED
        return ticket.result(outcome, self._clock(), failure.code, failure.message)


def _too_large(frame: wire.Frame) -> CallFailed:
    return CallFailed(ErrorCode.IMAGE_TOO_LARGE, too_large_message(frame.size_bytes))


class SuspectHearing:
    """Settles the suspects of a global error, one image in a call, a few calls at once.

    Invariants: a suspect is failed only by an answer that was its own, or its affiliate's; an affiliate that the
    service does not permit is remembered for a minute, so that its other images are not sent at all; all hearings
    together have at most ``_HEARD_AT_ONCE`` suspects before them.
    """

    def __init__(self, singles: SingleCalls, settlement: Settlement, budget: RetryBudget) -> None:
        self._singles = singles
        self._settlement = settlement
        self._budget = budget
        self._clock = asyncio.get_running_loop().time
        self._barred: dict[str, tuple[str, float]] = {}
        self._places = anyio.CapacityLimiter(_HEARD_AT_ONCE)

    def __repr__(self) -> str:
        return f"SuspectHearing(barred={list(self._barred)})"

    def is_barred(self, affiliate: str) -> bool:
        """Whether the service does not permit the affiliate, by its own recent word."""
        if affiliate in self._barred and self._barred[affiliate][1] <= self._clock():
            del self._barred[affiliate]
        return affiliate in self._barred

    @property
    def bars_any(self) -> bool:
        """Whether any affiliate is known not to be permitted."""
        return bool(self._barred)

    def settle_barred(self, tickets: list[Ticket]) -> list[Ticket]:
        """Fails images of barred affiliates without sending them; returns the others."""
        for ticket in tickets:
            if self.is_barred(ticket.affiliate):
                message, _ = self._barred[ticket.affiliate]
                self._settlement.fail([ticket], Outcome.FAILED, ErrorCode.AFFILIATE_NOT_PERMITTED, message)
        return [ticket for ticket in tickets if not ticket.settled]

    async def hear(self, suspects: list[Ticket], error: wire.ServiceError) -> None:
        """Settles each suspect, in their order. Cancelling leaves the rest to whoever closes the client."""
        line = iter(suspects)
        async with anyio.create_task_group() as tasks:
            for _ in range(min(_HEARD_AT_ONCE, len(suspects))):
                tasks.start_soon(self._hear_from, line, error)

    async def _hear_from(self, line: Iterator[Ticket], error: wire.ServiceError) -> None:
        for ticket in line:
            async with self._places:
                await self._hear_one(ticket, error)

    async def _hear_one(self, ticket: Ticket, error: wire.ServiceError) -> None:
        frame = ticket.frame
        if ticket.settled or frame is None or not self.settle_barred([ticket]):
            return
        if not self._budget.try_spend(1):
            message = f"one request of several failed ({error.text}), and no resend is left in the budget"
            self._settlement.fail([ticket], Outcome.UNKNOWN, error.code, message)
        else:
            self._conclude(ticket, await self._singles.ask(ticket, frame))

    def _conclude(self, ticket: Ticket, result: ClassificationResult) -> None:
        if result.error is not None and result.error.code is ErrorCode.AFFILIATE_NOT_PERMITTED:
            self._barred[ticket.affiliate] = (result.error.message, self._clock() + _BARRED_S)
        self._settlement.settle([(ticket, result)])
