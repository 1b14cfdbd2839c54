"""JPEG photographs of 1280x960, decoded and resized to 448x448, not compressed."""

from __future__ import annotations

from athena_async import AthenaClient
from athena_async.config import PreprocessConfig, Resampling, Resizer
from benchmarks import children, hand_rolled, inputs, official, ours
from benchmarks.measure import HAND_ROLLED, OFFICIAL, OURS, Report, Row, Scale, compare, rate, take_turns

VARIANTS: tuple[tuple[str, str, Resampling, Resizer, float], ...] = (
    ("S3a", "bilinear, OpenCV's resize", "bilinear", "opencv", 1.3),
    ("S3a", "bilinear, Pillow alone", "bilinear", "pillow", 1.0),
    ("S3b", "antialias", "antialias", "auto", 2.0),
)
OFFICIAL_BATCH, OFFICIAL_WORKERS, HAND_ROLLED_BATCH = 5, 5, 6


async def run(scale: Scale) -> Report:
    count = scale.pick(600, 24)
    images = inputs.repeated(inputs.jpegs(1280, 960), count)
    report = Report()
    async with children.start("benchmarks.server") as sink:
        for scenario, what, resampling, resizer, limit in VARIANTS:
            config = PreprocessConfig(encoding="none", resampling=resampling, resizer=resizer)
            report.rows.append(await _row(sink.endpoint, scenario, what, config, limit, images, scale))
    return report


async def _row(
    endpoint: str, scenario: str, what: str, config: PreprocessConfig, limit: float, images: list[bytes], scale: Scale
) -> Row:
    settings = official.Settings(batch=OFFICIAL_BATCH, workers=OFFICIAL_WORKERS, compress=False)
    async with (
        AthenaClient(ours.config(endpoint, preprocess=config)) as client,
        hand_rolled.connections(endpoint, 2) as channels,
    ):
        figures = await take_turns(
            {
                OURS: lambda: rate(len(images), ours.classify_many(client, images)),
                OFFICIAL: lambda: rate(len(images), official.stream(endpoint, images, settings)),
                HAND_ROLLED: lambda: rate(
                    len(images), hand_rolled.photographs(channels, images, HAND_ROLLED_BATCH, threads=2)
                ),
            },
            scale.rounds,
        )
    note = "hand-rolled: cv2 decode and bilinear resize in two threads"
    return Row(scenario, f"JPEG 1280x960, {what}", "images/s", figures, compare(figures, OFFICIAL, limit), note)
