"""Raw 448x448 BGR frames through `classify_many`, not compressed."""

from __future__ import annotations

from athena_async import AthenaClient, ClientConfig, wire
from athena_async.config import PoolConfig, PreprocessConfig
from benchmarks import children, hand_rolled, inputs, official, ours
from benchmarks.measure import HAND_ROLLED, OFFICIAL, OURS, Figure, Report, Row, Scale, compare, rate, take_turns

BATCH = 6
"""As many frames as fit in gRPC's default limit of 4 MiB."""
CONNECTIONS = 4


async def run(scale: Scale) -> Report:
    report = Report()
    async with children.start("benchmarks.server") as sink:
        for connections in scale.pick((1, 2, CONNECTIONS), (CONNECTIONS,)):
            report.rows.append(await _row(sink.endpoint, connections, scale))
    return report


async def _row(endpoint: str, connections: int, scale: Scale) -> Row:
    count = scale.pick(2400, 360)
    few = count // 8
    frames = inputs.repeated(inputs.frames(), count)
    images = ours.arrays(frames)
    payloads = [wire.Payload(frame, wire.ImageFormat.RAW_UINT8_BGR) for frame in frames[: BATCH * 4]]
    messages = hand_rolled.requests(payloads, BATCH) * (count // (BATCH * 4))
    settings = official.Settings(batch=BATCH, resize=True, compress=False)
    async with (
        AthenaClient(_config(endpoint, connections)) as client,
        hand_rolled.connections(endpoint, connections) as channels,
    ):
        figures: dict[str, Figure] = await take_turns(
            {
                OURS: lambda: rate(count, ours.classify_many(client, images)),
                OFFICIAL: lambda: rate(few, official.stream(endpoint, frames[:few], settings)),
                HAND_ROLLED: lambda: rate(count, hand_rolled.stream(channels, messages)),
            },
            scale.rounds,
        )
    targets = [*compare(figures, OFFICIAL, 3), *compare(figures, HAND_ROLLED, 0.8)]
    return Row("S2", f"raw frames, {connections} connection(s)", "images/s", figures, targets)


def _config(endpoint: str, connections: int) -> ClientConfig:
    return ours.config(
        endpoint,
        pool=PoolConfig(channels=connections, max_channels=connections),
        preprocess=PreprocessConfig(encoding="none"),
    )
