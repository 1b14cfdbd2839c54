"""Which endpoints may get batches: circuit breaker and outlier ejection, for all endpoints of a client.

A plain value with ``now`` and randomness as arguments. The pool tells it what happened and asks who is
eligible. What counts is the endpoint's doing alone:

* `HealthBoard.failed` is for a stream that broke or could not be opened, a call that timed out, silence
  with work outstanding: once per event, not once per batch that went down with it.
* An image's own error (undecodable, too large, not permitted) is an answer, so it is a success here.
  The caller must never report it as a failure: one poisoned folder would eject a healthy service.

Below five endpoints no latency ejects anyone, for there is no telling who is the outlier; a slow endpoint is
then held back by its in-flight limit and by the ``least_loaded`` balancer.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from athena_async.config import BreakerConfig

OUTLIER_MIN_ENDPOINTS: Final = 5
OUTLIER_MIN_ANSWERS: Final = 5
"""Batches answered since an endpoint was closed, before its latency may eject it."""
_LATENCY_DECAY_S: Final = 5.0
_JITTER: Final = 0.25
_FORGIVING_BASES: Final = 6.0
"""An endpoint that stays healthy for this many ``ejection_base_s`` has one of its ejections forgotten."""


class EndpointState(StrEnum):
    """State of an endpoint's breaker.

    CLOSED --failures in a row, or latency--> OPEN --its time is over--> HALF_OPEN
    HALF_OPEN --the probe is answered--> CLOSED
    HALF_OPEN --the probe fails--> OPEN, for twice as long
    """

    CLOSED = "CLOSED"
    """Gets batches."""
    OPEN = "OPEN"
    """Ejected: gets nothing, but in a panic."""
    HALF_OPEN = "HALF_OPEN"
    """May get one batch, as a probe."""


@dataclass(frozen=True, slots=True)
class Ejection:
    """An endpoint was just ejected, for ``ejected_s`` seconds."""

    endpoint: str
    reason: str
    ejected_s: float


@dataclass(frozen=True, slots=True)
class EndpointHealth:
    """An endpoint as `AthenaClient.stats` shows it.

    Attributes:
        failures: failures in a row.
        ejections: how often it was ejected, less what lasting health made forgotten.
        open_for_s: seconds until it may be probed; 0.0 unless OPEN.
        reason: of the last ejection; empty while there was none.
        seconds_per_image: its latency per image; 0.0 where nothing was measured.
    """

    endpoint: str
    state: EndpointState
    failures: int
    ejections: int
    open_for_s: float
    reason: str
    seconds_per_image: float


class _Breaker:
    """One endpoint.

    Invariants:
        * CLOSED if and only if ``open_until`` is None; otherwise the clock tells OPEN from HALF_OPEN,
          so no timer and no call is needed for that transition.
        * A probe is out only when not CLOSED.
    """

    __slots__ = (
        "answers", "at", "closed_at", "ejections", "endpoint", "failures",
        "health_check_failed", "latency", "open_until", "opened_at", "probe", "probing", "reason",
    )  # fmt: skip

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.open_until: float | None = None
        self.opened_at = -math.inf
        self.probing = False
        self.probe: object = None
        self.health_check_failed = False
        self.failures = 0
        self.ejections = 0
        self.closed_at = -math.inf
        self.reason = ""
        self.forget_latency()

    def forget_latency(self) -> None:
        self.latency = 0.0
        self.answers = 0
        self.at = 0.0

    def state(self, now: float) -> EndpointState:
        if self.open_until is None:
            return EndpointState.CLOSED
        return EndpointState.OPEN if now < self.open_until else EndpointState.HALF_OPEN

    def observe(self, seconds_per_image: float, now: float) -> None:
        kept = math.exp(-max(0.0, now - self.at) / _LATENCY_DECAY_S) if self.answers else 0.0
        kept = min(kept, 1.0 - 1.0 / (self.answers + 1))  # the first answers count evenly
        self.latency = self.latency * kept + seconds_per_image * (1.0 - kept)
        self.answers += 1
        self.at = now

    def open(self, now: float, ejected_s: float, reason: str) -> None:
        self.open_until = now + ejected_s
        self.opened_at = now
        self.probing, self.probe = False, None
        self.health_check_failed = False
        self.ejections += 1
        self.reason = reason
        self.forget_latency()

    def close(self, now: float) -> None:
        self.open_until = None
        self.probing, self.probe = False, None
        self.closed_at = now


class HealthBoard:
    """The breakers of all endpoints, and what they decide together.

    Invariants:
        * At least one endpoint is CLOSED: the last one is never ejected, whatever it does. So `eligible`
          is never empty.
        * A HALF_OPEN endpoint has at most one probe out, but in a panic.
        * In a panic, when fewer endpoints than ``panic_fraction`` are CLOSED, all are eligible: the fault is
          then more likely common than theirs, and the few left would be crushed. An answer to a batch of after its
          ejection closes any of them.

    Args:
        endpoints: ``host:port``, without duplicates.
        config: thresholds and times.
        rng: draws the jitter of ejection times.
    """

    def __init__(self, endpoints: Sequence[str], config: BreakerConfig, rng: random.Random) -> None:
        self._config = config
        self._rng = rng
        self._breakers = {endpoint: _Breaker(endpoint) for endpoint in endpoints}
        self._all = tuple(self._breakers)
        self._not_closed = 0

    def __repr__(self) -> str:
        broken = {b.endpoint: b.reason for b in self._breakers.values() if b.open_until is not None}
        return f"HealthBoard({len(self._all)} endpoints, ejected={broken})"

    def state(self, endpoint: str, now: float) -> EndpointState:
        return self._breakers[endpoint].state(now)

    def eligible(self, now: float) -> tuple[str, ...]:
        """Endpoints that may get a batch, in the order given at construction: CLOSED ones, HALF_OPEN ones
        whose probe is free, and in a panic all. Never empty."""
        if not self._not_closed or self._panic:
            return self._all
        return tuple(endpoint for endpoint, breaker in self._breakers.items() if self._may_serve(breaker, now))

    def succeeded(self, endpoint: str, now: float, sent_s: float = math.inf) -> bool:
        """A batch was answered, be it with image errors; it was sent at ``sent_s``.

        Returns whether this closed the endpoint's breaker. An answer to a batch of before the ejection proves
        nothing, and nor does one that comes while the endpoint is OPEN, unless a panic sends it batches.
        """
        breaker = self._breakers[endpoint]
        is_old = breaker.open_until is not None and sent_s < breaker.opened_at
        if is_old or (breaker.state(now) is EndpointState.OPEN and not self._panic):
            return False
        breaker.failures = 0
        if breaker.open_until is None:
            return False
        breaker.close(now)
        self._not_closed -= 1
        return True

    def failed(self, endpoint: str, reason: str, now: float, *, at_once: bool = False) -> Ejection | None:
        """The endpoint failed: see the module for what counts. ``reason`` is for people. ``at_once``: one such
        failure is enough, as where it has been silent for long with work outstanding.

        Returns the ejection that this brought about. A failure while OPEN is old news and changes nothing.
        """
        breaker = self._breakers[endpoint]
        state = breaker.state(now)
        if state is EndpointState.OPEN:
            return None
        breaker.failures += 1
        if state is EndpointState.HALF_OPEN:
            return self._eject(breaker, reason, now)
        if breaker.failures < self._config.failures and not at_once:
            return None
        return self._eject(breaker, reason, now)

    def answered(self, endpoint: str, seconds_per_image: float, images: int, now: float) -> Ejection | None:
        """A batch of ``images`` that this endpoint was sent was answered, wherever the answer arrived.

        Measures latency only; report the success itself by `succeeded`. Returns the ejection where the
        endpoint's latency is an outlier among at least five.
        """
        breaker = self._breakers[endpoint]
        if breaker.open_until is not None or images < 1:
            return None
        breaker.observe(seconds_per_image, now)
        if len(self._all) < OUTLIER_MIN_ENDPOINTS or not self._is_outlier(breaker):
            return None
        closed_left = len(self._all) - self._not_closed - 1
        if closed_left < self._config.panic_fraction * len(self._all):
            return None  # a slow endpoint is worth more than a panic
        return self._eject(breaker, "latency", now)

    def probe_started(self, endpoint: str, now: float, probe: object = None) -> None:
        """A batch was given to the endpoint. Where it is HALF_OPEN that is its one probe, which
        `succeeded`, `failed` or `probe_dropped` ends. ``probe``: the batch, to know it again."""
        breaker = self._breakers[endpoint]
        breaker.probing = breaker.state(now) is EndpointState.HALF_OPEN
        breaker.probe = probe if breaker.probing else None

    def probe_dropped(self, endpoint: str, probe: object = None) -> None:
        """The probe was neither answered nor did it fail: it was never sent, or its images were cancelled.

        ``probe``: the batch that is over; another than the probe, sent before the ejection, changes nothing."""
        breaker = self._breakers[endpoint]
        if probe is None or probe is breaker.probe:
            breaker.probing, breaker.probe = False, None

    def health_checked(self, endpoint: str, alive: bool, now: float) -> None:
        """A health check beside the batches (ListDeployments) was answered or not.

        Where it fails during an ejection and later succeeds, the fault that it shares has ended, and the
        endpoint may be probed at once. A check that never failed does not see what ejected the endpoint,
        so it shortens nothing; and no check closes a breaker, only batches do.
        """
        breaker = self._breakers[endpoint]
        if breaker.state(now) is not EndpointState.OPEN:
            return
        if not alive:
            breaker.health_check_failed = True
        elif breaker.health_check_failed:
            breaker.open_until = now

    def next_change_s(self, now: float) -> float | None:
        """Seconds until an OPEN endpoint may be probed; None where there is none."""
        waits = [b.open_until - now for b in self._breakers.values() if b.open_until is not None and now < b.open_until]
        return min(waits, default=None)

    def snapshot(self, now: float) -> tuple[EndpointHealth, ...]:
        """All endpoints, in the order given at construction."""
        return tuple(self._shown(breaker, now) for breaker in self._breakers.values())

    @property
    def _panic(self) -> bool:
        closed = len(self._all) - self._not_closed
        return closed < self._config.panic_fraction * len(self._all)

    @staticmethod
    def _may_serve(breaker: _Breaker, now: float) -> bool:
        state = breaker.state(now)
        return state is EndpointState.CLOSED or (state is EndpointState.HALF_OPEN and not breaker.probing)

    def _is_outlier(self, breaker: _Breaker) -> bool:
        if breaker.answers < OUTLIER_MIN_ANSWERS:
            return False
        known = [b.latency for b in self._breakers.values() if b.answers >= OUTLIER_MIN_ANSWERS]
        if len(known) < OUTLIER_MIN_ENDPOINTS:
            return False
        return breaker.latency > self._config.outlier_factor * statistics.median(known)

    def _eject(self, breaker: _Breaker, reason: str, now: float) -> Ejection | None:
        if breaker.open_until is None:
            if len(self._all) - self._not_closed == 1:
                return None
            self._not_closed += 1
            breaker.ejections -= self._forgiven(breaker, now)
        ejected_s = self._ejection_s(breaker.ejections)
        breaker.open(now, ejected_s, reason)
        return Ejection(breaker.endpoint, reason, ejected_s)

    def _forgiven(self, breaker: _Breaker, now: float) -> int:
        if not breaker.ejections:
            return 0
        healthy_s = now - breaker.closed_at
        return min(breaker.ejections, int(healthy_s / (_FORGIVING_BASES * self._config.ejection_base_s)))

    def _ejection_s(self, ejections: int) -> float:
        """Base time doubled with each ejection before, lengthened by up to a quarter, within base and maximum."""
        config = self._config
        longest_s = max(config.ejection_base_s, config.ejection_max_s / (1.0 + _JITTER))
        nominal_s = min(longest_s, config.ejection_base_s * 2.0 ** min(ejections, 64))
        return min(config.ejection_max_s, nominal_s * self._rng.uniform(1.0, 1.0 + _JITTER))

    def _shown(self, breaker: _Breaker, now: float) -> EndpointHealth:
        state = breaker.state(now)
        open_for_s = breaker.open_until - now if state is EndpointState.OPEN and breaker.open_until is not None else 0.0
        forgiven = self._forgiven(breaker, now) if state is EndpointState.CLOSED else 0
        return EndpointHealth(
            breaker.endpoint, state, breaker.failures, breaker.ejections - forgiven, open_for_s, breaker.reason,
            breaker.latency,
        )  # fmt: skip
