"""Which channel gets the next batch. Plain values: candidates in, an index out.

The pool offers the channels that are connected, eligible by `athena_async.channels.health` and below
their in-flight limit; a balancer only chooses among them. Endpoints, not channels, share the load: an
endpoint that the pool gave more channels because its answers lag must not get more work for it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from athena_async import config


class Candidate(NamedTuple):
    """A channel that could take the batch.

    Attributes:
        endpoint: ``host:port``; several channels may share it.
        outstanding_bytes: sent on this channel and unanswered.
        outstanding_images: their number.
        seconds_per_image: `PeakEwma` of the channel's latency per image; 0.0 where nothing was measured.
    """

    endpoint: str
    outstanding_bytes: int
    outstanding_images: int
    seconds_per_image: float


class Balancer(Protocol):
    """Chooses among candidates that may be others at each call."""

    def pick(self, candidates: Sequence[Candidate]) -> int:
        """Index of the chosen candidate. ``candidates`` are not empty, and in an order that is stable
        for those that stay."""
        ...


def make_balancer(name: config.Balancer, weights: Mapping[str, float], rng: random.Random) -> Balancer:
    """The balancer of that name. ``weights`` (1.0 where not named) matter for ``weighted`` alone."""
    if name == "round_robin":
        return RoundRobin()
    if name == "random":
        return Random(rng)
    if name == "weighted":
        return Weighted(weights)
    return LeastLoaded(rng)


class _Turns:
    """Who was chosen longest ago among those present; who never was goes first.

    With the same candidates at each call this is round robin. Where they change it stays fair, which a
    rotating index does not: that would favour whoever stands behind an absent one.
    """

    def __init__(self) -> None:
        self._turn = 0
        self._last: dict[object, int] = {}

    def next(self, keys: Sequence[object]) -> int:
        """Index of the key whose turn it is; takes the turn."""
        last = self._last
        index = min(range(len(keys)), key=lambda i: last.get(keys[i], 0))
        self._turn += 1
        last[keys[index]] = self._turn
        return index


class _Channels:
    """The channels of the chosen endpoint take turns, told apart by their place among their endpoint's."""

    def __init__(self) -> None:
        self._turns = _Turns()

    def pick(self, candidates: Sequence[Candidate], endpoint: str) -> int:
        own = [index for index, candidate in enumerate(candidates) if candidate.endpoint == endpoint]
        if len(own) == 1:
            return own[0]
        return own[self._turns.next([(endpoint, place) for place in range(len(own))])]


def _endpoints(candidates: Sequence[Candidate]) -> list[str]:
    return list(dict.fromkeys(candidate.endpoint for candidate in candidates))


class RoundRobin:
    """Endpoints take turns, and within each its channels."""

    def __init__(self) -> None:
        self._turns = _Turns()
        self._channels = _Channels()

    def __repr__(self) -> str:
        return "RoundRobin()"

    def pick(self, candidates: Sequence[Candidate]) -> int:
        endpoints = _endpoints(candidates)
        return self._channels.pick(candidates, endpoints[self._turns.next(endpoints)])


class Random:
    """An endpoint by chance, then one of its channels by chance."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def __repr__(self) -> str:
        return "Random()"

    def pick(self, candidates: Sequence[Candidate]) -> int:
        endpoint = self._rng.choice(_endpoints(candidates))
        return self._rng.choice([i for i, candidate in enumerate(candidates) if candidate.endpoint == endpoint])


class Weighted:
    """Smooth weighted round robin by endpoint (nginx): shares follow the weights, and turns interleave.

    Invariant: the credits of all endpoints add up to 0. The credit of an absent endpoint stands still,
    so that it neither catches up in a burst when it returns nor loses what it had.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = dict(weights)
        self._credit: dict[str, float] = {}
        self._channels = _Channels()

    def __repr__(self) -> str:
        return f"Weighted({self._weights!r})"

    def pick(self, candidates: Sequence[Candidate]) -> int:
        endpoints = _endpoints(candidates)
        total = 0.0
        for endpoint in endpoints:
            weight = self._weights.get(endpoint, 1.0)
            self._credit[endpoint] = self._credit.get(endpoint, 0.0) + weight
            total += weight
        chosen = max(endpoints, key=self._credit.__getitem__)
        self._credit[chosen] -= total
        return self._channels.pick(candidates, chosen)


class LeastLoaded:
    """The better of two candidates drawn by chance (M. Mitzenmacher, "The Power of Two Choices", 1996).

    Better is the smaller product of outstanding bytes and seconds per image. Looking at two rather than
    at all keeps many clients from running to the same idle endpoint at once. Half of what the two have
    outstanding is added to both, for the batch to be placed: a slow endpoint must not win by being idle.
    A candidate without measurement counts as fast as the other, so that it is tried but not flooded.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def __repr__(self) -> str:
        return "LeastLoaded()"

    def pick(self, candidates: Sequence[Candidate]) -> int:
        count = len(candidates)
        if count == 1:
            return 0
        one = self._rng.randrange(count)
        other = (one + 1 + self._rng.randrange(count - 1)) % count
        return one if _load(candidates[one], candidates[other]) <= _load(candidates[other], candidates[one]) else other


def _load(candidate: Candidate, rival: Candidate) -> float:
    seconds = candidate.seconds_per_image or rival.seconds_per_image or 1.0
    next_bytes = (candidate.outstanding_bytes + rival.outstanding_bytes) / 2 + 1
    return (candidate.outstanding_bytes + next_bytes) * seconds


class PeakEwma:
    """A latency that rises at once and falls slowly (Finagle's peak EWMA).

    A worse observation replaces the value; a better one pulls it down with time constant ``decay_s``.
    Without observations it decays as well, so that an endpoint that was slow once is tried again.

    Args:
        decay_s: seconds after which 63 % of a peak are forgotten.
    """

    def __init__(self, decay_s: float = 10.0) -> None:
        self._decay_s = decay_s
        self._value = 0.0
        self._at = -math.inf

    def __repr__(self) -> str:
        return f"PeakEwma({self._value:.6f})"

    def observe(self, seconds: float, now: float) -> None:
        """``seconds`` were measured at ``now``; times do not run backwards."""
        kept = math.exp(-max(0.0, now - self._at) / self._decay_s)
        self._value = max(seconds, self._value * kept + seconds * (1.0 - kept))
        self._at = now

    def value(self, now: float) -> float:
        """The estimate at ``now``; 0.0 before the first observation."""
        return self._value * math.exp(-max(0.0, now - self._at) / self._decay_s)
