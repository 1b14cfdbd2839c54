"""When a batch leaves: prepared images wait here for a channel with room, first in first out.

`Batcher.pump` makes every assignment, synchronously; it is called whenever something changed
that could let a batch leave.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from athena_async.batching.controller import BatchController
from athena_async.batching.plan import BatchPlan
from athena_async.streams.ticket import Batch, Carrier, Ticket


class Route(Carrier, Protocol):
    """A channel that a batch may leave on."""

    endpoint: str

    def send(self, batch: Batch) -> None: ...


RouteT = TypeVar("RouteT", bound=Route)


@dataclass(slots=True)
class _Load:
    controller: BatchController
    in_flight: int = 0


class Batcher(Generic[RouteT]):
    """Accumulates images and hands batches to channels.

    Invariants: images leave in the order they came, resent ones first; a batch exceeds neither the plan's
    images nor its bytes, unless a single image does; an image waits only while no channel has
    room, or, with batches in flight, for company and no longer than ``linger_s``; one that was settled while
    it waited is dropped; ``ready_bytes`` is what was counted when they came, whatever became of their frames.

    ``pick`` is asked for a channel of one of the endpoints that have room; ``refuse`` settles an image that is known to
    be too large for the service, and tells whether it did.
    """

    def __init__(
        self,
        controllers: dict[str, BatchController],
        pick: Callable[[float, Sequence[str]], RouteT | None],
        sent: Callable[[RouteT, Batch], None],
        refuse: Callable[[Ticket], bool],
        linger_s: float,
        in_flight_limit: Callable[[str, int], int] = lambda _endpoint, planned: planned,
    ) -> None:
        self._loads = {endpoint: _Load(controller) for endpoint, controller in controllers.items()}
        self._pick = pick
        self._sent = sent
        self._refuse = refuse
        self._linger_s = linger_s
        self._in_flight_limit = in_flight_limit
        self._ready: deque[Ticket] = deque()
        self._ready_bytes = 0
        self._paused = 0
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._ready)

    def __repr__(self) -> str:
        flights = ", ".join(f"{endpoint}: {load.in_flight}" for endpoint, load in self._loads.items())
        return f"Batcher({len(self._ready)} images, {self._ready_bytes} bytes ready; batches in flight {flights})"

    @property
    def ready_bytes(self) -> int:
        """Bytes of the frames that wait."""
        return self._ready_bytes

    def in_flight(self, endpoint: str) -> int:
        """Batches of an endpoint that are unanswered."""
        return self._loads[endpoint].in_flight

    def offer(self, tickets: Iterable[Ticket], now: float) -> None:
        """Appends prepared images and lets leave what may."""
        size_bytes = 0
        append = self._ready.append
        for ticket in tickets:
            ticket.ready_s = now
            size_bytes += ticket.frame_bytes
            append(ticket)
        self._ready_bytes += size_bytes
        self.pump(now)

    def offer_first(self, tickets: list[Ticket], now: float) -> None:
        """Puts images that come back at the front, in their order. Does not pump."""
        for ticket in reversed(tickets):
            ticket.ready_s = now
            self._ready_bytes += ticket.frame_bytes
            self._ready.appendleft(ticket)

    def finished(self, endpoint: str) -> None:
        """A batch of this endpoint is over, answered or lost."""
        self._loads[endpoint].in_flight -= 1

    def pause(self) -> None:
        """No batch leaves until `resume`, called as often."""
        self._paused += 1

    def resume(self) -> None:
        self._paused -= 1

    def remove(self, gone: Callable[[Ticket], bool]) -> list[Ticket]:
        """Takes out the images for which ``gone`` holds, and returns them."""
        removed = [ticket for ticket in self._ready if gone(ticket)]
        if removed:
            self._ready = deque(ticket for ticket in self._ready if not gone(ticket))
            self._ready_bytes -= sum(ticket.frame_bytes for ticket in removed)
        return removed

    def pump(self, now: float) -> None:
        """Hands out batches until none is due or no channel has room.

        Those of one endpoint that leave together count each other as in flight: on two connections of one link
        they are carried side by side, and the first waits for the last as much as the last for it.
        """
        left: list[tuple[_Load, Batch]] = []
        while not self._paused and self._drop_settled():
            if self._refuse(self._ready[0]):
                continue
            with_room = [endpoint for endpoint, load in self._loads.items() if self._has_room(endpoint, load, now)]
            route = self._pick_due(with_room, now)
            if route is None:
                break
            load = self._loads[route.endpoint]
            plan = load.controller.plan(now)
            batch = self._take(load, plan, route, now)
            load.in_flight += 1
            left.append((load, batch))
            route.send(batch)
            self._sent(route, batch)
        for load, batch in left:
            batch.in_flight = load.in_flight

    def close(self) -> None:
        """Stops the linger timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _drop_settled(self) -> bool:
        """Drops images at the front that were settled meanwhile; whether one that was not is left."""
        while self._ready and self._ready[0].settled:
            self._ready_bytes -= self._ready.popleft().frame_bytes
        return bool(self._ready)

    def _pick_due(self, with_room: list[str], now: float) -> RouteT | None:
        """A channel that the next batch is to leave on now, one with nothing in flight where the first choice is busy
        and the batch small."""
        route = self._pick(now, with_room) if with_room else None
        if route is None or self._is_due(route, now):
            return route
        idle = [endpoint for endpoint in with_room if not self._loads[endpoint].in_flight]
        return self._pick(now, idle) if idle else None

    def _has_room(self, endpoint: str, load: _Load, now: float) -> bool:
        planned = load.controller.plan(now).in_flight
        return load.in_flight < self._in_flight_limit(endpoint, planned)

    def _is_due(self, route: RouteT, now: float) -> bool:
        load = self._loads[route.endpoint]
        plan = load.controller.plan(now)
        # Beyond the plan is room for batches that do not count.
        extra = self._in_flight_limit(route.endpoint, plan.in_flight) - plan.in_flight
        oldest_s = self._ready[0].ready_s
        waited_s = now - oldest_s
        if now >= oldest_s + self._linger_s:  # the timer's own sum, which the difference can miss by a rounding
            waited_s = max(waited_s, self._linger_s)
        due = load.controller.due(
            ready_images=len(self._ready),
            ready_bytes=self._ready_bytes,
            oldest_wait_s=waited_s,
            in_flight=max(0, load.in_flight - extra),
        )
        if not due and self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(oldest_s + self._linger_s, self._lingered)
        return due

    def _lingered(self) -> None:
        self._timer = None
        self.pump(asyncio.get_running_loop().time())

    def _take(self, load: _Load, plan: BatchPlan, route: RouteT, now: float) -> Batch:
        ready, room, room_bytes = self._ready, plan.images, plan.size_bytes
        tickets: list[Ticket] = []
        size_bytes = 0
        while room and ready:
            ticket = ready[0]
            if ticket.settled:
                self._drop_settled()
                continue
            if tickets and size_bytes + ticket.frame_bytes > room_bytes:
                break
            tickets.append(ready.popleft())
            size_bytes += ticket.frame_bytes
            room -= 1
        self._ready_bytes -= size_bytes
        return Batch(tickets, size_bytes, route, now, queue_depth=len(self._ready))
