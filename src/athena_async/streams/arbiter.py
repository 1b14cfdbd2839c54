"""What becomes of each image that was sent: its answer, its error, the loss of its stream, its deadline.

Every decision is here and synchronous; the engine around it calls in when something happened, and `tick` when
time passed.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from athena_async import wire
from athena_async.channels.channel import CallFailed
from athena_async.config import RetryConfig
from athena_async.errors import ErrorCode
from athena_async.events import Event, GlobalErrorReceived, ImagesRecovered
from athena_async.resilience.retry import GiveUp, RetryBudget, RetryPolicy, message_is_retryable
from athena_async.results import ClassificationResult, Outcome
from athena_async.streams.deadlines import Deadlines
from athena_async.streams.demultiplexer import Demultiplexer
from athena_async.streams.inquest import Inquest
from athena_async.streams.loss import Loss, LostBatch
from athena_async.streams.recovery import LatencyEstimate, Recovery
from athena_async.streams.session import Session
from athena_async.streams.settlement import Settlement
from athena_async.streams.ticket import Batch, Ticket, service_failure

_STALL_S = 0.5
_READ_FIRST_S = 1.0


@dataclass(frozen=True, slots=True)
class ArbiterHooks:
    """What an arbiter asks of the engine. Called on the event loop; none blocks."""

    send_again: Callable[[list[Ticket]], None]
    hold: Callable[[bool], None]
    """True: no batch leaves until False."""
    settle_alone: Callable[[list[Ticket], wire.ServiceError], None]
    in_flight: Callable[[], list[Batch]]
    timed_out: Callable[[Batch], None]
    refused_size: Callable[[str, int, int | None], None]
    strays: Callable[[int, list[wire.Answer]], None]
    emit: Callable[[Event], None]


class Arbiter:
    """Judges.

    Invariants: a ticket with an answer is settled or waits for a resend that the budget granted; a ticket
    that was possibly sent is never resent before `Recovery` says so; one that is heard is not resent from here;
    while an inquest lasts no batch leaves the batcher.
    """

    def __init__(
        self,
        config: RetryConfig,
        demultiplexer: Demultiplexer,
        settlement: Settlement,
        budget: RetryBudget,
        hooks: ArbiterHooks,
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self.latency = LatencyEstimate()
        self.recovery = Recovery(config, self.latency)
        self.deadlines = Deadlines()
        self.last_failure: CallFailed | None = None
        self._config = config
        self._policy = RetryPolicy(config)
        self._demultiplexer = demultiplexer
        self._settlement = settlement
        self._budget = budget
        self._hooks = hooks
        self._clock = clock
        self._rng = rng
        self._inquest: Inquest | None = None
        self._patient_until_s = 0.0

    def __repr__(self) -> str:
        return f"Arbiter({self.recovery!r}, inquest={self._inquest!r})"

    @property
    def is_busy(self) -> bool:
        """Whether `tick` should come often."""
        return self._inquest is not None or bool(self.recovery)

    @property
    def reads_first(self) -> bool:
        """Whether the event loop stood still just now: answers may lie unread, so silence means nothing yet."""
        return self._clock() < self._patient_until_s

    def received(self, session: Session, response: wire.Response) -> None:
        """A response came, on whatever stream."""
        now = self._clock()
        if response.global_error is not None:
            self._global_error(session, response.global_error, now)
        routed = self._demultiplexer.route(response.answers)
        late_count = routed.late_count
        recovered_count = 0
        answered: list[Ticket] = []
        results: list[tuple[Ticket, ClassificationResult]] = []
        is_inquest = self._inquest is not None
        for ticket, answer in routed.matched:
            batch = ticket.batch
            if batch is not None:
                batch.answered(ticket, now)
            elif self.recovery.answered(ticket, now):
                recovered_count += 1
            elif answer.error is not None and (ticket.heard or not ticket.is_unanswered):
                # Its hearing asks for it; or this is again the error for which it waits to be resent.
                late_count += 1
                continue
            if is_inquest:
                answered.append(ticket)
            if answer.error is None:
                results.append((ticket, ticket.classified(answer.classifications, now)))
            elif (result := self._judge(ticket, answer.error, now)) is not None:
                results.append((ticket, result))
        self._settlement.settle(results)
        if self._inquest is not None and answered:
            self._inquest.answered(answered, now)
        if recovered_count:
            self._hooks.emit(ImagesRecovered(now, recovered_count, 0))
        if late_count or routed.foreign:
            self._hooks.strays(late_count, routed.foreign)

    def lost(self, session: Session, loss: Loss) -> None:
        """A stream ended with images on it."""
        now = self._clock()
        self.last_failure = loss.failure
        refused = loss.refused_size
        if refused is not None:
            self._hooks.refused_size(session.endpoint, *refused)
        for lost in loss.batches:
            too_large = refused is not None and self._is_too_large(lost, refused)
            if self._inquest is not None and (too_large or lost.unsent):
                self._inquest.unread(lost.tickets)
            if too_large:
                self._split(lost)
            elif lost.unsent:
                self._hooks.send_again(lost.tickets)
            else:
                self.recovery.orphan(lost.tickets, now)

    def overdue(self, batches: Iterable[Batch]) -> None:
        """The service left these images out: they are orphans though their stream lives."""
        for batch in batches:
            self.recovery.orphan(batch.carrier.release(batch), self._clock())

    def tick(self, late_s: float = 0.0) -> int:
        """Time passed: ends inquests, resends what is due, gives up what is over its deadline; returns how many.

        ``late_s``: how much later than planned the event loop came to it. After a stall answers may lie unread
        in the sockets, so nothing is given up or sent again before they were read.
        """
        now = self._clock()
        if late_s > _STALL_S:
            self.recovery.stalled(now)
            self._patient_until_s = now + _READ_FIRST_S
        if self.reads_first:
            return 0
        if self._inquest is not None:
            if self._inquest.is_over(now, self.recovery.grace_s):
                self._conclude(self._inquest)
        else:
            self._resend_due(now)
        return self._expire(now)

    def _judge(self, ticket: Ticket, error: wire.ServiceError, now: float) -> ClassificationResult | None:
        """The result of an image that was answered with an error, or None where it will be sent again."""
        if error.code is ErrorCode.CORRELATION_ID_INVALID and ticket.attempts > 1:
            # The id is taken by our own earlier send: the service works on it still, and will answer that.
            self.recovery.orphan([ticket], now)
            return None
        ticket.erred(error)
        if not self._resend_later(ticket, error, now):
            return service_failure(ticket, error, now)
        return None

    def _resend_later(self, ticket: Ticket, error: wire.ServiceError, now: float) -> bool:
        decision = self._policy.decide(
            error.code,
            attempts=ticket.attempts,
            rng=self._rng,
            message_retryable=message_is_retryable(error.message),
            model_errors=ticket.model_errors,
            remaining_s=ticket.deadline_s - now,
        )
        if isinstance(decision, GiveUp) or ticket.sink.abandoned or not self._budget.try_spend(1):
            return False
        asyncio.get_running_loop().call_later(decision.after_s, self._send_again, ticket)
        return True

    def _send_again(self, ticket: Ticket) -> None:
        if ticket.settled:
            self._budget.refund(1)
        else:
            self._hooks.send_again([ticket])

    def _is_too_large(self, lost: LostBatch, refused: tuple[int, int | None]) -> bool:
        sent_bytes, allowed_bytes = refused
        if lost.was_read:
            return False
        return lost.request_bytes == sent_bytes or (allowed_bytes is not None and lost.request_bytes > allowed_bytes)

    def _split(self, lost: LostBatch) -> None:
        """The server refused the request unread: its images go in smaller ones, but for those that the batcher now
        knows to be too large by themselves."""
        for ticket in lost.tickets:
            ticket.attempts -= not lost.unsent
        self._hooks.send_again(lost.tickets)

    def _global_error(self, session: Session, error: wire.ServiceError, now: float) -> None:
        if self._inquest is not None:
            self._inquest.another(error, now)
            return
        in_flight = self._hooks.in_flight()
        self._inquest = Inquest(error, in_flight, self.recovery.tickets(), now)
        self._hooks.hold(True)
        suspects = len(self._inquest.suspects())
        self._hooks.emit(GlobalErrorReceived(now, session.endpoint, error.code, error.text, suspects))

    def _conclude(self, inquest: Inquest) -> None:
        suspects = inquest.suspects()
        self._inquest = None
        for ticket in suspects:
            self.recovery.discard(ticket)
            if ticket.batch is not None:
                ticket.batch.expired(ticket)
        self._hooks.hold(False)
        if inquest.error.code is ErrorCode.DEPLOYMENT_ID_INVALID:
            # This error is about the deployment, which all of its images share.
            self._settlement.fail(suspects, Outcome.FAILED, inquest.error.code, inquest.error.text)
        elif self._config.at_most_once:
            message = f"one request of several failed ({inquest.error.text}) and at_most_once forbids asking again"
            self._settlement.fail(suspects, Outcome.UNKNOWN, inquest.error.code, message)
        elif suspects:
            for ticket in suspects:
                ticket.heard = True
            self._hooks.settle_alone(suspects, inquest.error)

    def _resend_due(self, now: float) -> None:
        due = self.recovery.due(now)
        if not due:
            return
        limit = 1 if self._config.at_most_once else self._config.max_attempts
        # What nobody waits for any more is not worth a bill.
        spent = [ticket for ticket in due if ticket.attempts >= limit or ticket.sink.abandoned]
        again = [ticket for ticket in due if ticket.attempts < limit and not ticket.sink.abandoned]
        granted = self._budget.try_spend(len(again)) if again else 0
        self._settlement.fail(spent, Outcome.UNKNOWN, ErrorCode.UNAVAILABLE, self._lost_message(spent))
        self.recovery.orphan(again[granted:], now)
        if granted:
            self._hooks.send_again(again[:granted])
            self._hooks.emit(ImagesRecovered(now, 0, granted))

    def _lost_message(self, tickets: Sequence[Ticket]) -> str:
        sent = max((ticket.attempts for ticket in tickets), default=0)
        why = f": {self.last_failure.message}" if self.last_failure else ""
        return f"sent {sent} times, but no answer came before its stream was lost{why}"

    def _expire(self, now: float) -> int:
        expired = self.deadlines.expired(now)
        for batch in dict.fromkeys(ticket.batch for ticket in expired if ticket.batch is not None):
            self._hooks.timed_out(batch)
        for ticket in expired:
            self.recovery.discard(ticket)
            ticket.discount_unwritten()
        self._settlement.settle([(ticket, self._expiry(ticket, now)) for ticket in expired])
        return len(expired)

    def _expiry(self, ticket: Ticket, now: float) -> ClassificationResult:
        waited = f"no answer within {now - ticket.accepted_s:.1f} s"
        if ticket.is_unanswered:
            message = f"{waited}; it was sent and may have been classified"
            return ticket.result(Outcome.UNKNOWN, now, ErrorCode.DEADLINE_EXCEEDED, message)
        if ticket.last_error is not None:
            return service_failure(ticket, ticket.last_error, now)
        failure = self.last_failure
        if failure is None:
            return ticket.result(Outcome.FAILED, now, ErrorCode.DEADLINE_EXCEEDED, f"{waited}; it was not sent")
        message = f"{waited}; it was not sent: {failure.message}"
        return ticket.result(Outcome.FAILED, now, failure.code, message)
