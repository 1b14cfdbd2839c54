"""Four endpoints, of which one turns 20 times slower, one stops answering, and both return.

Healthy, the four share the load. With the faults, two must carry at least 0.8 of what two healthy ones carry. The
peers know one endpoint each, so there is one of them for each endpoint, each with a source of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from athena_async import AthenaClient, wire
from athena_async.config import Balancer, BatchingConfig, PoolConfig
from athena_async.events import BatchAnswered, EndpointEjected, EndpointReturned, Event
from benchmarks import children, hand_rolled, inputs, official, ours
from benchmarks.measure import HAND_ROLLED, OFFICIAL, OURS, Figure, Report, Row, Scale, Target, percentile

COST = json.dumps({"fixed_s": 0.005, "per_image_s": 0.0005, "parallelism": 1})
SLOW_FACTOR = 20.0
RETURN_LIMIT_S = 15.0
PEER_BATCH = 200
FULL_RATE = 0.9
"""Part of the healthy rate that counts as full."""


@dataclass(frozen=True, slots=True)
class Phases:
    """Seconds of each phase."""

    healthy_s: float
    faulty_s: float
    returned_s: float


@dataclass(slots=True)
class Log:
    """What happened when, on the loop's clock."""

    answered: list[tuple[float, int, float]] = field(default_factory=list)
    ejections: list[tuple[float, str]] = field(default_factory=list)
    returns: list[tuple[float, str]] = field(default_factory=list)
    slowest_s: float = 0.0
    failed: int = 0

    def add(self, at_s: float, images: int, latency_s: float) -> None:
        """A batch was answered."""
        self.answered.append((at_s, images, latency_s))

    def __call__(self, event: Event) -> None:
        if isinstance(event, BatchAnswered):
            self.add(event.at_s, event.images, event.latency_s)
        elif isinstance(event, EndpointEjected):
            self.ejections.append((event.at_s, event.endpoint))
        elif isinstance(event, EndpointReturned):
            self.returns.append((event.at_s, event.endpoint))

    def rate(self, begin_s: float, end_s: float) -> float:
        """Images answered a second."""
        return sum(images for at_s, images, _ in self.answered if begin_s <= at_s < end_s) / (end_s - begin_s)

    def p99_s(self, begin_s: float, end_s: float) -> float:
        """Latency that 99 % of the batches answered within the time stayed under."""
        return percentile([latency for at_s, _, latency in self.answered if begin_s <= at_s < end_s], 99)

    def full_rate_after(self, begin_s: float, end_s: float, rate: float) -> float:
        """Seconds from ``begin_s`` until a second begins in which ``rate`` is reached; infinite if none does."""
        steps = (begin_s + i * 0.25 for i in range(int((end_s - begin_s - 1) * 4)))
        return next((at_s - begin_s for at_s in steps if self.rate(at_s, at_s + 1) >= rate), math.inf)


Load = Callable[[Sequence[str], Log], Awaitable[None]]
"""Sends as much as it can to the endpoints until cancelled, and tells the log of each batch that is answered."""


@dataclass(frozen=True, slots=True)
class Course:
    """One run from beginning to end, on the loop's clock."""

    log: Log
    begin_s: float
    faulty_at_s: float
    returned_at_s: float
    end_s: float

    @property
    def _settled_s(self) -> float:
        """From when on the healthy rate is measured."""
        return (self.begin_s + self.faulty_at_s) / 2

    @property
    def ejected_after_s(self) -> list[float]:
        return [
            at_s - self.faulty_at_s for at_s, _ in self.log.ejections if self.faulty_at_s <= at_s < self.returned_at_s
        ]

    @property
    def healthy_rate(self) -> float:
        return self.log.rate(self._settled_s, self.faulty_at_s)

    @property
    def faulty_rate(self) -> float:
        return self.log.rate(self.faulty_at_s, self.returned_at_s)

    @property
    def healthy_p99_s(self) -> float:
        return self.log.p99_s(self._settled_s, self.faulty_at_s)

    @property
    def ejected_p99_s(self) -> float:
        """Once both faulty endpoints are out of the way, or at the latest when the phase is half over."""
        half_s = (self.returned_at_s - self.faulty_at_s) / 2
        return self.log.p99_s(self.faulty_at_s + min([*self.ejected_after_s[1:2], half_s]), self.returned_at_s)

    @property
    def full_rate_after_s(self) -> float:
        return self.log.full_rate_after(self.returned_at_s, self.end_s, FULL_RATE * self.healthy_rate)

    @property
    def note(self) -> str:
        ejections = ", ".join(f"{after_s:.1f} s" for after_s in self.ejected_after_s)
        return (
            f"ejected after: {ejections or 'never'}; slowest image {self.log.slowest_s:.1f} s, "
            f"{self.log.failed} not classified"
        )


async def run(scale: Scale) -> Report:
    """Balancers side by side: their servers mostly sleep. Each run has a new client and new servers; the peers' come
    after ours, once, in a full run."""
    report = Report(series={"S7": {}})
    phases = scale.pick(Phases(8, 50, 30), Phases(1, 2.2, 1.6))
    balancers: tuple[Balancer, ...] = scale.pick(("least_loaded", "round_robin"), ("least_loaded",))
    rounds = [
        await asyncio.gather(*(_measure(_own_load(balancer), phases) for balancer in balancers))
        for _ in range(scale.pick(3, 1))
    ]
    loads: dict[str, Load] = {} if scale.quick else {HAND_ROLLED: _hand_rolled_load, OFFICIAL: _official_load}
    peers = {name: await _measure(load, phases) for name, load in loads.items()}
    for balancer, courses in zip(balancers, zip(*rounds, strict=True), strict=True):
        report.rows += _rows(courses, balancer, phases, peers)
        report.series["S7"][balancer] = _series(courses[-1])
    return report


async def _measure(load: Load, phases: Phases) -> Course:
    """Puts ``load`` on four new servers, and lets two of them fail and return."""
    log = Log()
    now = asyncio.get_running_loop().time
    async with contextlib.AsyncExitStack() as stack:
        starts = [stack.enter_async_context(children.start("benchmarks.server", COST)) for _ in range(4)]
        servers = await asyncio.gather(*starts)
        begin_s = now()
        loading = asyncio.ensure_future(load([server.endpoint for server in servers], log))
        await asyncio.sleep(phases.healthy_s)
        faulty_at_s = now()
        servers[0].send(factor=SLOW_FACTOR)
        servers[1].send(hang=1)
        await asyncio.sleep(phases.faulty_s)
        returned_at_s = now()
        servers[0].send(factor=1)
        servers[1].send(hang=0)
        await asyncio.sleep(phases.returned_s)
        end_s = now()
        if loading.done():
            loading.result()  # it failed
        loading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await loading
    return Course(log, begin_s, faulty_at_s, returned_at_s, end_s)


def _own_load(balancer: Balancer) -> Load:
    """As many images as our client takes."""

    async def load(endpoints: Sequence[str], log: Log) -> None:
        batching = BatchingConfig(target_latency_s=0.3)
        config = ours.config(*endpoints, pool=PoolConfig(balancer=balancer), batching=batching)
        async with AthenaClient(config, observers=[log]) as client:
            try:
                async for result in client.stream(itertools.cycle(ours.hash_only(inputs.digests(1000)))):
                    log.slowest_s = max(log.slowest_s, result.latency_s)
                    log.failed += not result.ok
            finally:
                await client.aclose(drain_timeout_s=0.0)  # nobody waits for what is in flight

    return load


async def _hand_rolled_load(endpoints: Sequence[str], log: Log) -> None:
    """A stream to each endpoint, with two batches of 200 unanswered: about what ours settles on."""
    now = asyncio.get_running_loop().time
    payloads = [wire.Payload(b"", md5=(digest,)) for digest in inputs.digests(PEER_BATCH)]
    message = hand_rolled.requests(payloads, PEER_BATCH)[0]

    async def one(endpoint: str) -> None:
        async with (
            hand_rolled.connections(endpoint, 1) as channels,
            contextlib.aclosing(hand_rolled.windowed(channels[0], message, 2)) as batches,
        ):
            async for sent, answered in batches:
                log.add(now(), PEER_BATCH, answered - sent)

    await asyncio.gather(*(one(endpoint) for endpoint in endpoints))


async def _official_load(endpoints: Sequence[str], log: Log) -> None:
    """A client of each endpoint, which take what they will: neither knows of the other."""
    now = asyncio.get_running_loop().time
    tiny = inputs.tiny(1000)
    settings = official.Settings(batch=PEER_BATCH, resize=False, compress=False)

    async def one(endpoint: str) -> None:
        async with (
            official.connected(endpoint, settings) as client,
            contextlib.aclosing(official.latencies(client, itertools.cycle(tiny))) as answered,
        ):
            async for latencies in answered:
                log.add(now(), len(latencies), max(latencies, default=0.0))

    await asyncio.gather(*(one(endpoint) for endpoint in endpoints))


def _rows(courses: Sequence[Course], balancer: str, phases: Phases, peers: Mapping[str, Course]) -> list[Row]:
    def figure(of: Callable[[Course], float]) -> Figure:
        return Figure(tuple(of(course) for course in courses))

    def beside(of: Callable[[Course], float], what: str = "") -> dict[str, Figure]:
        return {name + what: Figure((of(course),)) for name, course in peers.items()}

    healthy, faulty = figure(lambda course: course.healthy_rate), figure(lambda course: course.faulty_rate)
    healthy_ms = figure(lambda course: course.healthy_p99_s * 1000)
    p99_ms = figure(lambda course: course.ejected_p99_s * 1000)
    back_s = figure(lambda course: course.full_rate_after_s)
    what = f"4 endpoints, {balancer}"
    return [
        Row(
            "S7",
            f"{what}: rate with one slow, one silent",
            "images/s",
            {
                OURS: faulty,
                "healthy": healthy,
                **beside(lambda course: course.faulty_rate),
                **beside(lambda course: course.healthy_rate, ", healthy"),
            },
            [Target(">= 0.8x the two healthy ones' share", faulty.median / (healthy.median / 2), 0.8)],
            "\n".join(course.note for course in courses),
        ),
        Row(
            "S7",
            f"{what}: p99 of a batch after ejection",
            "ms",
            {
                OURS: p99_ms,
                "healthy": healthy_ms,
                **beside(lambda course: course.ejected_p99_s * 1000),
                **beside(lambda course: course.healthy_p99_s * 1000, ", healthy"),
            },
            # What was in flight as an endpoint turned slow takes seconds: a quick run is over before.
            [Target("<= 2x healthy", p99_ms.median / healthy_ms.median, 2.0, at_least=False)]
            if phases.faulty_s > 20
            else [],
        ),
        Row(
            "S7",
            f"{what}: full rate after return",
            "s",
            {OURS: back_s, **beside(lambda course: course.full_rate_after_s)},
            # A quick run ends long before the limit: that it did not see the return says nothing.
            [Target(f"<= {RETURN_LIMIT_S:.0f} s", back_s.median, RETURN_LIMIT_S, at_least=False)]
            if phases.returned_s > RETURN_LIMIT_S or math.isfinite(back_s.median)
            else [],
        ),
    ]


def _series(course: Course) -> dict[str, object]:
    """The rate in each half second, for the chart."""
    steps = [course.begin_s + i * 0.5 for i in range(int((course.end_s - course.begin_s) * 2))]
    return {
        "at_s": [at_s - course.begin_s for at_s in steps],
        "images_per_s": [course.log.rate(at_s, at_s + 0.5) for at_s in steps],
        "faulty_at_s": course.faulty_at_s - course.begin_s,
        "returned_at_s": course.returned_at_s - course.begin_s,
    }
