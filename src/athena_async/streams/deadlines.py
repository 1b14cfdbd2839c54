"""When images are given up: one entry for each group accepted together, not one timer for each image."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence

from athena_async.streams.ticket import Ticket


class Deadlines:
    """A heap of groups by deadline. Settled images stay in until their group is over or empty."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, list[Ticket]]] = []
        self._order = itertools.count()

    def __bool__(self) -> bool:
        return bool(self._heap)

    def __repr__(self) -> str:
        return f"Deadlines({len(self._heap)} groups)"

    def add(self, tickets: Sequence[Ticket]) -> None:
        """Enters images that share a deadline."""
        if tickets:
            heapq.heappush(self._heap, (tickets[0].deadline_s, next(self._order), list(tickets)))

    def next_s(self) -> float | None:
        """The earliest deadline of an open image, or None. Drops groups that are settled by now."""
        while self._heap and all(ticket.settled for ticket in self._heap[0][2]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def expired(self, now: float) -> list[Ticket]:
        """Takes out the open images whose deadline is over."""
        gone: list[Ticket] = []
        while self._heap and self._heap[0][0] <= now:
            gone.extend(ticket for ticket in heapq.heappop(self._heap)[2] if not ticket.settled)
        return gone
