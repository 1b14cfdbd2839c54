"""Images whose stream was lost: take what the deployment still holds, and only then send again.

The service keeps an answer until it is sent to some client of the deployment, and bills resends. So an
image that was possibly sent waits, while streams are open and read, until answers have stopped coming and the
deployment says that it holds none; only then is it due. A plain value: the engine feeds and asks it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from athena_async.config import RetryConfig
from athena_async.streams.ticket import Ticket

RETENTION_S = 3600.0
"""The service keeps an answer for an hour: after that it owes nothing, whatever its backlog says."""

_GRACE_LATENCIES = 4.0


class LatencyEstimate:
    """Smoothed latency of batches and its deviation, as TCP's retransmission timer (RFC 6298)."""

    def __init__(self) -> None:
        self.mean_s = 0.0
        self.deviation_s = 0.0

    def observe(self, latency_s: float) -> None:
        """One batch took this long."""
        if not self.mean_s:
            self.mean_s, self.deviation_s = latency_s, latency_s / 2
            return
        self.deviation_s += (abs(latency_s - self.mean_s) - self.deviation_s) / 4
        self.mean_s += (latency_s - self.mean_s) / 8

    @property
    def usual_s(self) -> float:
        """What an answer usually takes at most: mean and two deviations."""
        return self.mean_s + 2 * self.deviation_s


@dataclass(slots=True)
class _Group:
    """Images of one loss. ``quiet_s``: since when streams were read and none of them was answered."""

    tickets: dict[str, Ticket]
    lost_s: float
    quiet_s: float | None
    empty_s: float | None = field(default=None)


class Recovery:
    """Orphans: images possibly sent, whose stream is gone.

    Invariants: an orphan is in no batch; it leaves by its answer, by becoming due, or by its
    deadline; none becomes due within the grace period of open, quiet streams, nor, for an hour, while
    the deployment says that it holds answers. Where it stops saying, the longest grace period decides.
    """

    def __init__(self, config: RetryConfig, latency: LatencyEstimate) -> None:
        self._config = config
        self._latency = latency
        self._groups: list[_Group] = []
        self._reading = False
        self._backlog: int | None = None
        self._backlog_failed = False

    def __bool__(self) -> bool:
        return bool(self._groups)

    def __len__(self) -> int:
        return sum(len(group.tickets) for group in self._groups)

    def __repr__(self) -> str:
        return f"Recovery({len(self)} orphans, backlog={self._backlog}, reading={self._reading})"

    def tickets(self) -> list[Ticket]:
        """All orphans."""
        return [ticket for group in self._groups for ticket in group.tickets.values()]

    @property
    def grace_s(self) -> float:
        """How long streams must be quiet: four times the usual latency, within the configured bounds."""
        config = self._config
        return min(config.grace_max_s, max(config.grace_min_s, _GRACE_LATENCIES * self._latency.usual_s))

    def orphan(self, tickets: Iterable[Ticket], now: float) -> None:
        """A stream was lost with these images possibly sent."""
        lost = {ticket.correlation_id: ticket for ticket in tickets}
        if lost:
            self._groups.append(_Group(lost, now, now if self._reading else None))
            self._backlog, self._backlog_failed = None, False

    def discard(self, ticket: Ticket) -> bool:
        """An orphan was settled. Returns whether it was one."""
        for group in self._groups:
            if group.tickets.pop(ticket.correlation_id, None) is not None:
                if not group.tickets:
                    self._groups.remove(group)
                return True
        return False

    def answered(self, ticket: Ticket, now: float) -> bool:
        """An orphan was answered after all: its group is not quiet. Returns whether it was one."""
        for group in self._groups:
            if ticket.correlation_id in group.tickets:
                group.quiet_s = now if self._reading else None
                return self.discard(ticket)
        return False

    def reading(self, is_reading: bool, now: float) -> None:
        """Whether any stream of the deployment is open."""
        if is_reading == self._reading:
            return
        self._reading = is_reading
        for group in self._groups:
            group.quiet_s = now if is_reading else None
            group.empty_s = None

    def backlog(self, count: int | None, now: float, asked_s: float | None = None) -> None:
        """What the deployment holds; None where it would not say. An unlisted deployment holds nothing.

        ``asked_s``: when it was asked, where that was earlier: it cannot speak of streams that were lost since.
        """
        self._backlog_failed = count is None
        self._backlog = count
        for group in self._groups:
            if count:
                group.empty_s = None
                group.quiet_s = now if self._reading else None
            elif count == 0 and group.empty_s is None and group.lost_s <= (now if asked_s is None else asked_s):
                group.empty_s = now

    def stalled(self, now: float) -> None:
        """The event loop stood still: answers may lie unread in the sockets, so quiet starts anew."""
        for group in self._groups:
            group.quiet_s = now if self._reading else None

    def due(self, now: float) -> list[Ticket]:
        """Takes out the images that may be sent again now."""
        ready = [group for group in self._groups if self._is_due(group, now)]
        for group in ready:
            self._groups.remove(group)
        return [ticket for group in ready for ticket in group.tickets.values()]

    def _is_due(self, group: _Group, now: float) -> bool:
        if group.quiet_s is None or not self._reading:
            return False
        if now - group.lost_s > RETENTION_S:
            return True
        if group.empty_s is not None:
            return now >= group.quiet_s + self.grace_s
        # Nobody knows what the deployment holds: wait as long as configured at most.
        return self._backlog_failed and now >= group.quiet_s + self._config.grace_max_s
