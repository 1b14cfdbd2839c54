"""Photographs over a link of 50 Mbit/s (a quick run: 200), the same with 40 ms each way, and one without a limit.

The link is a proxy with small buffers. The official client runs at its defaults and with the Brotli level that suits
this link best; ours at its default, `auto`, and without compression. The hand-rolled stream sends raw pixels.
"""

from __future__ import annotations

import contextlib

from athena_async import AthenaClient
from athena_async.config import EncodingChoice, PreprocessConfig
from benchmarks import children, hand_rolled, inputs, official, ours
from benchmarks.measure import HAND_ROLLED, OURS, Peer, Report, Row, Scale, compare, rate, take_turns
from benchmarks.s03_photographs import HAND_ROLLED_BATCH

BROTLI_LEVELS = (1, 2, 4, 5)
FAR_MS = 40.0
NONE, DEFAULTS, BEST = "ours, none", "official at defaults", "official at its best compression"


async def run(scale: Scale) -> Report:
    report = Report()
    mbit_per_s = scale.pick(50.0, 200.0)
    what = f"photographs, {mbit_per_s:.0f} Mbit/s"
    async with children.start("benchmarks.server") as sink:
        async with _link(sink.endpoint, mbit_per_s) as slow:
            report.rows.append(await _slow(slow.endpoint, f"{what}, auto", scale))
        if not scale.quick:
            async with _link(sink.endpoint, mbit_per_s, FAR_MS) as far:
                report.rows.append(await _far(far.endpoint, f"{what}, {FAR_MS:.0f} ms each way, auto"))
        async with _link(sink.endpoint, 0.0) as unlimited:
            images = inputs.repeated(inputs.jpegs(1280, 960), scale.pick(600, 42))
            figures = await take_turns(_ours(unlimited.endpoint, images), scale.rounds, warm_up=0)
    targets = compare(figures, NONE, 0.95)
    report.rows.append(Row("S11", "photographs, link without a limit, auto", "images/s", figures, targets))
    return report


def _link(
    endpoint: str, mbit_per_s: float, latency_ms: float = 0.0
) -> contextlib.AbstractAsyncContextManager[children.Child]:
    bounds = ("--mbit-per-s", str(mbit_per_s), "--latency-ms", str(latency_ms))
    return children.start("benchmarks.proxy", "--to", endpoint, *bounds)


async def _slow(endpoint: str, what: str, scale: Scale) -> Row:
    images = inputs.repeated(inputs.jpegs(1280, 960), scale.pick(200, 100))
    few = images[:10]
    level = 2 if scale.quick else await _best_level(endpoint, images[:60])
    best = official.Settings(batch=5, brotli_quality=level)
    peers = _ours(endpoint, images)
    peers[BEST] = lambda: rate(len(images), official.stream(endpoint, images, best))
    if not scale.quick:  # a second or more an image, on any link: S4 shows it
        peers[DEFAULTS] = lambda: rate(len(few), official.stream(endpoint, few, official.DEFAULTS))
    peers[HAND_ROLLED] = lambda: _hand_rolled(endpoint, images)
    figures = await take_turns(peers, scale.pick(3, 1), warm_up=0)
    targets = [*compare(figures, NONE, 1.6), *compare(figures, BEST, 1.3)]
    note = f"best compression of the official client here: Brotli {level}"
    return Row("S11", what, "images/s", figures, targets, note)


async def _far(endpoint: str, what: str) -> Row:
    """The slow link of a far away service. No targets: it shows whether the way there is kept full."""
    images = inputs.repeated(inputs.jpegs(1280, 960), 200)
    peers = {**_ours(endpoint, images), HAND_ROLLED: lambda: _hand_rolled(endpoint, images)}
    return Row("S11", what, "images/s", await take_turns(peers, 3, warm_up=0))


async def _hand_rolled(endpoint: str, images: list[bytes]) -> float:
    async with hand_rolled.connections(endpoint, 2) as channels:
        return await rate(len(images), hand_rolled.photographs(channels, images, HAND_ROLLED_BATCH, threads=2))


def _ours(endpoint: str, images: list[bytes]) -> dict[str, Peer]:
    """Ours with `auto` and without compression; a new client each time, which has yet to notice the link."""

    async def run_with(encoding: EncodingChoice) -> float:
        config = ours.config(endpoint, preprocess=PreprocessConfig(encoding=encoding))
        async with AthenaClient(config) as client:
            return await rate(len(images), ours.classify_many(client, images))

    return {OURS: lambda: run_with("auto"), NONE: lambda: run_with("none")}


async def _best_level(endpoint: str, images: list[bytes]) -> int:
    """The Brotli level with which the official client is fastest over this link."""
    settings = [official.Settings(batch=5, brotli_quality=level) for level in BROTLI_LEVELS]
    taken = {each.brotli_quality: await official.stream(endpoint, images, each) for each in settings}
    return min(taken, key=taken.__getitem__)
