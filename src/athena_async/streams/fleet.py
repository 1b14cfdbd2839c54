"""The sessions of a client: opened and drained as the pool says, their news passed on, stuck ones given up."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from athena_async import events, wire
from athena_async.channels.channel import Access, CallFailed
from athena_async.channels.health import Ejection, HealthBoard
from athena_async.channels.pool import Pool
from athena_async.config import PoolConfig
from athena_async.errors import ErrorCode
from athena_async.streams.hooks import Hooks
from athena_async.streams.loss import NOT_THE_ENDPOINTS_FAULT, Loss
from athena_async.streams.recovery import LatencyEstimate
from athena_async.streams.session import Session, SessionSettings
from athena_async.streams.state import State
from athena_async.streams.ticket import Batch

_OMITTED_GRACES = 2.0
_SILENT_LATENCIES = 10.0
_STALLED_MIN_S = 1.0
_APART_S = 1.0
"""How far apart the last answers on the streams of an endpoint may come, and twice its latency."""

StartSoon = Callable[[Callable[[Session], Coroutine[Any, Any, None]], Session], object]


@dataclass(frozen=True, slots=True)
class FleetHooks:
    """What a fleet tells the engine. Called on the event loop; none blocks."""

    received: Callable[[Session, wire.Response], None]
    lost: Callable[[Session, Loss], None]
    writing: Callable[[Batch], None]
    wrote: Callable[[int, float], None]
    answered: Callable[[Session, Batch, float], None]
    """A batch is complete: session, batch, its latency in seconds."""
    batch_over: Callable[[str], None]
    """A batch to the endpoint is in flight no more, answered or given up."""
    congested: Callable[[str], None]
    overdue: Callable[[list[Batch]], None]
    reading: Callable[[bool], None]
    turned_away: Callable[[CallFailed], None]
    """Every endpoint refuses the client for good."""
    changed: Callable[[], None]
    may_rest: Callable[[], bool]
    emit: Callable[[events.Event], None]


class Fleet:
    """Sessions by the pool's decisions.

    Invariants: each session has one task, which ends by itself once the session is closed or drained; a session
    stands in the pool as long as its task runs.
    """

    def __init__(
        self,
        pool: Pool[Session],
        health: HealthBoard,
        config: PoolConfig,
        settings: SessionSettings,
        access: Access,
        hooks: FleetHooks,
        rng: random.Random,
    ) -> None:
        self.pool = pool
        self._health = health
        self._config = config
        self._settings = settings
        self._access = access
        self._hooks = hooks
        self._rng = rng
        self._clock = asyncio.get_running_loop().time
        self._channel_ids = itertools.count(1)
        self._left = asyncio.Event()
        self._owed_count = 0
        self._lost_s = float("-inf")
        """When a stream last ended that may have taken answers of the others' images with it."""
        self._usual = {endpoint: LatencyEstimate() for endpoint in pool.endpoints}
        self._stalls: dict[str, bool] = {}
        """Endpoints with a stream that hangs, and whether anything was heard on another lately."""
        self._start: StartSoon | None = None
        self._turned_away: dict[str, CallFailed] = {}
        self._session_hooks = Hooks(
            opened=self._opened,
            received=self._received,
            writing=self._writing,
            wrote=lambda _session, size_bytes, waited_s: hooks.wrote(size_bytes, waited_s),
            batch_finished=self._batch_finished,
            batch_over=self._batch_over,
            lost=self._lost,
            rested=self._rested,
            room=hooks.changed,
            may_rest=hooks.may_rest,
        )

    def __repr__(self) -> str:
        return f"Fleet({self.pool!r})"

    def start(self, start_soon: StartSoon) -> None:
        """From now on sessions may be opened; ``start_soon`` runs their tasks."""
        self._start = start_soon

    def in_flight(self) -> list[Batch]:
        """Every batch with open images, oldest first within its session."""
        return [batch for session in self.pool.lanes() for batch in session.batches]

    @property
    def unwritten_bytes(self) -> int:
        """Bytes of batches that gRPC has not taken yet."""
        return sum(session.unwritten_bytes for session in self.pool.lanes())

    def demand(self) -> None:
        """Images wait, or answers are to be taken: have streams open."""
        if len(self.pool) < len(self.pool.endpoints):
            self.adjust(waiting=True)
        for session in self.pool.lanes():
            session.demand()

    def spread(self) -> None:
        """There is work: each endpoint that may get some has a stream, though the others could do it all.

        Without it an endpoint that was ejected, or whose streams ended, would never be probed under light load.
        """
        idle = {State.IDLE}
        for endpoint in self._health.eligible(self._clock()):
            sessions = [session for session in self.pool.lanes() if session.endpoint == endpoint]
            if {session.state for session in sessions} == idle:
                for session in sessions:
                    session.demand()

    def adjust(self, *, waiting: bool) -> None:
        """Opens and drains what the pool says."""
        if self._start is None:
            return
        resize = self.pool.adjust(self._clock(), waiting=waiting)
        for endpoint in resize.open:
            self._open(endpoint)
        for session, reason in resize.drain:
            if session.state not in (State.DRAINING, State.CLOSED):
                session.drain()
                self._resized(session.endpoint, reason)

    def sent(self, session: Session, batch: Batch) -> None:
        """A batch was handed to a session."""
        self._health.probe_started(session.endpoint, self._clock(), batch)

    def watch(self, usual_latency_s: float, grace_s: float, *, shared: bool) -> None:
        """Finds what should have been answered: sessions that are stuck, and images left out of an answer.

        ``shared``: other clients take answers of the deployment. What we miss is then most likely with one of
        them: it makes room for other batches, is awaited to its deadline, and is not asked for again.
        """
        now = self._clock()
        silence_s = max(self._config.silence_timeout_s, _SILENT_LATENCIES * usual_latency_s)
        stalled_s = max(_STALLED_MIN_S, _SILENT_LATENCIES * usual_latency_s)
        self._watch_stalls(now, stalled_s)
        overdue: list[Batch] = []
        for session in self.pool.lanes():
            if session.is_going_away:
                self.pool.retire(session, "server going away")
            if session.silent_s(now) > silence_s:
                self._give_up(session, now, silence_s, usual_latency_s)
                continue
            overdue.extend(
                batch
                for batch in session.batches
                if batch.written and self._is_overdue(batch, now, grace_s, silence_s, shared)
            )
        if shared:
            for batch in overdue:
                batch.carrier.release(batch)
        elif overdue:
            self._hooks.overdue(overdue)

    def _give_up(self, session: Session, now: float, silence_s: float, usual_latency_s: float) -> None:
        """A stream is stuck. So is its endpoint, unless something was heard on another of its streams, and not only
        its last answers from before, which came a little later than this one's."""
        reason = f"no answer for {silence_s:.1f} s"
        heard_s = max(other.heard_s for other in self.pool.lanes() if other.endpoint == session.endpoint)
        silent_s = silence_s - _APART_S - 2 * usual_latency_s
        self._ejected(self._health.failed(session.endpoint, reason, now, at_once=now - heard_s > silent_s))
        session.abandon_call(reason)

    def in_flight_limit(self, endpoint: str, planned: int) -> int:
        """How many batches the endpoint may have unanswered, where ``planned`` are right for it.

        Those on streams that hang do not count: otherwise one such stream would hold the whole room until it is given
        up. But where nothing is heard on the others either, one batch may ask whether they hang too, and no more: a
        slow service is not sent more for being slow.
        """
        heard = self._stalls.get(endpoint)
        if heard is None:
            return planned
        lanes = [session for session in self.pool.lanes() if session.endpoint == endpoint]
        stuck = sum(len(session.batches) for session in lanes if session.stalled)
        return max(planned, stuck + (planned if heard else 1))

    def _watch_stalls(self, now: float, stalled_s: float) -> None:
        lanes = self.pool.lanes()
        for session in lanes:
            session.stalled = session.silent_s(now) > stalled_s
        self._stalls = {
            endpoint: any(now - session.heard_s <= stalled_s for session in lanes if session.endpoint == endpoint)
            for endpoint in {session.endpoint for session in lanes if session.stalled}
        }

    def _is_overdue(self, batch: Batch, now: float, grace_s: float, silence_s: float, shared: bool) -> bool:
        """Where some images of a request are answered the rest follow soon; a request without any may be slow.

        But after a stream was lost it is only as slow as its endpoint usually is: the service may write an answer to
        any stream, and then it went with that one.
        """
        omitted_s = _OMITTED_GRACES * grace_s
        if shared or batch.is_begun:
            return now - batch.progress_s > omitted_s
        slow_s = _SILENT_LATENCIES * self._usual[batch.carrier.endpoint].usual_s
        if slow_s and batch.sent_s <= self._lost_s and now - self._lost_s > max(omitted_s, slow_s):
            return True
        return now - batch.progress_s > silence_s

    def foreign_answers(self, count: int) -> None:
        """Answers to other clients came to us, so about as many of ours went to them.

        The oldest batches make room for others on that account: without it a shared deployment would be used at the
        pace of grace periods. Their images are awaited to their deadline all the same.
        """
        self._owed_count += count
        written = [batch for batch in self.in_flight() if batch.written]
        for batch in sorted(written, key=lambda batch: batch.sent_s):
            if batch.open_count > self._owed_count:
                break
            self._owed_count -= batch.open_count
            batch.carrier.release(batch)
        else:
            self._owed_count = 0

    def renew(self, reason: str) -> None:
        """Replaces every channel: new ones first, the old ones finish what they carry."""
        for session in self.pool.lanes():
            self.pool.retire(session, reason)
        self.adjust(waiting=False)
        for session in self.pool.lanes():
            session.demand()

    def drain(self) -> None:
        """Half-closes every stream once its images are answered. No other is opened from now on."""
        self._start = None
        for session in self.pool.lanes():
            session.drain()

    async def wait_empty(self) -> None:
        """Until the last session ended."""
        while self.pool.lanes():
            self._left.clear()
            await self._left.wait()

    def close(self) -> None:
        """Ends every session now."""
        self._start = None
        for session in self.pool.lanes():
            session.close()

    def _open(self, endpoint: str) -> None:
        session = Session(
            endpoint,
            next(self._channel_ids),
            self._access,
            self._settings,
            self._session_hooks,
            self._rng,
        )
        self.pool.add(session, self._clock())
        session.demand()
        if self._start is not None:
            self._start(self._run, session)
        self._resized(endpoint, "opened")

    async def _run(self, session: Session) -> None:
        try:
            await session.run()
        except BaseException:
            self._start = None  # the client ends: open nothing in place of this one
            raise
        finally:
            self.pool.remove(session)
            self._left.set()
            self._tell_reading()
            self._hooks.changed()

    def _resized(self, endpoint: str, reason: str) -> None:
        count = sum(session.endpoint == endpoint for session in self.pool.lanes())
        self._hooks.emit(events.PoolResized(self._clock(), endpoint, count, reason))

    def _tell_reading(self) -> None:
        states = {session.state for session in self.pool.lanes()}
        self._hooks.reading(State.OPEN in states or State.DRAINING in states)

    def _opened(self, session: Session) -> None:
        self._turned_away.pop(session.endpoint, None)
        self._hooks.emit(events.StreamOpened(self._clock(), session.endpoint, session.channel_id))
        self._tell_reading()
        self.adjust(waiting=False)
        self._hooks.changed()

    def _received(self, session: Session, response: wire.Response) -> None:
        self._hooks.received(session, response)
        self._hooks.changed()

    def _writing(self, session: Session, batch: Batch) -> None:
        self._hooks.writing(batch)
        self._hooks.emit(
            events.BatchSent(
                self._clock(), session.endpoint, session.channel_id, len(batch.tickets), batch.size_bytes, batch.resent
            )
        )

    def _batch_finished(self, session: Session, batch: Batch, now: float) -> None:
        latency_s = now - batch.sent_s
        images = len(batch.tickets)
        self._usual[session.endpoint].observe(latency_s)
        self.pool.answered(session, latency_s / images, now)
        if self._health.succeeded(session.endpoint, now, batch.sent_s):
            self._hooks.emit(events.EndpointReturned(now, session.endpoint))
        self._ejected(self._health.answered(session.endpoint, latency_s / images, images, now))
        self._hooks.answered(session, batch, latency_s)
        self._hooks.emit(
            events.BatchAnswered(
                now,
                session.endpoint,
                session.channel_id,
                images,
                batch.size_bytes,
                latency_s,
                batch.tickets[0].correlation_id,
            )
        )

    def _batch_over(self, session: Session, batch: Batch) -> None:
        # A probe that is given up must not keep its endpoint waiting; one that was answered is told of next.
        self._health.probe_dropped(session.endpoint, batch)
        self._hooks.batch_over(session.endpoint)

    def _lost(self, session: Session, loss: Loss) -> None:
        failure = loss.failure
        if loss.was_open:
            self._lost_s = self._clock()
        possibly_sent = sum(len(lost.tickets) for lost in loss.batches if not lost.unsent)
        self._hooks.emit(
            events.StreamClosed(
                self._clock(), session.endpoint, session.channel_id, failure.code, failure.message, possibly_sent
            )
        )
        exhausted = failure.code is ErrorCode.RESOURCE_EXHAUSTED and failure.refused_size is None
        # Silent for so long, it may have been the load that let no ping through.
        if exhausted or loss.silent_s >= self._config.ping_timeout_s:
            self._hooks.congested(session.endpoint)
        if failure.is_local or failure.code in NOT_THE_ENDPOINTS_FAULT:
            self._health.probe_dropped(session.endpoint)
        else:
            self._failed(session.endpoint, failure.message)
        self._tell_reading()
        self._hooks.lost(session, loss)
        if loss.refused:
            self._turned_away[session.endpoint] = failure
            if len(self._turned_away) == len(self.pool.endpoints):
                self._hooks.turned_away(failure)
        self._hooks.changed()

    def _rested(self, session: Session) -> None:
        self._hooks.emit(
            events.StreamClosed(self._clock(), session.endpoint, session.channel_id, "OK", "ended in peace", 0)
        )
        self._tell_reading()
        self._hooks.changed()

    def _failed(self, endpoint: str, reason: str) -> None:
        self._ejected(self._health.failed(endpoint, reason, self._clock()))

    def _ejected(self, ejection: Ejection | None) -> None:
        if ejection is not None:
            self._hooks.emit(
                events.EndpointEjected(self._clock(), ejection.endpoint, ejection.reason, ejection.ejected_s)
            )
