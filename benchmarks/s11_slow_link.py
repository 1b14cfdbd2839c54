"""Photographs over a link of 50 Mbit/s (a quick run: 200), and over one without a limit.

The link is a proxy with small buffers. The official client runs at its defaults and with the Brotli level that suits
this link best; ours at its default, `auto`, and without compression.
"""

from __future__ import annotations

import contextlib

from athena_async import AthenaClient
from athena_async.config import EncodingChoice, PreprocessConfig
from benchmarks import children, inputs, official, ours
from benchmarks.measure import OURS, Figure, Peer, Report, Row, Scale, compare, rate, take_turns

BROTLI_LEVELS = (1, 2, 4, 5)
NONE, DEFAULTS, BEST = "ours, none", "official at defaults", "official at its best compression"


async def run(scale: Scale) -> Report:
    report = Report()
    mbit_per_s = scale.pick(50.0, 200.0)
    async with children.start("benchmarks.server") as sink, _link(sink.endpoint, mbit_per_s) as slow:
        report.rows.append(await _slow(slow.endpoint, mbit_per_s, scale))
        async with _link(sink.endpoint, 0.0) as unlimited:
            figures = await _both(unlimited.endpoint, scale.pick(600, 42), scale.rounds)
    targets = compare(figures, NONE, 0.95)
    report.rows.append(Row("S11", "photographs, link without a limit, auto", "images/s", figures, targets))
    return report


def _link(endpoint: str, mbit_per_s: float) -> contextlib.AbstractAsyncContextManager[children.Child]:
    return children.start("benchmarks.proxy", "--to", endpoint, "--mbit-per-s", str(mbit_per_s), "--latency-ms", "0")


async def _slow(endpoint: str, mbit_per_s: float, scale: Scale) -> Row:
    images = inputs.repeated(inputs.jpegs(1280, 960), scale.pick(200, 100))
    few = images[:10]
    level = 2 if scale.quick else await _best_level(endpoint, images[:60])
    best = official.Settings(batch=5, brotli_quality=level)
    figures = await _both(endpoint, len(images), scale.pick(3, 1))
    peers: dict[str, Peer] = {BEST: lambda: rate(len(images), official.stream(endpoint, images, best))}
    if not scale.quick:  # a second or more an image, on any link: S4 shows it
        peers[DEFAULTS] = lambda: rate(len(few), official.stream(endpoint, few, official.DEFAULTS))
    figures |= await take_turns(peers, scale.pick(3, 1), warm_up=0)
    targets = [*compare(figures, NONE, 1.6), *compare(figures, BEST, 1.3)]
    note = f"best compression of the official client here: Brotli {level}"
    return Row("S11", f"photographs, {mbit_per_s:.0f} Mbit/s, auto", "images/s", figures, targets, note)


async def _both(endpoint: str, count: int, rounds: int) -> dict[str, Figure]:
    """Ours with `auto` and without compression; a new client each time, which has yet to notice the link."""
    images = inputs.repeated(inputs.jpegs(1280, 960), count)

    async def run_with(encoding: EncodingChoice) -> float:
        config = ours.config(endpoint, preprocess=PreprocessConfig(encoding=encoding))
        async with AthenaClient(config) as client:
            return await rate(count, ours.classify_many(client, images))

    return await take_turns({OURS: lambda: run_with("auto"), NONE: lambda: run_with("none")}, rounds, warm_up=0)


async def _best_level(endpoint: str, images: list[bytes]) -> int:
    """The Brotli level with which the official client is fastest over this link."""
    settings = [official.Settings(batch=5, brotli_quality=level) for level in BROTLI_LEVELS]
    taken = {each.brotli_quality: await official.stream(endpoint, images, each) for each in settings}
    return min(taken, key=taken.__getitem__)
