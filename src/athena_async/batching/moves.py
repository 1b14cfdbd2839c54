"""The neighbours of a setting: where the batch controller may climb from it."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Setting(NamedTuple):
    """Images a batch, and batches in flight."""

    images: int
    in_flight: int


class Move(Enum):
    """A direction. The swaps keep the images in flight about equal, and so the latency of a server whose
    cost is per image: along the latency target no other way leads uphill."""

    LARGER = "larger batches"
    MORE = "more in flight"
    SMALLER = "smaller batches"
    FEWER = "fewer in flight"
    FEWER_LARGER = "fewer, larger batches"
    MORE_SMALLER = "more, smaller batches"

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
