"""Clocks on which lifetimes run: kept answers, deployments, tokens, the times of the audit.

Latencies (the service model, injected delays) run in real seconds and know no clock.
"""

from __future__ import annotations

import time
from typing import Protocol

from athena_async import _check as check


class Clock(Protocol):
    """What the emulator asks for the time."""

    def now(self) -> float:
        """Seconds since the epoch; never goes back."""
        ...


class ScaledClock:
    """Starts at the present and runs ``scale`` times as fast as the wall's: 3600 makes an hour a second."""

    def __init__(self, scale: float = 1.0) -> None:
        check.positive("time_scale", scale)
        self.scale = scale
        self._epoch_s = time.time()
        self._started_s = time.monotonic()

    def now(self) -> float:
        return self._epoch_s + (time.monotonic() - self._started_s) * self.scale

    def __repr__(self) -> str:
        return f"ScaledClock(scale={self.scale:g})"


class ManualClock:
    """Stands still until a test moves it."""

    def __init__(self, start_s: float = 1_800_000_000.0) -> None:
        self._now_s = start_s

    def now(self) -> float:
        return self._now_s

    def advance(self, seconds: float) -> None:
        """Moves forward.

        Raises:
            ConfigError: ``seconds`` is negative; lifetimes rely on a clock that never goes back.
        """
        check.not_negative("seconds", seconds)
        self._now_s += seconds

    def __repr__(self) -> str:
        return f"ManualClock({self._now_s:.3f})"
