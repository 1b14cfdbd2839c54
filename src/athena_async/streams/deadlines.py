"""When images are given up: one entry for each group accepted together, not one timer for each image."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence

from athena_async.streams.ticket import Ticket

_FEW = 16_384


class Deadlines:
    """A heap of groups by deadline.

    Invariant: beside the open images it holds at most as many settled ones, or a few thousand: one image that is
    never answered must not keep all later ones in memory until its deadline.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, list[Ticket]]] = []
        self._order = itertools.count()
        self._size = 0
        self._sweep_at = _FEW

    def __bool__(self) -> bool:
        return bool(self._heap)

    def __repr__(self) -> str:
        return f"Deadlines({len(self._heap)} groups)"

    def __len__(self) -> int:
        """Images held, settled ones too."""
        return self._size

    def add(self, tickets: Sequence[Ticket]) -> None:
        """Enters images that were accepted together, in order: none is given up before the last of them may be."""
        if tickets:
            heapq.heappush(self._heap, (tickets[-1].deadline_s, next(self._order), list(tickets)))
            self._size += len(tickets)
            if self._size > self._sweep_at:
                self._sweep()

    def next_s(self) -> float | None:
        """The earliest deadline of an open image, or None. Drops groups that are settled by now."""
        while self._heap and all(ticket.settled for ticket in self._heap[0][2]):
            self._size -= len(heapq.heappop(self._heap)[2])
        return self._heap[0][0] if self._heap else None

    def expired(self, now: float) -> list[Ticket]:
        """Takes out the open images whose deadline is over."""
        gone: list[Ticket] = []
        while self._heap and self._heap[0][0] <= now:
            group = heapq.heappop(self._heap)[2]
            self._size -= len(group)
            gone.extend(ticket for ticket in group if not ticket.settled)
        return gone

    def _sweep(self) -> None:
        """Lets go of settled images, once there may be as many of them as of open ones."""
        swept = [(at, order, [t for t in group if not t.settled]) for at, order, group in self._heap]
        self._heap = [entry for entry in swept if entry[2]]
        heapq.heapify(self._heap)
        self._size = sum(len(group) for _, _, group in self._heap)
        self._sweep_at = max(_FEW, 2 * self._size)
