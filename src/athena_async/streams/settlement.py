"""The end of an image: its one result, and everything that was held for it given back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from athena_async.errors import ErrorCode
from athena_async.events import Event, ImagesSettled
from athena_async.resilience.limits import InFlightLimit
from athena_async.results import ClassificationResult, Outcome
from athena_async.streams.demultiplexer import Demultiplexer
from athena_async.streams.ticket import Ticket


@dataclass(slots=True)
class Totals:
    """Counts over the client's life."""

    accepted_count: int = 0
    settled_count: int = 0
    resent_count: int = 0
    late_count: int = 0
    foreign_count: int = 0
    foreign_dropped_count: int = 0
    sent_bytes: int = 0
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    errors: Counter[ErrorCode] = field(default_factory=Counter)


def too_large_message(request_bytes: int, max_bytes: int | None = None) -> str:
    """What is said of an image that alone makes a request larger than the server takes, or than ``batching.max_bytes``
    where that is given."""
    if max_bytes is not None:
        return (
            f"its request would have {request_bytes} bytes, batching.max_bytes is {max_bytes}: "
            "let it be resized (resize=True), or raise batching.max_bytes if the service takes more"
        )
    return (
        f"the server refuses requests of {request_bytes} bytes: "
        "have less sent (encoding='webp'), or raise its limit and open the client anew"
    )


class Settlement:
    """Settles images.

    Invariants: a settled image stands in no table, holds no place in the limit and no frame, and
    its sink was called once, unless nobody waits for it.
    """

    def __init__(
        self,
        demultiplexer: Demultiplexer,
        limit: InFlightLimit,
        emit: Callable[[Event], None],
        clock: Callable[[], float],
        emptied: Callable[[], None],
    ) -> None:
        self.totals = Totals()
        self._demultiplexer = demultiplexer
        self._limit = limit
        self._emit = emit
        self._clock = clock
        self._emptied = emptied

    def settle(self, results: Iterable[tuple[Ticket, ClassificationResult]]) -> None:
        """Ends images with their results. Those that are settled already are passed over."""
        outcomes: dict[Outcome, int] = {}
        errors: dict[ErrorCode, int] = {}
        images = classified = size_bytes = 0
        slowest_s = 0.0
        forget = self._demultiplexer.forget
        for ticket, result in results:
            if ticket.settled:
                continue
            forget(ticket)
            ticket.settle()
            images += 1
            size_bytes += ticket.reserved_bytes
            if result.error is None:
                classified += 1
            else:
                outcomes[result.outcome] = outcomes.get(result.outcome, 0) + 1
                errors[result.error.code] = errors.get(result.error.code, 0) + 1
            slowest_s = max(slowest_s, result.latency_s)
            sink = ticket.sink
            if not sink.abandoned:
                sink.deliver(result)
        if classified:
            outcomes[Outcome.CLASSIFIED] = classified
        if images:
            self._account(images, size_bytes, outcomes, errors)
            self._emit(ImagesSettled(self._clock(), outcomes, errors, slowest_s))

    def fail(
        self,
        tickets: Sequence[Ticket],
        outcome: Outcome,
        code: ErrorCode,
        message: str,
        *,
        retryable: bool | None = None,
    ) -> None:
        """Ends images that share a reason."""
        now = self._clock()
        self.settle([(t, t.result(outcome, now, code, message, retryable=retryable)) for t in tickets])

    def too_large(self, ticket: Ticket, request_bytes: int, max_bytes: int | None = None) -> None:
        """Ends an image that alone makes a request larger than the server takes, or than ``max_bytes``."""
        outcome = Outcome.UNKNOWN if ticket.is_unanswered else Outcome.FAILED
        self.fail([ticket], outcome, ErrorCode.IMAGE_TOO_LARGE, too_large_message(request_bytes, max_bytes))

    def _account(
        self, images: int, size_bytes: int, outcomes: Mapping[Outcome, int], errors: Mapping[ErrorCode, int]
    ) -> None:
        self._limit.release(images, size_bytes)
        self.totals.settled_count += images
        for outcome, count in outcomes.items():
            self.totals.outcomes[outcome] += count
        for code, count in errors.items():
            self.totals.errors[code] += count
        if not self._demultiplexer:
            self._emptied()
