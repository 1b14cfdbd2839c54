"""How late the event loop is while photographs saturate both cores."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable

from athena_async import AthenaClient
from athena_async.config import PreprocessConfig
from benchmarks import children, hand_rolled, inputs, official, ours
from benchmarks.measure import HAND_ROLLED, OFFICIAL, OURS, Report, Row, Scale, Target, percentile, take_turns
from benchmarks.s03_photographs import HAND_ROLLED_BATCH, OFFICIAL_BATCH, OFFICIAL_WORKERS

EVERY_S = 0.005
LIMIT_MS = 20.0


async def run(scale: Scale) -> Report:
    images = inputs.repeated(inputs.jpegs(1280, 960), scale.pick(1500, 42))
    settings = official.Settings(batch=OFFICIAL_BATCH, workers=OFFICIAL_WORKERS, compress=False)
    async with children.start("benchmarks.server") as sink:
        config = ours.config(sink.endpoint, preprocess=PreprocessConfig(encoding="none"))
        async with AthenaClient(config) as client, hand_rolled.connections(sink.endpoint, 2) as channels:
            figures = await take_turns(
                {
                    OURS: lambda: p99_lag_ms(ours.classify_many(client, images)),
                    OFFICIAL: lambda: p99_lag_ms(official.stream(sink.endpoint, images, settings)),
                    HAND_ROLLED: lambda: p99_lag_ms(
                        hand_rolled.photographs(channels, images, HAND_ROLLED_BATCH, threads=2)
                    ),
                },
                scale.rounds,
            )
    target = Target(f"<= {LIMIT_MS:.0f} ms", figures[OURS].median, LIMIT_MS, at_least=False)
    return Report([Row("S9", "event-loop lag under S3a, p99", "ms", figures, [target])])


async def p99_lag_ms(work: Awaitable[float]) -> float:
    """How late a timer of 5 ms fires in 99 of 100 cases while ``work`` runs."""
    lags: list[float] = []

    async def sample() -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + EVERY_S
            await asyncio.sleep(EVERY_S)
            lags.append((loop.time() - due) * 1000)

    sampler = asyncio.ensure_future(sample())
    await work
    sampler.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await sampler
    return percentile(lags, 99)
