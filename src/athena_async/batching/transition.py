"""From one plan to the next: what the answers to the first batches under a new plan say about it."""

from __future__ import annotations

import math
from typing import Final

from athena_async.batching.moves import Setting

_ALONE: Final = 1.4
"""Times the latency of a lone batch: one that took longer shared the way or the server with others."""


class Transition:
    """The setting in force, the one before, and how far the server's queue has turned over from that to this.

    Batches sent before the change tell nothing. The first ones after it waited at the server for batches of the
    old size: where only the images changed, the others' share is taken off their latency and they weigh less.
    Where more are in flight than before, the queue is still building up, and the first round weighs nothing, but
    for a first batch that was served before those that left with it.
    """

    __slots__ = ("_before", "_before_s", "_turned_over_at", "answers", "changed_at", "now_in_force")

    def __init__(self, setting: Setting) -> None:
        self.now_in_force = setting
        self.changed_at = -math.inf
        self.answers = 0
        """Batches answered that were sent under the setting in force."""
        self._before = setting
        self._before_s = 0.0
        self._turned_over_at: float | None = None

    def __repr__(self) -> str:
        return f"Transition({tuple(self._before)} -> {tuple(self.now_in_force)}, {self.answers} answers)"

    def change(self, setting: Setting, latency_s: float, now: float) -> None:
        """Puts a setting in force. ``latency_s`` is the mean under the one before; 0.0 where unknown."""
        self._before, self.now_in_force = self.now_in_force, setting
        self._before_s = latency_s
        self._turned_over_at = None
        self.changed_at = now
        self.answers = 0

    def own_latency(self, in_flight: int, latency_s: float, now: float) -> tuple[float, float]:
        """The latency of a batch sent under the setting in force, as if all batches ahead of it were of it too.

        Returns:
            its weight, from 0 to 1, and the latency.
        """
        self.answers += 1
        if self._must_turn_over():
            if self._turned_over_at is None:
                self._turned_over_at = now
                if self._was_served_alone(latency_s):
                    return 1.0, in_flight * latency_s
            return (1.0 if now - latency_s >= self._turned_over_at else 0.0), latency_s
        ahead = in_flight - self.answers
        if ahead <= 0 or self._before.images == self.now_in_force.images:
            return 1.0, latency_s
        weight = self.answers / in_flight
        own_s = latency_s - ahead / self._before.in_flight * self._before_s
        return weight, max(0.1 * latency_s, own_s) / weight

    def _was_served_alone(self, latency_s: float) -> bool:
        """Whether the first batch, which found nothing in flight, did not wait for those that left with it."""
        new, old = self.now_in_force, self._before
        return old.in_flight == 1 and new.images == old.images and latency_s < _ALONE * self._before_s

    def _must_turn_over(self) -> bool:
        new, old = self.now_in_force, self._before
        if new.in_flight > old.in_flight:
            return True
        return new.images != old.images and (new.in_flight != old.in_flight or not self._before_s)
