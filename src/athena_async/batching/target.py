"""The latency target, as far as it can be kept: what is over it, and how much room is left under it."""

from __future__ import annotations

from typing import Final

from athena_async.batching.estimates import SOME_SAMPLES, SURE_SAMPLES, LatencyGuard, TailRatio, Throughput

_FREE: Final = 0.1
"""Part of the target below which latency costs nothing: there, ties go to larger batches."""
_MARGIN: Final = 0.95
"""Part of the target that the estimated 95th percentile is kept under."""
_AFTER_DECREASE: Final = 0.9
"""Part of that margin that a decrease aims at."""
_REACHABLE: Final = 2.0
"""A target below this multiple of what a lone small batch takes cannot be kept by reducing anything."""


class LatencyTarget:
    """Judges latencies by their 95th percentile, estimated as a multiple of the mean.

    ``lone_s`` below is what a lone small batch is expected to take. Where that is more than half of the target
    nothing is over it before twice as much: there is nothing to gain from reducing, and throughput would go down
    to nothing for it.
    """

    __slots__ = ("_guard", "_tail", "_target_s")

    def __init__(self, target_s: float) -> None:
        self._target_s = target_s
        self._tail = TailRatio()
        self._guard = LatencyGuard()

    def __repr__(self) -> str:
        return f"LatencyTarget({self._target_s:g} s, {self._tail!r}, {self._guard!r})"

    def learn(self, latency_s: float, rate: Throughput) -> None:
        """A batch took so long under a setting whose mean is known."""
        self._tail.add(latency_s / rate.latency_s)

    def p95_s(self, rate: Throughput) -> float:
        return rate.recent_s * self._tail.value

    def is_free(self, rate: Throughput) -> bool:
        """Whether latency is so far below the target that it costs nothing."""
        return self.p95_s(rate) < _FREE * self._target_s

    def room(self, rate: Throughput, lone_s: float) -> float:
        """By which factor latency may grow."""
        return _MARGIN * self._reachable_s(lone_s) / self.p95_s(rate)

    def is_over(self, latency_s: float, lone_s: float) -> bool:
        return latency_s > self._reachable_s(lone_s)

    def is_slow(self, rate: Throughput, lone_s: float) -> bool:
        """Whether the 95th percentile is near the target; with few samples, whether the mean is beyond it."""
        if rate.count >= SOME_SAMPLES:
            over = self.p95_s(rate) / (_MARGIN * self._target_s)
        elif rate.count >= SURE_SAMPLES:
            over = rate.latency_s / self._target_s
        else:
            return False
        return over > 1.0 and over * self._target_s > self._reachable_s(lone_s)

    def is_exceeded(self, latency_s: float, lone_s: float, now: float) -> bool:
        """A batch was answered under the held setting: whether more than one in twenty are over, by no accident."""
        return self._guard.exceeded(self.is_over(latency_s, lone_s), now - latency_s, now)

    def forgive(self) -> None:
        """Another setting is in force: what was over under the last is no fault of it."""
        self._guard.reset()

    def scale(self, rate: Throughput, latency_s: float, lone_s: float) -> float:
        """To which part of itself latency should be reduced, by at most about half; ``latency_s`` is the last
        batch's: the mean is slow to show that a server has turned slow."""
        over = max(self.p95_s(rate), latency_s) / (_MARGIN * self._reachable_s(lone_s))
        return _AFTER_DECREASE / min(2.0, max(1.0, over))

    def _reachable_s(self, lone_s: float) -> float:
        return max(self._target_s, _REACHABLE * lone_s)
