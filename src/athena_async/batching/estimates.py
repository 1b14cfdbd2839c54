"""What the batch controller measures: running estimates as plain values, each update a few operations."""

from __future__ import annotations

import math
from typing import Final

SURE_SAMPLES: Final = 2
"""Batches whose mean is believed where it is far off."""
SOME_SAMPLES: Final = 8
"""Batches whose spread is believed too."""


class TailRatio:
    """The 95th percentile of latency over its mean, as a ratio that carries over from size to size.

    Stochastic approximation: it steps up by 19 where a sample is above and down by 1 where it is below, and
    rests where one in twenty is above.
    """

    __slots__ = ("value",)

    def __init__(self, value: float = 1.2) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"TailRatio({self.value:.3f})"

    def add(self, ratio: float) -> None:
        self.value = max(1.0, min(4.0, self.value * (1.019 if ratio > self.value else 0.999)))


class WindowMinimum:
    """The least value of the last one to two windows, so that it rises again when a baseline drifts upwards."""

    __slots__ = ("_current", "_previous", "_until", "_window_s")

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._current = self._previous = math.inf
        self._until = -math.inf

    def __repr__(self) -> str:
        return f"WindowMinimum({self.value:.6f})"

    def add(self, value: float, now: float) -> None:
        if now >= self._until:
            expired = now >= self._until + self._window_s
            self._previous = math.inf if expired else self._current
            self._current = math.inf
            self._until = now + self._window_s
        self._current = min(self._current, value)

    @property
    def value(self) -> float:
        """Infinite before the first value."""
        return min(self._current, self._previous)


class Throughput:
    """Images per second at one setting, by Little's law: images in flight over their latency.

    A batch that was sent as the ``k``-th in flight waited for the others, so ``k * images / latency`` is what
    the server delivered meanwhile, whatever its parallelism. Each sample tells as much as counting answers
    over that time would, and none needs the server to stand still.

    Invariant: older samples weigh half once ``_FULL`` are held, so that the estimate stays recent.
    """

    __slots__ = ("_squares", "_sum", "_work", "count", "recent_s")

    _FULL: Final = 48
    _PRIOR_WEIGHT: Final = 4
    _PRIOR_VARIANCE: Final = 0.01
    _CAP: Final = 3.0

    def __init__(self) -> None:
        self.count = 0.0
        self._work = 0.0
        self._sum = 0.0
        self._squares = 0.0
        self.recent_s = 0.0

    def __repr__(self) -> str:
        return f"Throughput({self.images_per_s:.1f}/s, n={self.count:.0f})"

    def add(self, images: int, in_flight: int, latency_s: float, weight: float = 1.0) -> None:
        """Takes a batch into account. ``weight`` below 1 is for one that waited partly for others' images."""
        if self.count >= 4:  # a pause of a collector says nothing about the setting that it fell into
            latency_s = min(latency_s, self._CAP * self.latency_s)
        if self.count >= self._FULL:
            self.count, self._work, self._sum, self._squares = (
                0.5 * self.count, 0.5 * self._work, 0.5 * self._sum, 0.5 * self._squares,
            )  # fmt: skip
        self.count += weight
        self._work += weight * images * in_flight
        self._sum += weight * latency_s
        self._squares += weight * latency_s * latency_s
        self.recent_s += (latency_s - self.recent_s) * max(1.0 / 8.0, min(1.0, weight / self.count))

    @property
    def latency_s(self) -> float:
        """Mean latency; 0.0 without samples."""
        return self._sum / self.count if self.count else 0.0

    @property
    def images_per_s(self) -> float:
        return self._work / self._sum if self._sum else 0.0

    @property
    def variance(self) -> float:
        """Of the mean, relative to it; a prior of 10 % a sample keeps few lucky samples from looking sure."""
        if not self.count:
            return math.inf
        mean = self._sum / self.count
        spread = max(0.0, self._squares / self.count / (mean * mean) - 1.0) if mean else 0.0
        pooled = (spread * self.count + self._PRIOR_VARIANCE * self._PRIOR_WEIGHT) / (self.count + self._PRIOR_WEIGHT)
        return pooled / self.count


class LatencyGuard:
    """Says when more than one in twenty batches are over the target, and not by one accident.

    Invariants:
        * Batches that were in flight together when one thing went wrong (a pause, a lost packet) are one
          incident; it takes two.
        * Counts halve as they grow, so that old sins are forgotten.
    """

    __slots__ = ("_incidents", "_last_at", "_over", "_seen")

    _FULL: Final = 100

    def __init__(self) -> None:
        self._last_at = -math.inf
        self.reset()

    def __repr__(self) -> str:
        return f"LatencyGuard({self._over:.0f} of {self._seen:.0f} over, {self._incidents:.0f} incidents)"

    def reset(self) -> None:
        self._seen = self._over = self._incidents = 0.0

    def exceeded(self, over: bool, sent_at: float, now: float) -> bool:
        """Takes into account whether a batch was over the target; returns whether the setting must be reduced."""
        self._seen += 1.0
        if self._seen > self._FULL:
            self._seen, self._over, self._incidents = 0.5 * self._seen, 0.5 * self._over, 0.5 * self._incidents
        if not over:
            return False
        self._over += 1.0
        if sent_at >= self._last_at:
            self._incidents += 1.0
            self._last_at = now
        return self._incidents >= 2.0 and self._over > 0.05 * self._seen
