"""Which channel gets the next batch, and how many channels there are.

The pool decides and touches no socket: `pick` makes every assignment, `adjust` says what to open
and what to drain, and the engine around it does both.
"""

from __future__ import annotations

import random
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from athena_async.channels.balancers import Balancer, Candidate, PeakEwma, make_balancer
from athena_async.channels.health import HealthBoard
from athena_async.config import PoolConfig

_AGE_JITTER = 0.2
_SHRINK_AFTER_S = 30.0


class Lane(Protocol):
    """A channel as the pool sees it."""

    endpoint: str
    channel_id: int
    outstanding_bytes: int
    outstanding_images: int
    created_s: float
    used_s: float
    stalled: bool

    @property
    def ready(self) -> bool: ...


LaneT = TypeVar("LaneT", bound=Lane)


@dataclass(frozen=True, slots=True)
class Resize(Generic[LaneT]):
    """What to do so that the pool has its right size: channels to open, by endpoint, and lanes to drain."""

    open: Sequence[str]
    drain: Sequence[tuple[LaneT, str]]


@dataclass(slots=True)
class _Member(Generic[LaneT]):
    lane: LaneT
    expires_s: float
    latency: PeakEwma
    retiring: str = ""
    was_ready: bool = False


def draw_age_s(max_age_s: float, rng: random.Random) -> float:
    """How old a channel may become: ``max_age_s`` give or take a fifth, lest all be renewed at once; 0 is no limit."""
    return max_age_s * (1 + _AGE_JITTER * (2 * rng.random() - 1)) if max_age_s else float("inf")


class Pool(Generic[LaneT]):
    """All channels of a client.

    Invariants: only lanes that are ready, not retiring, and whose endpoint is eligible are picked;
    a retiring lane is drained once the one in its place has been ready, and any of its endpoint is; an endpoint
    never has more than ``max_channels`` lanes but while one replaces another.
    """

    def __init__(self, endpoints: Sequence[str], config: PoolConfig, health: HealthBoard, rng: random.Random) -> None:
        self.endpoints = tuple(endpoints)
        self._config = config
        self._health = health
        self._rng = rng
        self._balancer: Balancer = make_balancer(config.balancer, config.weights, rng)
        self._members: dict[int, _Member[LaneT]] = {}
        self._wanted = dict.fromkeys(endpoints, config.channels)
        self._grown_s = dict.fromkeys(endpoints, float("-inf"))

    def __repr__(self) -> str:
        lanes = ", ".join(repr(lane) for lane in self.lanes())
        return f"Pool({lanes or 'no channels'})"

    def __len__(self) -> int:
        return len(self._members)

    def lanes(self) -> list[LaneT]:
        """Every lane, retiring ones too."""
        return [member.lane for member in self._members.values()]

    def add(self, lane: LaneT, now: float) -> None:
        """Takes a lane in."""
        expires_s = now + draw_age_s(self._config.max_age_s, self._rng)
        self._members[lane.channel_id] = _Member(lane, expires_s, PeakEwma())

    def remove(self, lane: LaneT) -> None:
        """Forgets a lane that ended."""
        self._members.pop(lane.channel_id, None)

    def answered(self, lane: LaneT, seconds_per_image: float, now: float) -> None:
        """A batch sent on this lane was answered, on whatever stream."""
        member = self._members.get(lane.channel_id)
        if member is not None:
            member.latency.observe(seconds_per_image, now)

    def retire(self, lane: LaneT, reason: str) -> None:
        """Replaces a lane: certificate rotated, token renewed, server going away."""
        member = self._members.get(lane.channel_id)
        if member is not None and not member.retiring:
            member.retiring = reason

    def pick(self, now: float, with_room: Container[str]) -> LaneT | None:
        """The lane for the next batch, or None where none is ready. ``with_room``: the endpoints to choose from."""
        endpoints = [endpoint for endpoint in self._health.eligible(now) if endpoint in with_room]
        ready = [m for m in self._members.values() if m.lane.endpoint in endpoints and m.lane.ready]
        if not ready:
            return None
        if len(ready) == 1:
            return ready[0].lane
        lasting = {member.lane.endpoint for member in ready if not member.retiring}
        # A retiring lane serves only while it is all that its endpoint has.
        members = [member for member in ready if not member.retiring or member.lane.endpoint not in lasting]
        if len(members) == 1:
            return members[0].lane
        return members[self._balancer.pick([self._candidate(member, now) for member in members])].lane

    def adjust(self, now: float, *, waiting: bool) -> Resize[LaneT]:
        """What to open and drain. ``waiting``: images wait for a lane that has room."""
        opened: list[str] = []
        drained: list[tuple[LaneT, str]] = []
        for endpoint in self.endpoints:
            members = [m for m in self._members.values() if m.lane.endpoint == endpoint]
            for member in members:
                member.was_ready = member.was_ready or member.lane.ready
                if member.expires_s <= now and not member.retiring:
                    member.retiring = "age"
            lasting = [m for m in members if not m.retiring]
            self._resize(endpoint, lasting, now, waiting)
            missing = self._wanted[endpoint] - len(lasting)
            # An endpoint without work keeps what it has, and gets nothing new but replacements.
            if waiting or len(members) > len(lasting):
                opened.extend([endpoint] * missing)
            surplus = sorted(lasting, key=lambda m: m.lane.outstanding_bytes)[: max(0, -missing)]
            drained.extend((m.lane, "idle") for m in surplus)
            if any(m.lane.ready for m in lasting):
                replaced = len(members) - len(lasting) - max(0, self._wanted[endpoint] - self._up(lasting))
                drained.extend((m.lane, m.retiring) for m in [m for m in members if m.retiring][: max(0, replaced)])
        return Resize(opened, drained)

    @staticmethod
    def _up(members: list[_Member[LaneT]]) -> int:
        """How many have been connected: one that rests or lost its stream is not waited for again."""
        return sum(member.was_ready for member in members)

    def _candidate(self, member: _Member[LaneT], now: float) -> Candidate:
        lane = member.lane
        return Candidate(lane.endpoint, lane.outstanding_bytes, lane.outstanding_images, member.latency.value(now))

    def _resize(self, endpoint: str, lasting: list[_Member[LaneT]], now: float, waiting: bool) -> None:
        """Grows on unacknowledged bytes, one channel at a time; shrinks after quiet."""
        config = self._config
        # What a stream that hangs does not acknowledge, others would not either.
        full = bool(lasting) and all(
            m.lane.outstanding_bytes >= config.grow_unacked_bytes and not m.lane.stalled for m in lasting
        )
        if full and waiting and len(lasting) == self._wanted[endpoint] < config.max_channels:
            self._wanted[endpoint] += 1
            self._grown_s[endpoint] = now
        elif self._wanted[endpoint] > config.channels:
            busy = any(m.lane.outstanding_bytes >= config.grow_unacked_bytes // 2 for m in lasting)
            if busy:
                self._grown_s[endpoint] = now
            elif now - self._grown_s[endpoint] > _SHRINK_AFTER_S:
                self._wanted[endpoint] -= 1
                self._grown_s[endpoint] = now
