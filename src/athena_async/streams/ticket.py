"""One image on its way, and the batch it travels in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from athena_async.errors import ClassificationError, ErrorCode
from athena_async.images.inputs import Kind, Source
from athena_async.resilience.retry import message_is_retryable
from athena_async.results import Classification, ClassificationResult, Outcome
from athena_async.wire import Frame, ServiceError

# A member of an enumeration is looked up by a call; this one is asked for once an image.
_CLASSIFIED = Outcome.CLASSIFIED
_GONE = Source(Kind.HASHES, None, 0)


class Sink(Protocol):
    """Where results of one call go. ``abandoned`` means nobody waits for them any more."""

    abandoned: bool

    def deliver(self, result: ClassificationResult) -> None: ...


class Ticket:
    """One accepted image.

    Invariants: settled once and never again; in at most one batch; ``attempts`` counts the batches and single calls
    that carried it, and ``counted_attempts`` those that were counted, as a first send or as a resend, when a writer
    took them: one that comes back unread is not counted again; ``last_error`` is the service's last word on the
    first ``erred_attempts`` of them, later ones are unanswered; ``heard`` once it was handed to a hearing, which
    alone sends it from then on; ``frame`` is there from preparation to settlement, so that it can be sent again,
    and ``source`` until then.
    """

    __slots__ = (
        "accepted_s",
        "affiliate",
        "attempts",
        "batch",
        "correlation_id",
        "counted_attempts",
        "deadline_s",
        "erred_attempts",
        "frame",
        "frame_bytes",
        "heard",
        "index",
        "last_error",
        "model_errors",
        "ready_s",
        "reserved_bytes",
        "settled",
        "sink",
        "source",
    )

    def __init__(
        self,
        correlation_id: str,
        index: int,
        affiliate: str,
        source: Source,
        sink: Sink,
        reserved_bytes: int,
        accepted_s: float,
        deadline_s: float,
    ) -> None:
        self.correlation_id = correlation_id
        self.index = index
        self.affiliate = affiliate
        self.source = source
        self.sink = sink
        self.reserved_bytes = reserved_bytes
        self.accepted_s = accepted_s
        self.deadline_s = deadline_s
        self.ready_s = 0.0
        self.frame: Frame | None = None
        self.frame_bytes = 0
        self.batch: Batch | None = None
        self.counted_attempts = 0
        self.attempts = 0
        self.model_errors = 0
        self.last_error: ServiceError | None = None
        self.erred_attempts = 0
        self.heard = False
        self.settled = False

    def __repr__(self) -> str:
        state = "settled" if self.settled else "in flight" if self.batch else "ready" if self.frame else "accepted"
        return f"Ticket({self.correlation_id}, {state}, attempts={self.attempts})"

    def prepared(self, frame: Frame) -> None:
        """Preprocessing is over; the original is let go."""
        self.frame = frame
        self.frame_bytes = len(frame.head) + len(frame.data)
        self.source = _GONE

    @property
    def is_unanswered(self) -> bool:
        """Whether it was sent and the service has not said what came of it: it may have been classified."""
        return self.attempts > self.erred_attempts

    def erred(self, error: ServiceError) -> None:
        """The service answered with an error."""
        self.last_error = error
        self.erred_attempts = self.attempts
        if error.code is ErrorCode.MODEL_ERROR:
            self.model_errors += 1

    def discount_unwritten(self) -> None:
        """Before it ends: a batch that still waited for its stream's writer was not sent, and no attempt."""
        if self.batch is not None and not self.batch.written:
            self.attempts -= 1

    def settle(self) -> None:
        """Ends the image and lets go of its bytes."""
        self.settled = True
        if self.batch is not None:
            self.batch.expired(self)
        self.frame = None
        self.source = _GONE

    def classified(self, classifications: tuple[Classification, ...], now: float) -> ClassificationResult:
        """The result of an image that the service classified."""
        return ClassificationResult(
            self.correlation_id, self.index, _CLASSIFIED, classifications, None, self.attempts, now - self.accepted_s
        )

    def result(
        self,
        outcome: Outcome,
        now: float,
        code: ErrorCode,
        message: str,
        *,
        retryable: bool | None = None,
    ) -> ClassificationResult:
        """A result without classifications."""
        error = ClassificationError(code, message, correlation_id=self.correlation_id, retryable=retryable)
        return ClassificationResult(
            self.correlation_id, self.index, outcome, (), error, self.attempts, now - self.accepted_s
        )


def service_failure(ticket: Ticket, error: ServiceError, now: float) -> ClassificationResult:
    """The result of an image whose error is the service's last word."""
    retryable = error.code.retryable and message_is_retryable(error.message)
    return ticket.result(Outcome.FAILED, now, error.code, error.text, retryable=retryable)


class Carrier(Protocol):
    """What a batch travels on. It is told when the batch is over."""

    endpoint: str

    def finished(self, batch: Batch, now: float) -> None:
        """The last image was answered."""

    def release(self, batch: Batch) -> list[Ticket]:
        """Nobody waits for the batch any more; its open images are returned."""


class Batch:
    """Images that leave in one request.

    Attributes:
        open_count: how many of them are unanswered.
        size_bytes: their frames, without the request's own head.
        sent_s, progress_s: when it was handed to the stream; when it or one of its answers last moved.
        in_flight, queue_depth: batches unanswered on the endpoint once all had left that left together with this
            one, and images left waiting behind it.
        written: whether the stream's writer took it; before, it is known not to be sent.
        was_read: whether the service read it: one of its images was answered that no other request had carried.
        new_count, resent: how many of its images no writer took before, and how many had been sent before; known once
            it is written, since until then some may be settled, and all may come back unsent.
    """

    __slots__ = (
        "carrier",
        "in_flight",
        "new_count",
        "open_count",
        "progress_s",
        "queue_depth",
        "resent",
        "sent_s",
        "size_bytes",
        "tickets",
        "was_read",
        "written",
    )

    def __init__(
        self,
        tickets: Sequence[Ticket],
        size_bytes: int,
        carrier: Carrier,
        now: float,
        *,
        in_flight: int = 0,
        queue_depth: int = 0,
    ) -> None:
        self.tickets = tickets
        self.size_bytes = size_bytes
        self.carrier = carrier
        self.open_count = len(tickets)
        self.written = self.was_read = False
        self.sent_s = now
        self.progress_s = now
        self.in_flight = in_flight
        self.queue_depth = queue_depth
        self.new_count = self.resent = 0
        for ticket in tickets:
            ticket.batch = self
            ticket.attempts += 1

    def __repr__(self) -> str:
        return f"Batch({self.open_count} of {len(self.tickets)} images open, {self.size_bytes} bytes)"

    @property
    def is_begun(self) -> bool:
        """Whether some of its images are answered, or over."""
        return self.open_count < len(self.tickets)

    def leave(self) -> list[Frame]:
        """The stream's writer takes it: returns the frames of those images that were not settled while it waited."""
        self.written = True
        frames: list[Frame] = []
        for ticket in self.open_tickets():
            attempts = ticket.attempts
            if attempts > ticket.counted_attempts:
                self.new_count += not ticket.counted_attempts
                self.resent += attempts > 1
                ticket.counted_attempts = attempts
            if ticket.frame is not None:
                frames.append(ticket.frame)
        return frames

    def answered(self, ticket: Ticket, now: float) -> None:
        """One of the images has its answer."""
        ticket.batch = None
        self.was_read = self.was_read or ticket.attempts == 1
        self.progress_s = now
        self.open_count -= 1
        if not self.open_count:
            self.carrier.finished(self, now)

    def expired(self, ticket: Ticket) -> None:
        """Nobody waits for one of the images any more."""
        ticket.batch = None
        self.open_count -= 1
        if not self.open_count:
            self.carrier.release(self)

    def open_tickets(self) -> list[Ticket]:
        """The images that still wait for an answer in this batch."""
        return [ticket for ticket in self.tickets if ticket.batch is self and not ticket.settled]

    def release(self) -> list[Ticket]:
        """Takes the open images out of the batch, which is over."""
        left = self.open_tickets()
        for ticket in left:
            ticket.batch = None
        self.open_count = 0
        return left
