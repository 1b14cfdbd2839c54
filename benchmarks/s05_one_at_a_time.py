"""One image at a time on an open stream, JPEG 640x480: how long `classify` takes.

The official client runs at batch 1: at its default of 10 it never sends a lone image. The second row leaves
preprocessing out, and has the unary call of a prepared frame as its peer. That peer repeats one message without a
pause; beside it stands the same call of an image that was prepared just before it, as ours are.
"""

from __future__ import annotations

import time

from athena_async import AthenaClient, wire
from athena_async.config import PreprocessConfig
from benchmarks import children, hand_rolled, inputs, official, ours
from benchmarks.measure import HAND_ROLLED, OFFICIAL, OURS, Figure, Report, Row, Scale, compare, percentile, take_turns

PREPARED = "hand-rolled, preparing an image before each call"
SETTINGS = official.Settings(batch=1, compress=False)


async def run(scale: Scale) -> Report:
    count = scale.pick(200, 30)
    image = inputs.jpegs(640, 480)[0]
    observed, outside_ms = ours.Observed(), list[float]()
    async with children.start("benchmarks.server") as sink:
        config = ours.config(sink.endpoint, preprocess=PreprocessConfig(encoding="none"))
        async with (
            AthenaClient(config, observers=[observed]) as client,
            hand_rolled.connections(sink.endpoint, 1) as channels,
        ):

            async def own() -> float:
                whole_s, outside_s = await _classify(client, observed, image, count)
                outside_ms.append(_p50_ms(outside_s))
                return _p50_ms(whole_s)

            async def theirs() -> float:
                return _p50_ms(await official.one_at_a_time(sink.endpoint, image, SETTINGS, count))

            async def unary() -> float:
                return _p50_ms(await hand_rolled.unary(channels[0], _prepared(), count))

            async def unary_prepared() -> float:
                return _p50_ms(await hand_rolled.unary_prepared(channels[0], image, count))

            peers = {OURS: own, OFFICIAL: theirs, HAND_ROLLED: unary, PREPARED: unary_prepared}
            figures = await take_turns(peers, scale.rounds)
    others = {name: figures.pop(name) for name in (HAND_ROLLED, PREPARED)}
    outside = {OURS: Figure(tuple(outside_ms[-scale.rounds :])), **others}
    targets = compare(figures, OFFICIAL, 1 / 3, at_least=False)
    report = Report([Row("S5", "JPEG 640x480 one at a time, p50", "ms", figures, targets)])
    targets = compare(outside, HAND_ROLLED, 1.5, at_least=False)
    report.rows.append(Row("S5", "the same, outside preprocessing, p50", "ms", outside, targets))
    return report


async def _classify(
    client: AthenaClient, observed: ours.Observed, image: bytes, count: int
) -> tuple[list[float], list[float]]:
    """Seconds of each call, and what is left of them without preprocessing."""
    whole, outside = [], []
    for _ in range(count):
        observed.clear()
        start = time.perf_counter()
        (await client.classify(image)).raise_for_error()
        taken = time.perf_counter() - start
        whole.append(taken)
        outside.append(taken - sum(event.duration_s for event in observed.prepared))
    return whole, outside


def _prepared() -> bytes:
    """A serialized input with a raw frame."""
    payload = wire.Payload(inputs.frames()[0], wire.ImageFormat.RAW_UINT8_BGR)
    return wire.single_request(wire.frame_input("bench", "0" * 32, payload))


def _p50_ms(seconds: list[float]) -> float:
    return percentile(seconds, 50) * 1000
