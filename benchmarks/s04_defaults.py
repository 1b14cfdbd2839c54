"""JPEG photographs of 1280x960, each client as it comes.

The official client's default is Brotli at level 11, on the event loop. The hand-rolled stream sends raw pixels.
"""

from __future__ import annotations

from athena_async import AthenaClient
from benchmarks import children, hand_rolled, inputs, official, ours
from benchmarks.measure import HAND_ROLLED, OFFICIAL, OURS, Report, Row, Scale, compare, rate, take_turns
from benchmarks.s03_photographs import HAND_ROLLED_BATCH


async def run(scale: Scale) -> Report:
    count, few = scale.pick(600, 60), scale.pick(10, 1)
    images = inputs.repeated(inputs.jpegs(1280, 960), count)
    async with (
        children.start("benchmarks.server") as sink,
        AthenaClient(ours.config(sink.endpoint)) as client,
        hand_rolled.connections(sink.endpoint, 2) as channels,
    ):
        await ours.classify_many(client, images[:20])
        figures = await take_turns(
            {
                OURS: lambda: rate(count, ours.classify_many(client, images)),
                HAND_ROLLED: lambda: rate(
                    count, hand_rolled.photographs(channels, images, HAND_ROLLED_BATCH, threads=2)
                ),
                OFFICIAL: lambda: rate(few, official.stream(sink.endpoint, images[:few], official.DEFAULTS)),
            },
            scale.pick(3, 1),
            warm_up=0,
        )
    targets = compare(figures, OFFICIAL, 100)
    return Report([Row("S4", "JPEG 1280x960, defaults", "images/s", figures, targets)])
