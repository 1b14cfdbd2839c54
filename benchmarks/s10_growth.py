"""Growth: cost of an item from 10^3 to 10^6 hash-only inputs, and of a photograph from 1 to 8 threads.

With threads, the cost is processor time: wall time cannot stay the same from one thread to as many as there are cores.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from athena_async import AthenaClient
from athena_async.config import PreprocessConfig
from benchmarks import children, hand_rolled, inputs, official, ours
from benchmarks.measure import HAND_ROLLED, OFFICIAL, Figure, Peer, Report, Row, Scale, Target, take_turns
from benchmarks.s03_photographs import HAND_ROLLED_BATCH as PHOTOGRAPHS_BATCH
from benchmarks.s03_photographs import OFFICIAL_BATCH

LIMIT = 1.3
COLLECT_SELDOM = (50_000, 20, 100)
HAND_ROLLED_BATCH = 200
TINY = official.Settings(batch=200, resize=False, compress=False)
OFFICIAL_LEAST = 10_000
DISTINCT = 100_000


async def run(scale: Scale) -> Report:
    report = Report(series={"S10": {}})
    async with children.start("benchmarks.server") as sink:
        await _items(report, sink.endpoint, scale)
        await _threads(report, sink.endpoint, scale)
    return report


async def _items(report: Report, endpoint: str, scale: Scale) -> None:
    counts = scale.pick((1_000, 10_000, 100_000, 1_000_000), (1_000, 3_000, 10_000))
    least = scale.pick(100_000, 10_000)
    async with AthenaClient(ours.config(endpoint)) as client, hand_rolled.connections(endpoint, 2) as channels:

        def own(count: int) -> Peer:
            def classify(digests: Sequence[str]) -> Awaitable[float]:
                some = digests[:DISTINCT]  # a million inputs of the caller's own would be the collector's work too
                return ours.classify_many(client, ours.hash_only(some) * (len(digests) // len(some)))

            return _us(count, least, classify)

        def rolled(count: int) -> Peer:
            return _us(count, least, lambda digests: hand_rolled.hashes(channels, digests, HAND_ROLLED_BATCH))

        def other(count: int) -> Peer:
            return _us(count, OFFICIAL_LEAST, lambda digests: official.stream(endpoint, inputs.tiny(count), TINY))

        await own(10_000)()
        peers = {f"{count:,} items": own(count) for count in counts}
        peers |= {f"{count:,} items, {HAND_ROLLED}": rolled(count) for count in counts}
        if not scale.quick:
            peers |= {f"{count:,} items, {OFFICIAL}": other(count) for count in counts if count <= DISTINCT}
        found = await take_turns(peers, min(3, scale.rounds), warm_up=0)
        figures = {f"{count:,} items": found[f"{count:,} items"] for count in counts}
        # The cyclic garbage collector visits all live results again and again: what is left of growth is its work.
        before = gc.get_threshold()
        gc.set_threshold(*COLLECT_SELDOM)
        seldom = f"{counts[-1]:,} items with gc.set_threshold{COLLECT_SELDOM}"
        found[seldom] = Figure((await own(counts[-1])(),))
        gc.set_threshold(*before)
    report.rows.append(replace(_row("hash-only, time per item", "us", figures), figures=found))
    report.series["S10"]["items"] = {name: figure.median for name, figure in found.items()}


def _us(count: int, least: int, classify: Callable[[Sequence[str]], Awaitable[float]]) -> Peer:
    """Microseconds an item. Small calls are repeated for ``least`` items, after some that are not measured; nothing of
    one size lives while another is measured."""
    digests = inputs.digests(min(count, DISTINCT)) * max(1, count // DISTINCT)
    repeats = max(1, least // count)

    async def run() -> float:
        gc.collect()
        for _ in range(repeats // 5):
            await classify(digests)
        return sum([await classify(digests) for _ in range(repeats)]) / count / repeats * 1e6

    return run


async def _threads(report: Report, endpoint: str, scale: Scale) -> None:
    images = inputs.repeated(inputs.jpegs(1280, 960), scale.pick(400, 30))
    cpu: dict[str, Figure] = {}
    rates: dict[str, Figure] = {}
    peers: dict[str, Figure] = {}
    for threads in scale.pick((1, 2, 4, 8), (1, 2, 8)):
        name = f"{threads} thread(s)"
        config = ours.config(endpoint, preprocess=PreprocessConfig(encoding="none", threads=threads))
        async with AthenaClient(config) as client:
            await ours.classify_many(client, images[:20])
            samples = [await _cpu_and_wall(ours.classify_many(client, images)) for _ in range(scale.pick(3, 1))]
        cpu[name] = Figure(tuple(cpu_s / len(images) * 1000 for cpu_s, _ in samples))
        rates[name] = Figure(tuple(len(images) / wall_s for _, wall_s in samples))
        if not scale.quick:
            for peer, (cpu_s, wall_s) in (await _peers_with(threads, endpoint, images)).items():
                peers[f"{name}, {peer}"] = Figure((cpu_s / len(images) * 1000,))
                rates[f"{name}, {peer}"] = Figure((len(images) / wall_s,))
    row = _row("JPEG 1280x960, processor time per image", "ms", cpu)
    report.rows.append(replace(row, figures=cpu | peers))
    report.rows.append(Row("S10", "JPEG 1280x960, rate", "images/s", rates))
    report.series["S10"]["threads"] = {name: rates[name].median for name in cpu}


async def _peers_with(threads: int, endpoint: str, images: list[bytes]) -> dict[str, tuple[float, float]]:
    """Processor time and wall time of the official client with so many workers, and of a hand-rolled stream."""
    settings = official.Settings(batch=OFFICIAL_BATCH, workers=threads, compress=False)
    async with hand_rolled.connections(endpoint, 2) as channels:
        return {
            OFFICIAL: await _cpu_and_wall(official.stream(endpoint, images, settings)),
            HAND_ROLLED: await _cpu_and_wall(hand_rolled.photographs(channels, images, PHOTOGRAPHS_BATCH, threads)),
        }


async def _cpu_and_wall(work: Awaitable[float]) -> tuple[float, float]:
    before = time.process_time()
    wall_s = await work
    return time.process_time() - before, wall_s


def _row(what: str, unit: str, figures: dict[str, Figure]) -> Row:
    medians = [figure.median for figure in figures.values()]
    target = Target(f"largest <= {LIMIT}x smallest", max(medians) / min(medians), LIMIT, at_least=False)
    return Row("S10", what, unit, figures, [target])
