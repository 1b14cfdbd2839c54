"""How long to wait before trying again: a plain value, with the randomness handed in."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with full jitter.

    The wait before try ``n`` (0 is the first one after a failure) is drawn evenly from 0 to
    ``min(cap_s, base_s * 2**n)``. Full jitter spreads clients that failed together best: M. Brooker,
    "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.

    Attributes:
        base_s: ceiling of the first wait, in seconds.
        cap_s: ceiling of every wait, in seconds; at least ``base_s``.
    """

    base_s: float
    cap_s: float

    def ceiling_s(self, attempt: int) -> float:
        """The longest wait before try ``attempt``, counted from 0, without any pushback."""
        doublings = min(attempt, 64)  # beyond, every sensible cap is reached and floats need not overflow
        return min(self.cap_s, self.base_s * 2.0**doublings)

    def delay_s(self, attempt: int, rng: random.Random, at_least_s: float = 0.0) -> float:
        """Seconds to wait before try ``attempt``, counted from 0.

        ``at_least_s`` is a floor, such as the server's pushback. The jitter comes on top of it, since
        clients that were all told the same time would otherwise come back together.
        """
        return at_least_s + rng.uniform(0.0, self.ceiling_s(attempt))
