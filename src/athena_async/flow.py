"""The way of an image from acceptance to its result: every part of it, wired. All of it synchronous.

The engine around it owns the tasks: it feeds prepared images in, calls `Flow.tick` when time passes, and
asks what the deployment holds.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from athena_async import events, wire
from athena_async.batching.batcher import Batcher
from athena_async.batching.controller import BatchController
from athena_async.channels.channel import Access, CallFailed
from athena_async.channels.health import HealthBoard
from athena_async.channels.pool import Pool
from athena_async.channels.unary import UnaryCalls
from athena_async.config import RAW_FRAME_BYTES, ClientConfig
from athena_async.errors import ClassificationError, ErrorCode
from athena_async.images.encode import has_webp
from athena_async.images.encoding import EncodingPolicy
from athena_async.images.workers import usable_cores
from athena_async.resilience.backoff import Backoff
from athena_async.resilience.limits import ImageLimit, InFlightLimit
from athena_async.resilience.retry import RetryBudget
from athena_async.results import DrainReport, Outcome
from athena_async.streams.arbiter import Arbiter, ArbiterHooks
from athena_async.streams.demultiplexer import CorrelationIds, Demultiplexer
from athena_async.streams.fleet import Fleet, FleetHooks
from athena_async.streams.foreign import ForeignResults
from athena_async.streams.recovery import RETENTION_S
from athena_async.streams.session import Session, SessionSettings
from athena_async.streams.settlement import Settlement
from athena_async.streams.singles import SingleCalls, SuspectHearing
from athena_async.streams.ticket import Batch, Sink, Ticket

Failed = Sequence[tuple[Ticket, ClassificationError]]

# A gRPC server at its defaults ends a connection with the fifth ping in a row that no request came between.
_PINGS_PER_REQUEST = 4
_BUSY_TICK_S = 0.05
_TICK_S = 0.25
_IDLE_TICK_S = 5.0
_AHEAD_BYTES = 16 * RAW_FRAME_BYTES
_REQUEST_PATIENCE = 0.8
"""Part of the interval of pings that one request may take on the link."""


class Flow:
    """The client's inside, without its tasks.

    Invariants: every accepted image stands in the demultiplexer until it is settled, and in exactly one of
    preparation, batcher, a batch, recovery, a hearing, or a retry timer.

    Attributes:
        attention: set when `tick` should come at once.
        empty: set while no image is open.
        hear: starts a task that settles suspects, each by itself; the engine's.
        left: told when frames left for the network, so that more may be prepared; the engine's.
    """

    def __init__(
        self,
        config: ClientConfig,
        deployment_id: str,
        access: Access,
        emit: Callable[[events.Event], None],
        rng: random.Random,
    ) -> None:
        self.deployment_id = deployment_id
        self.backlog: int | None = None
        self.attention = asyncio.Event()
        self.empty = asyncio.Event()
        self.empty.set()
        self.hear: Callable[[list[Ticket], wire.ServiceError], None] | None = None
        self.left: Callable[[], None] | None = None
        self._config = config
        self._emit = emit
        self._foreign_seen_s = float("-inf")
        self._clock = asyncio.get_running_loop().time

        limits, retry = config.limits, config.retry
        self.ids = CorrelationIds()
        self.demultiplexer = Demultiplexer(self.ids.prefix)
        self.limit = InFlightLimit(limits.max_in_flight, limits.max_in_flight_bytes)
        self.settlement = Settlement(self.demultiplexer, self.limit, emit, self._clock, self.empty.set)
        budget_images = limits.max_in_flight if retry.budget_images is None else retry.budget_images
        self.budget = RetryBudget(budget_images, retry.budget_ratio)
        self.health = HealthBoard(config.endpoints, config.breaker, rng)
        patience_s = _REQUEST_PATIENCE * config.pool.ping_interval_s
        # A request has a head beside its images.
        self._frames_bytes = max(1, config.batching.max_bytes - len(wire.request_head(deployment_id)))
        batching = replace(config.batching, max_bytes=self._frames_bytes)
        self.controllers = {endpoint: BatchController(batching, patience_s) for endpoint in config.endpoints}
        self.image_limit = ImageLimit()
        self.foreign = ForeignResults(limits.foreign_results)
        self.encoding = EncodingPolicy(config.preprocess.threads or usable_cores(), webp=has_webp())
        self.unary = UnaryCalls(access, config.pool.max_age_s, rng)
        self.arbiter = Arbiter(
            retry, self.demultiplexer, self.settlement, self.budget, self._arbiter_hooks(), self._clock, rng
        )
        self.singles = SingleCalls(
            retry, self.unary, self.health, self.budget, self.image_limit, self._count_resent, rng
        )
        self.hearing = SuspectHearing(self.singles, self.settlement, self.budget)
        pool: Pool[Session] = Pool(config.endpoints, config.pool, self.health, rng)
        self.fleet = Fleet(pool, self.health, config.pool, self._session_settings(), access, self._fleet_hooks(), rng)
        self.batcher: Batcher[Session] = Batcher(
            self.controllers,
            pool.pick,
            self.fleet.sent,
            self._refuse_too_large,
            config.batching.linger_s,
            self.fleet.in_flight_limit,
        )

    def __repr__(self) -> str:
        return f"Flow({self.limit!r}, {self.batcher!r}, {self.fleet!r}, {self.arbiter!r})"

    def encoding_now(self) -> str:
        """What preprocessing makes of pixels at this moment."""
        choice = self._config.preprocess.encoding
        return self.encoding.choose(self._clock()) if choice == "auto" else choice

    @property
    def encoding_reason(self) -> str:
        """Why it makes that of them."""
        return self.encoding.snapshot().reason if self._config.preprocess.encoding == "auto" else "configured"

    def may_prepare(self) -> bool:
        """Whether preprocessing should go on.

        Frames that wait for a slow network are bounded, beyond the batches that wait with their writers already: they
        were encoded for the network as it was, and only the later ones profit from what was learnt since.
        """
        return self.batcher.ready_bytes + self.fleet.unwritten_bytes < _AHEAD_BYTES

    def accept(self, tickets: Sequence[Ticket]) -> list[tuple[Ticket, ClassificationError]]:
        """Takes in images that hold places in the limit. Returns those whose id is in flight already."""
        self.empty.clear()
        self.settlement.totals.accepted_count += len(tickets)
        self._emit(events.ImagesAccepted(self._clock(), len(tickets)))
        if not self.arbiter.deadlines:
            self.attention.set()
        self.arbiter.deadlines.add(tickets)
        register = self.demultiplexer.register
        return [(ticket, _duplicate_id(ticket)) for ticket in tickets if not register(ticket)]

    def prepared(self, tickets: list[Ticket], failed: Failed) -> None:
        """Images leave preprocessing."""
        now = self._clock()
        if failed:
            self.settlement.settle(
                [(t, t.result(Outcome.FAILED, now, e.code, e.message, retryable=e.retryable)) for t, e in failed]
            )
        if self.hearing.bars_any:
            tickets = self.hearing.settle_barred(tickets)
        if tickets:
            self._reserve_exactly(tickets)
            self.batcher.offer(tickets, now)
            self._have_streams()

    def _reserve_exactly(self, tickets: list[Ticket]) -> None:
        """The place that was taken for an estimate becomes that of the frame."""
        difference_bytes = 0
        for ticket in tickets:
            frame_bytes = ticket.frame_bytes
            difference_bytes += frame_bytes - ticket.reserved_bytes
            ticket.reserved_bytes = frame_bytes
        self.limit.adjust(difference_bytes)

    def tick(self, late_s: float) -> None:
        """Time passed; ``late_s`` more than planned."""
        if self.arbiter.tick(late_s):
            self.batcher.remove(lambda ticket: ticket.settled)
        if not self.arbiter.reads_first:
            shared = self._clock() - self._foreign_seen_s < RETENTION_S
            self.fleet.watch(self.arbiter.latency.usual_s, self.arbiter.recovery.grace_s, shared=shared)
        self.fleet.adjust(waiting=len(self.batcher) > 0)
        if not self.empty.is_set() and len(self._config.endpoints) > 1:
            self.fleet.spread()
        self.pump()
        if self.left is not None:
            self.left()

    def tick_interval_s(self) -> float:
        """When `tick` should come next: often while something is wrong, seldom when idle."""
        if self.arbiter.is_busy:
            return _BUSY_TICK_S
        next_s = self.arbiter.deadlines.next_s()
        if next_s is None:
            return _IDLE_TICK_S
        return min(_TICK_S, max(_BUSY_TICK_S, next_s - self._clock()))

    def pump(self) -> None:
        """Lets leave what may, and has streams opened where images wait for one."""
        self.batcher.pump(self._clock())
        self._have_streams()

    def _have_streams(self) -> None:
        if len(self.batcher) or self.arbiter.recovery or self.foreign.readers:
            self.fleet.demand()

    def want_streams(self) -> None:
        """Have streams open though no image waits: somebody reads foreign results."""
        self.fleet.demand()

    def drop_unsent(self, sink: Sink, queued: list[Ticket]) -> None:
        """Drops the images of a call that nobody waits for: those of ``queued``, and those that wait for a channel."""
        dropped = queued + self.batcher.remove(lambda ticket: ticket.sink is sink and not ticket.attempts)
        self.settlement.fail(dropped, Outcome.FAILED, ErrorCode.CLOSED, "the caller was cancelled")

    def give_up_rest(self) -> DrainReport:
        """Settles every open image, since the client closes."""
        left = self.demultiplexer.open_tickets()
        for ticket in left:
            ticket.discount_unwritten()
        unsent = [ticket for ticket in left if not ticket.is_unanswered]
        sent = [ticket for ticket in left if ticket.is_unanswered]
        message = "the client was closed before it was sent, or sent again after an error"
        self.settlement.fail(unsent, Outcome.FAILED, ErrorCode.CLOSED, message)
        message = "the client was closed before an answer came; it was sent and may have been classified"
        self.settlement.fail(sent, Outcome.UNKNOWN, ErrorCode.CLOSED, message)
        self.batcher.remove(lambda ticket: ticket.settled)
        self._emit(events.Drained(self._clock(), len(left)))
        return DrainReport(
            tuple(ticket.correlation_id for ticket in unsent), tuple(ticket.correlation_id for ticket in sent)
        )

    def fail_everything(self, message: str) -> None:
        """A fault of this library must not leave anybody waiting."""
        self.limit.close()
        self.foreign.close()
        left = self.demultiplexer.open_tickets()
        for outcome, unanswered in ((Outcome.FAILED, False), (Outcome.UNKNOWN, True)):
            tickets = [ticket for ticket in left if ticket.is_unanswered == unanswered]
            self.settlement.fail(tickets, outcome, ErrorCode.INTERNAL, message)

    def _writing(self, batch: Batch) -> None:
        self.budget.first_send(batch.new_count)
        self._count_resent(batch.resent)

    def _count_resent(self, images: int) -> None:
        self.settlement.totals.resent_count += images

    def _send_again(self, tickets: list[Ticket]) -> None:
        self.batcher.offer_first([ticket for ticket in tickets if not ticket.settled], self._clock())
        self.attention.set()

    def _answered(self, session: Session, batch: Batch, latency_s: float) -> None:
        self.arbiter.latency.observe(latency_s)
        self._observe_link(batch.size_bytes, latency_s if batch.queue_depth else 0.0)
        self.controllers[session.endpoint].observe(
            images=len(batch.tickets),
            size_bytes=batch.size_bytes,
            latency_s=latency_s,
            in_flight=batch.in_flight,
            queue_depth=batch.queue_depth,
            now=self._clock(),
        )

    def _wrote(self, size_bytes: int, waited_s: float) -> None:
        self.settlement.totals.sent_bytes += size_bytes
        if self.left is not None:
            self.left()

    def _observe_link(self, size_bytes: int, waited_s: float) -> None:
        """A batch was answered; ``waited_s`` is its latency where images waited behind it, and 0 where none did.

        How long a write took tells nothing: gRPC takes 3 to 4 MB before one waits, and on a slow link the
        controller keeps less in flight. Whether it is the link or the service shows in the policy's trial.
        """
        now = self._clock()
        before = self.encoding.choose(now)
        self.encoding.observe_batch(size_bytes, waited_s, now)
        after = self.encoding.choose(now)
        if after != before and self._config.preprocess.encoding == "auto":
            self._emit(events.EncodingChanged(now, after, self.encoding_reason))

    def _strays(self, late_count: int, foreign: list[wire.Answer]) -> None:
        totals = self.settlement.totals
        dropped_count = self.foreign.put(foreign) if foreign else 0
        if foreign:
            self._foreign_seen_s = self._clock()
            self.fleet.foreign_answers(len(foreign))
        totals.late_count += late_count
        totals.foreign_count += len(foreign)
        totals.foreign_dropped_count += dropped_count
        self._emit(events.StrayAnswers(self._clock(), late_count, len(foreign), dropped_count))

    def _turned_away(self, failure: CallFailed) -> None:
        """Every endpoint refuses us: what waits is failed clearly, since waiting would not help."""
        waiting = self.batcher.remove(lambda _ticket: True)
        unsent = [ticket for ticket in waiting if not ticket.is_unanswered]
        sent = [ticket for ticket in waiting if ticket.is_unanswered]
        self.settlement.fail(unsent, Outcome.FAILED, failure.code, failure.message)
        self.settlement.fail(sent, Outcome.UNKNOWN, failure.code, failure.message)

    def _settle_alone(self, suspects: list[Ticket], error: wire.ServiceError) -> None:
        if self.hear is not None:
            self.hear(suspects, error)

    def _hold(self, held: bool) -> None:
        if held:
            self.batcher.pause()
            self.attention.set()
        else:
            self.batcher.resume()
            self.attention.set()

    def _session_settings(self) -> SessionSettings:
        config = self._config
        return SessionSettings(
            wire.request_head(self.deployment_id),
            min(config.keepalive_interval_s, _PINGS_PER_REQUEST * config.pool.ping_interval_s),
            config.pool.connect_timeout_s,
            config.pool.idle_timeout_s,
            Backoff(config.retry.base_s, config.retry.cap_s),
        )

    def _arbiter_hooks(self) -> ArbiterHooks:
        return ArbiterHooks(
            send_again=self._send_again,
            hold=self._hold,
            settle_alone=self._settle_alone,
            in_flight=lambda: self.fleet.in_flight(),  # noqa: PLW0108 - the fleet is made after the arbiter
            timed_out=lambda batch: self._congested(batch.carrier.endpoint),
            refused_size=self._refused_size,
            strays=self._strays,
            emit=self._emit,
        )

    def _fleet_hooks(self) -> FleetHooks:
        return FleetHooks(
            received=self.arbiter.received,
            lost=self.arbiter.lost,
            writing=self._writing,
            wrote=self._wrote,
            answered=self._answered,
            batch_over=lambda endpoint: self.batcher.finished(endpoint),  # noqa: PLW0108 - made after the fleet
            congested=self._congested,
            overdue=self.arbiter.overdue,
            reading=lambda is_reading: self.arbiter.recovery.reading(is_reading, self._clock()),
            turned_away=self._turned_away,
            changed=self.pump,
            # Answers may come on any stream, so none rests while an image is open.
            may_rest=lambda: self.empty.is_set() and not self.foreign.readers,
            emit=self._emit,
        )

    def _refused_size(self, endpoint: str, sent_bytes: int, allowed_bytes: int | None) -> None:
        """The controller counts frames; the server counted the request's head too."""
        head_bytes = len(wire.request_head(self.deployment_id))
        allowed = None if allowed_bytes is None else allowed_bytes - head_bytes
        self.image_limit.refused(sent_bytes - head_bytes, allowed)
        self.controllers[endpoint].refused(sent_bytes - head_bytes, allowed, self._clock())

    def _refuse_too_large(self, ticket: Ticket) -> bool:
        fits = ticket.frame_bytes <= self._frames_bytes
        if fits and self.image_limit.takes(ticket.frame_bytes):
            return False
        if ticket.attempts:
            self.budget.refund(1)  # of the resend that it was granted
        request_bytes = len(wire.request_head(self.deployment_id)) + ticket.frame_bytes
        self.settlement.too_large(ticket, request_bytes, None if fits else self._config.batching.max_bytes)
        return True

    def _congested(self, endpoint: str) -> None:
        self.controllers[endpoint].congested(self._clock())


def _duplicate_id(ticket: Ticket) -> ClassificationError:
    message = f"correlation id {ticket.correlation_id!r} is in flight already; ids must be unique within a deployment"
    return ClassificationError(ErrorCode.CORRELATION_ID_INVALID, message)
