"""Growth: cost of an item from 10^3 to 10^6 hash-only inputs, and of a photograph from 1 to 8 threads.

With threads, the cost is processor time: wall time cannot stay the same from one thread to as many as there are cores.
"""

from __future__ import annotations

import gc
import time
from dataclasses import replace

from athena_async import AthenaClient, ImageInput
from athena_async.config import PreprocessConfig
from benchmarks import children, hand_rolled, inputs, ours
from benchmarks.measure import HAND_ROLLED, OURS, Figure, Report, Row, Scale, Target, take_turns

LIMIT = 1.3
COLLECT_SELDOM = (50_000, 20, 100)
HAND_ROLLED_BATCH = 200


async def run(scale: Scale) -> Report:
    report = Report(series={"S10": {}})
    async with children.start("benchmarks.server") as sink:
        await _items(report, sink.endpoint, scale)
        await _threads(report, sink.endpoint, scale)
    return report


async def _items(report: Report, endpoint: str, scale: Scale) -> None:
    counts = scale.pick((1_000, 10_000, 100_000, 1_000_000), (1_000, 5_000, 20_000))
    figures: dict[str, Figure] = {}
    rolled: dict[str, Figure] = {}
    async with AthenaClient(ours.config(endpoint)) as client, hand_rolled.connections(endpoint, 2) as channels:
        await ours.classify_many(client, ours.hash_only(inputs.digests(10_000)))
        for count in counts:
            digests = inputs.digests(min(count, 100_000)) * max(1, count // 100_000)
            images = ours.hash_only(digests)
            repeats = max(1, 10_000 // count)

            async def cost_us(images: list[ImageInput] = images, repeats: int = repeats) -> float:
                taken = [await ours.classify_many(client, images) for _ in range(repeats)]
                return sum(taken) / len(images) / repeats * 1e6

            async def rolled_us(digests: tuple[str, ...] = digests, repeats: int = repeats) -> float:
                taken = [await hand_rolled.hashes(channels, digests, HAND_ROLLED_BATCH) for _ in range(repeats)]
                return sum(taken) / len(digests) / repeats * 1e6

            peers = {OURS: cost_us, HAND_ROLLED: rolled_us}
            found = await take_turns(peers, min(3, scale.rounds), warm_up=0)
            figures[f"{count:,} items"] = found[OURS]
            rolled[f"{count:,} items, hand-rolled"] = found[HAND_ROLLED]
        row = _row("hash-only, time per item", "us", figures, rolled)
        # The cyclic garbage collector visits all live results again and again: what is left of growth is its work.
        before = gc.get_threshold()
        gc.set_threshold(*COLLECT_SELDOM)
        seldom = {f"{counts[-1]:,} items with gc.set_threshold{COLLECT_SELDOM}": Figure((await cost_us(),))}
        gc.set_threshold(*before)
    report.rows.append(replace(row, figures={**row.figures, **seldom}))
    report.series["S10"]["items"] = {name: figure.median for name, figure in figures.items()}


async def _threads(report: Report, endpoint: str, scale: Scale) -> None:
    images = inputs.repeated(inputs.jpegs(1280, 960), scale.pick(400, 30))
    cpu: dict[str, Figure] = {}
    rates: dict[str, Figure] = {}
    for threads in scale.pick((1, 2, 4, 8), (1, 2, 8)):
        name = f"{threads} thread(s)"
        config = ours.config(endpoint, preprocess=PreprocessConfig(encoding="none", threads=threads))
        async with AthenaClient(config) as client:
            await ours.classify_many(client, images[:20])
            samples = [await _cpu_and_wall(client, images) for _ in range(scale.pick(3, 1))]
        cpu[name] = Figure(tuple(cpu_s / len(images) * 1000 for cpu_s, _ in samples))
        rates[name] = Figure(tuple(len(images) / wall_s for _, wall_s in samples))
    report.rows.append(_row("JPEG 1280x960, processor time per image", "ms", cpu))
    report.rows.append(Row("S10", "JPEG 1280x960, rate", "images/s", rates))
    report.series["S10"]["threads"] = {name: figure.median for name, figure in rates.items()}


async def _cpu_and_wall(client: AthenaClient, images: list[bytes]) -> tuple[float, float]:
    before = time.process_time()
    wall_s = await ours.classify_many(client, images)
    return time.process_time() - before, wall_s


def _row(what: str, unit: str, figures: dict[str, Figure], peers: dict[str, Figure] | None = None) -> Row:
    """The target is on ``figures`` alone."""
    medians = [figure.median for figure in figures.values()]
    target = Target(f"largest <= {LIMIT}x smallest", max(medians) / min(medians), LIMIT, at_least=False)
    return Row("S10", what, unit, {**figures, **(peers or {})}, [target])
