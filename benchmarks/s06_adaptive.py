"""Adaptive batching under five server profiles: throughput with p95 of a batch inside the target latency.

The peer is a hand-rolled stream with a fixed batch size and a fixed number of batches in flight; of all those tried,
the fastest whose p95 holds. No setting of ours changes between profiles. The profiles run side by side: their servers
mostly sleep. The official client, which has no bound on its latency, runs after them, one profile at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import grpc

from athena_async import AthenaClient, wire
from athena_async.config import BatchingConfig, PreprocessConfig
from benchmarks import children, hand_rolled, inputs, official, ours
from benchmarks.measure import OFFICIAL, OURS, Figure, Report, Row, Scale, Target, compare, percentile, take_turns

TARGET_LATENCY_S = 0.3
LINK_MBIT_PER_S = 400
DRIFT = 5.0
SIZES = (1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 200)
FRAME_SIZES = (1, 2, 3, 4, 6)
WINDOWS = (1, 2, 4)
OFFICIAL_SIZES, OFFICIAL_FRAME_SIZES = (10, 200), (1, 6)
FIXED = "best fixed"


@dataclass(frozen=True, slots=True)
class Profile:
    """A server, and what it is sent."""

    name: str
    costs: Mapping[str, float]
    frames: bool = False
    drifts: bool = False


PROFILES = (
    Profile("fixed cost", {"fixed_s": 0.03}),
    Profile("cost per item", {"fixed_s": 0.002, "per_image_s": 0.001}),
    Profile("knee at 32", {"fixed_s": 0.02, "per_image_s": 0.0002, "knee_images": 32, "knee_factor": 21}),
    Profile("slow drift of 5x", {"fixed_s": 0.005, "per_image_s": 0.0005}, drifts=True),
    Profile("bandwidth-bound", {}, frames=True),
)


@dataclass(frozen=True, slots=True)
class Course:
    """How long one run is: ``warm_s`` to find its feet, then ``measured_s``, in which a drift takes place."""

    warm_s: float
    measured_s: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run reached within its measured time."""

    throughput: float
    p95_s: float

    @property
    def held(self) -> bool:
        return self.p95_s <= TARGET_LATENCY_S


@dataclass(frozen=True, slots=True)
class Server:
    """Where a profile is served. ``drift(s)`` begins its drift, ``drift(None)`` takes it back."""

    endpoint: str
    drift: Callable[[float | None], None]


async def run(scale: Scale) -> Report:
    report = Report(series={"S6": {}})
    chosen = scale.pick(PROFILES, PROFILES[:3])
    found = await asyncio.gather(*(_profile(profile, scale) for profile in chosen))
    for profile, (row, course) in zip(chosen, found, strict=True):
        report.rows.append(row if scale.quick else await _with_official(row, profile))
        report.series["S6"][row.what] = course
    return report


async def _profile(profile: Profile, scale: Scale) -> tuple[Row, dict[str, Any]]:
    """The row of a profile, and the course of our last run under it."""
    runs: list[tuple[Outcome, dict[str, Any]]] = []
    async with _serve(profile) as server, hand_rolled.connections(server.endpoint, 1) as channels:
        size, window = await _best_fixed(channels[0], server, profile, scale)

        async def own() -> float:
            runs.append(await _adaptive(server, profile, scale))
            return runs[-1][0].throughput

        async def fixed() -> float:
            return (await _fixed(channels[0], profile, size, window, _course(scale), server)).throughput

        figures = await take_turns({OURS: own, FIXED: fixed}, scale.pick(3, 1), warm_up=0)
    p95_s = Figure(tuple(outcome.p95_s for outcome, _ in runs)).median
    how = f"{size} images a batch, {window} in flight"
    targets = compare(figures, FIXED, 0.9)
    targets.append(Target(f"p95 <= {TARGET_LATENCY_S} s", p95_s, TARGET_LATENCY_S, at_least=False))
    return Row("S6", profile.name, "images/s", figures, targets, f"best fixed: {how}"), runs[-1][1]


@contextlib.asynccontextmanager
async def _serve(profile: Profile) -> AsyncIterator[Server]:
    if profile.frames:
        async with children.start("benchmarks.server") as sink:
            link = ("--to", sink.endpoint, "--mbit-per-s", str(LINK_MBIT_PER_S))
            async with children.start("benchmarks.proxy", *link) as proxy:
                yield Server(proxy.endpoint, lambda seconds: None)
    else:
        async with children.start("benchmarks.server", json.dumps({"parallelism": 1, **profile.costs})) as child:

            def drift(seconds: float | None) -> None:
                if profile.drifts:
                    child.send(drift_factor=1.0 if seconds is None else DRIFT, drift_s=seconds or 1.0)

            yield Server(child.endpoint, drift)


async def _adaptive(server: Server, profile: Profile, scale: Scale) -> tuple[Outcome, dict[str, Any]]:
    """Our client, new and with nothing learnt."""
    course = _course(scale)
    observed = ours.Observed()
    config = ours.config(
        server.endpoint,
        batching=BatchingConfig(target_latency_s=TARGET_LATENCY_S),
        preprocess=PreprocessConfig(encoding="none", hashes=()),
    )
    async with AthenaClient(config, observers=[observed]) as client:
        samples: list[dict[str, float]] = []
        watch = asyncio.ensure_future(ours.watch(client, 0.05, samples))
        images = itertools.cycle(
            ours.arrays(inputs.frames()) if profile.frames else ours.hash_only(inputs.digests(1000))
        )
        start, measured, answered = time.perf_counter(), 0.0, 0
        async with contextlib.aclosing(client.stream(images)) as results:
            async for _ in results:
                passed = time.perf_counter() - start
                if passed >= course.warm_s:
                    if not measured:
                        measured = passed
                        observed.clear()
                        server.drift(course.measured_s)
                    answered += 1
                if passed >= course.warm_s + course.measured_s:
                    break
        took = time.perf_counter() - start - measured
        watch.cancel()
    server.drift(None)
    latencies = [batch.latency_s for batch in observed.answered]
    return Outcome(answered / took, percentile(latencies, 95)), {"samples": samples, "warm_s": course.warm_s}


def _course(scale: Scale) -> Course:
    return scale.pick(Course(6.0, 12.0), Course(1.5, 2.0))


async def _best_fixed(channel: grpc.aio.Channel, server: Server, profile: Profile, scale: Scale) -> tuple[int, int]:
    """The fastest fixed size and window whose p95 holds.

    All are tried for a moment; in a full run the best three of them then as long as ours runs.
    """
    sizes = FRAME_SIZES if profile.frames else scale.pick(SIZES, (8, 32, 64, 200))
    ways = list(itertools.product(sizes, scale.pick(WINDOWS, (2,))))

    async def measure(ways: Iterable[tuple[int, int]], course: Course) -> list[tuple[int, int]]:
        return _fastest({way: await _fixed(channel, profile, *way, course, server) for way in ways})

    found = await measure(ways, scale.pick(Course(0.5, 1.5), Course(0.15, 0.45)))
    if not scale.quick:
        found = await measure(found[:3], _course(scale))
    return found[0]


def _fastest(found: Mapping[tuple[int, int], Outcome]) -> list[tuple[int, int]]:
    """Those whose p95 held first, by throughput."""
    return sorted(found, key=lambda way: (found[way].held, found[way].throughput), reverse=True)


async def _fixed(
    channel: grpc.aio.Channel, profile: Profile, size: int, window: int, course: Course, server: Server
) -> Outcome:
    """One fixed size, with so many batches in flight."""
    message = hand_rolled.requests(_payloads(profile, size), size)[0]
    latencies: list[float] = []
    start = time.perf_counter()
    measured = 0.0
    async for sent, answered in hand_rolled.windowed(channel, message, window):
        if answered - start >= course.warm_s:
            if measured:
                latencies.append(answered - sent)
            else:
                measured = answered
                server.drift(course.measured_s)
        if answered - start >= course.warm_s + course.measured_s:
            break
    server.drift(None)
    if not latencies:
        return Outcome(0.0, math.inf)
    return Outcome(len(latencies) * size / (answered - measured), percentile(latencies, 95))


async def _with_official(row: Row, profile: Profile) -> Row:
    """The row with the official client in it, at a small and at a large batch size."""
    course = Course(2.0, 6.0)
    sizes = OFFICIAL_FRAME_SIZES if profile.frames else OFFICIAL_SIZES
    found = {size: await _official(profile, size, course) for size in sizes}
    best = max(found, key=lambda size: found[size].throughput)
    p95 = ", ".join(f"{outcome.p95_s:.2g} s at {size}" for size, outcome in found.items())
    figures = dict(row.figures) | {OFFICIAL: Figure((found[best].throughput,))}
    note = f"{row.note}\nofficial at {best} images a batch; p95 of an image: {p95}"
    return replace(row, figures=figures, note=note)


async def _official(profile: Profile, size: int, course: Course) -> Outcome:
    """The official client without a pause; latency is that of an image, from its being taken to its answer."""
    images = itertools.cycle(inputs.frames() if profile.frames else inputs.tiny(1000))
    latencies: list[float] = []
    settings = official.Settings(batch=size, resize=profile.frames, compress=False)
    async with _serve(profile) as server, official.connected(server.endpoint, settings) as client:
        start = time.perf_counter()
        measured = 0.0
        async with contextlib.aclosing(official.latencies(client, images)) as answered:
            async for some in answered:
                now = time.perf_counter()
                if measured:
                    latencies += some
                elif now - start >= course.warm_s:
                    measured = now
                    server.drift(course.measured_s)
                if now - start >= course.warm_s + course.measured_s:
                    break
    return Outcome(len(latencies) / (now - measured), percentile(latencies, 95))


def _payloads(profile: Profile, size: int) -> list[wire.Payload]:
    if profile.frames:
        return [wire.Payload(frame, wire.ImageFormat.RAW_UINT8_BGR) for frame in inputs.repeated(inputs.frames(), size)]
    return [wire.Payload(b"", md5=(digest,)) for digest in inputs.digests(size)]
