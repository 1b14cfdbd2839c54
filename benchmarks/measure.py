"""The method: warm up, take turns, report medians with their spread.

All peers of a scenario run in one process, in turns, against the same server process, so that whatever else the
machine does meets each of them alike; ratios are of medians.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")

Peer = Callable[[], Awaitable[float]]
"""Runs once and returns its figure, in the unit of its row."""

OURS, OFFICIAL, HAND_ROLLED = "ours", "official", "hand-rolled"


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured: ``--full`` or ``--quick``."""

    quick: bool = False

    @property
    def rounds(self) -> int:
        return self.pick(5, 3)

    def pick(self, full: T, quick: T) -> T:
        return quick if self.quick else full


@dataclass(frozen=True, slots=True)
class Figure:
    """Repeated measurements of one thing."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on ``value``, which is mostly a ratio of medians. Told, never asserted."""

    text: str
    value: float
    limit: float
    at_least: bool = True

    @property
    def met(self) -> bool:
        if math.isnan(self.value):
            return False
        return self.value >= self.limit if self.at_least else self.value <= self.limit


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: what was measured, each peer's figure, and what was aimed at."""

    scenario: str
    what: str
    unit: str
    figures: Mapping[str, Figure]
    targets: Sequence[Target] = ()
    note: str = ""

    def ratio(self, peer: str, to: str) -> float:
        """The one's median over the other's; NaN where either is missing, or the other 0."""
        if peer not in self.figures or to not in self.figures or not self.figures[to].median:
            return math.nan
        return self.figures[peer].median / self.figures[to].median


@dataclass(slots=True)
class Report:
    """What a scenario found: rows for the table, and named series for charts."""

    rows: list[Row] = field(default_factory=list)
    series: dict[str, Any] = field(default_factory=dict)


async def take_turns(peers: Mapping[str, Peer], rounds: int, warm_up: int = 1) -> dict[str, Figure]:
    """Runs each peer ``warm_up`` times unmeasured, then all of them in turns, ``rounds`` times."""
    for peer in peers.values():
        for _ in range(warm_up):
            await peer()
    found: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(rounds):
        for name, peer in peers.items():
            found[name].append(await peer())
    return {name: Figure(tuple(values)) for name, values in found.items()}


def compare(
    figures: Mapping[str, Figure], to: str, limit: float, *, at_least: bool = True, peer: str = OURS
) -> list[Target]:
    """The target "``peer`` at least (or at most) ``limit`` times ``to``"; none where either is missing."""
    if peer not in figures or to not in figures:
        return []
    value = figures[peer].median / figures[to].median
    return [Target(f"{'>=' if at_least else '<='} {limit:g}x {to}", value, limit, at_least)]


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that ``percent`` of all do not exceed; NaN for none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


async def rate(count: int, seconds: Awaitable[float]) -> float:
    """How many of ``count`` things a second, where the run takes ``seconds``."""
    return count / await seconds
