"""Whose answer is whose: one table of open correlation ids for the whole client.

Answers come in any order, on any stream, twice, late, or for other clients of the deployment.
"""

from __future__ import annotations

import itertools
import secrets
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from athena_async.streams.ticket import Ticket
from athena_async.wire import Answer

_PREFIX_BYTES = 9  # 72 random bits: clients that share a deployment do not meet


class Routed(NamedTuple):
    """What a response held, sorted."""

    matched: Iterable[tuple[Ticket, Answer]]
    late_count: int
    foreign: list[Answer]


class CorrelationIds:
    """Makes ids that are unique within a deployment: a random prefix per client and a counter."""

    def __init__(self, prefix: str | None = None) -> None:
        self.prefix = f"{prefix or secrets.token_hex(_PREFIX_BYTES)}-"
        self._counter = itertools.count()

    def next(self) -> str:
        """A new id of at most 64 characters."""
        return f"{self.prefix}{next(self._counter):x}"


class Demultiplexer:
    """Open images by correlation id.

    Invariants: an id stands here from acceptance to settlement of its image; an image is matched
    only if it was sent; ids of settled images that the caller chose are remembered, the newest
    ``remembered`` of them, to tell their late answers from those of other clients.
    """

    def __init__(self, own_prefix: str, remembered: int = 200_000) -> None:
        self._own_prefix = own_prefix
        self._remembered = remembered
        self._open: dict[str, Ticket] = {}
        self._settled_ids: OrderedDict[str, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, correlation_id: str) -> bool:
        return correlation_id in self._open

    def __repr__(self) -> str:
        return f"Demultiplexer({len(self._open)} open)"

    def open_tickets(self) -> list[Ticket]:
        """All unsettled images, oldest first."""
        return list(self._open.values())

    def register(self, ticket: Ticket) -> bool:
        """Enters an image. False, and nothing entered, where its id is open already."""
        return self._open.setdefault(ticket.correlation_id, ticket) is ticket

    def forget(self, ticket: Ticket) -> None:
        """Removes a settled image."""
        correlation_id = ticket.correlation_id
        if self._open.get(correlation_id) is not ticket:
            return
        del self._open[correlation_id]
        if not correlation_id.startswith(self._own_prefix):
            self._settled_ids[correlation_id] = None
            self._settled_ids.move_to_end(correlation_id)
            if len(self._settled_ids) > self._remembered:
                self._settled_ids.popitem(last=False)

    def route(self, answers: Sequence[Answer]) -> Routed:
        """Sorts answers; removes nothing. Of two answers to one image in ``answers`` the first counts."""
        matched: dict[Ticket, Answer] = {}
        foreign: list[Answer] = []
        late_count = 0
        find = self._open.get
        for answer in answers:
            ticket = find(answer.correlation_id)
            if ticket is not None and ticket.attempts and ticket not in matched:
                matched[ticket] = answer
            elif ticket in matched or self._is_ours(answer.correlation_id):
                late_count += 1
            else:
                foreign.append(answer)
        return Routed(matched.items(), late_count, foreign)

    def _is_ours(self, correlation_id: str) -> bool:
        return correlation_id.startswith(self._own_prefix) or correlation_id in self._settled_ids
