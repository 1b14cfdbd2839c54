"""Where the batch controller may climb from a setting, and in which order it tries."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple

from athena_async.batching.estimates import Throughput
from athena_async.config import BatchingConfig

START_IMAGES: Final = 16
_STEP: Final = 1.3
_START_STEP: Final = 2.0
_LEAP_STEP: Final = 4.0
"""Taken at the start where larger batches were seen not to take longer."""
COMFORTABLE_IN_FLIGHT: Final = 4
"""Batches in flight that ties go to while latency costs nothing."""

_FIRST_HOLD: Final = 8.0
_LAST_HOLD: Final = 64.0
_LONGEST_REST: Final = 16
_RISK_PAUSES: Final = (256, 4096)
"""Batches between trials of a move that may break the target: at first, and at most."""


class Setting(NamedTuple):
    """Images a batch, and batches in flight."""

    images: int
    in_flight: int


def start(config: BatchingConfig) -> Setting:
    """Where a controller begins: small, and with nothing else in flight, so that the first comparisons are clean.
    A fixed size is taken with all batches in flight that the configuration allows."""
    if config.fixed_size is not None:
        return Setting(config.fixed_size, config.max_batches_in_flight)
    return Setting(min(START_IMAGES, config.max_images), 1)


class Move(Enum):
    """A direction, in the order of the tour. The swaps keep the images in flight about equal, and so the latency of a
    server whose cost is per image: along the latency target no other way leads uphill. The one that fills the way to a
    server far away comes before those that give something up."""

    LARGER = "larger batches"
    MORE = "more in flight"
    MORE_SMALLER = "more, smaller batches"
    SMALLER = "smaller batches"
    FEWER = "fewer in flight"
    FEWER_LARGER = "fewer, larger batches"

    @property
    def grows(self) -> bool:
        """Whether it puts more images in flight."""
        return self in (Move.LARGER, Move.MORE)

    @property
    def shrinks(self) -> bool:
        """Whether it puts fewer images in flight."""
        return self in (Move.SMALLER, Move.FEWER)


def neighbour(setting: Setting, move: Move, factor: float, limit: Setting) -> Setting | None:
    """The setting one step of ``factor`` (above 1) away; None where it would leave ``limit`` or 1."""
    images, in_flight = setting
    if move is Move.LARGER:
        images = max(images + 1, round(images * factor))
        images = min(images, limit.images)
    elif move is Move.SMALLER:
        images = max(1, min(images - 1, round(images / factor)))
    elif move in (Move.MORE, Move.MORE_SMALLER):
        in_flight = min(max(in_flight + 1, round(in_flight * factor)), limit.in_flight)
    else:
        in_flight = max(1, min(in_flight - 1, round(in_flight / factor)))
    if move in (Move.MORE_SMALLER, Move.FEWER_LARGER):
        images = min(limit.images, max(1, round(images * setting.in_flight / in_flight)))
        if images == setting.images:
            return None
    found = Setting(images, in_flight)
    return None if found == setting else found


@dataclass(slots=True)
class Trial:
    """A neighbour of the held setting on probation. ``over`` counts its answers over the target."""

    move: Move
    setting: Setting
    risky: bool
    started_at: float
    rate: Throughput = field(default_factory=Throughput)
    over: int = 0


def is_sensible(move: Move, base: Setting, *, latency_is_free: bool) -> bool:
    """While latency is free there is nothing to gain from less, but from an uncomfortable number in flight."""
    return not latency_is_free or move.grows or (move is Move.FEWER and base.in_flight > COMFORTABLE_IN_FLIGHT)


def stride(move: Move, *, starting: bool, is_flat: bool) -> float:
    """The factor of a step. ``is_flat``: larger batches were seen not to take longer."""
    leaps = move is Move.LARGER and is_flat
    if starting:
        return _LEAP_STEP if leaps else _START_STEP
    return _START_STEP if leaps else _STEP


def wanted_gain(move: Move, held: Setting, tried: Setting, *, latency_is_free: bool) -> float:
    """Logarithm of the throughput, relative to the held one, that a trial must exceed.

    More in flight has to pay for the latency that it adds, and less may cost next to nothing. While latency is
    free, ties go to larger batches, which cost the client less, and to a few in flight, which keep the pipe full.
    """
    if latency_is_free and move.grows and (move is Move.LARGER or tried.in_flight <= COMFORTABLE_IN_FLIGHT):
        return -0.015
    if move is Move.MORE:
        return 0.08 * math.log(tried.in_flight / held.in_flight)
    if move is Move.LARGER:
        return max(0.0, 0.03 * math.log(tried.images / held.images))
    return -0.005 if move.shrinks else 0.01


class Tour:
    """Which move is next, and how long the held setting rests before it.

    It starts with large steps in the two directions that grow, without rest in between. When both have failed one
    after the other it goes round all moves, and each round without success doubles the rest, so that trials cost a
    shrinking part of the time while nothing is to be found.

    Invariant: ``hold_for`` is 0 while starting, and within 8 to 64 latencies after.
    """

    def __init__(self) -> None:
        self.starting = True
        self.hold_for = 0.0
        """Rest before the next trial, in latencies of the held setting."""
        self._moves = deque((Move.MORE, Move.LARGER))
        self._failed = 0
        self._resting: dict[Move, int] = {}
        self._rest_for: dict[Move, int] = {}

    def __repr__(self) -> str:
        return f"Tour({self.next.value!r}, starting={self.starting}, hold_for={self.hold_for})"

    def __len__(self) -> int:
        return len(self._moves)

    @property
    def next(self) -> Move:
        return self._moves[0]

    def is_resting(self) -> bool:
        """Whether the next move did so badly before that it is passed over; counts one pass."""
        left = self._resting.get(self.next, 0)
        if left:
            self._resting[self.next] = left - 1
        return left > 0

    def succeeded(self) -> None:
        """The same move is tried again first."""
        self._failed = 0
        self._resting.clear()
        self.hold_for = 0.0 if self.starting else _FIRST_HOLD

    def failed(self, *, clearly: bool = False) -> bool:
        """On to the next move. ``clearly`` passes this one over for some rounds, or for the rest of the start.
        Returns whether a round ended."""
        move = self.next
        if clearly:
            self._rest_for[move] = min(_LONGEST_REST, 2 * self._rest_for.get(move, 1))
            self._resting[move] = self._rest_for[move]
        self._moves.rotate(-1)
        self._failed += 1
        if clearly and self.starting:
            self._moves.remove(move)
            self._failed -= 1
        if self._failed < len(self._moves):
            return False
        self._failed = 0
        if self.starting:
            self.starting = False
            self._moves = deque(Move)
            self._resting.clear()
            self._rest_for.clear()
            self.hold_for = _FIRST_HOLD
        else:
            self.hold_for = min(_LAST_HOLD, 2.0 * self.hold_for)
        return True

    def restart(self) -> None:
        """The server changed: what failed may succeed now."""
        self._failed = 0
        self._resting.clear()
        self._rest_for.clear()
        self.hold_for = 0.0 if self.starting else _FIRST_HOLD


class Risks:
    """When a move that broke the target may be tried again where it may break it: each time after twice the pause.

    One move's failure says nothing of another's: more in flight at once may be too much where the same number of
    images in more batches is not.
    """

    def __init__(self) -> None:
        self._from: dict[Move, int] = {}
        self._pauses: dict[Move, int] = {}

    def __repr__(self) -> str:
        return f"Risks({', '.join(f'{move.value} from batch {count}' for move, count in self._from.items())})"

    def allows(self, move: Move, counted: int) -> bool:
        """``counted``: batches that said something so far."""
        return counted >= self._from.get(move, 0)

    def failed(self, move: Move, counted: int) -> None:
        pause = self._pauses.get(move, _RISK_PAUSES[0])
        self._from[move] = counted + pause
        self._pauses[move] = min(_RISK_PAUSES[1], 2 * pause)
