"""JPEG photographs of 1280x960, decoded and resized to 448x448, not compressed."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence

from PIL import Image

from athena_async import AthenaClient
from athena_async.config import PreprocessConfig, Resampling, Resizer
from athena_async.images.render import render_bytes
from benchmarks import children, hand_rolled, inputs, official, ours
from benchmarks.measure import HAND_ROLLED, OFFICIAL, OURS, Peer, Report, Row, Scale, compare, rate, take_turns

VARIANTS: tuple[tuple[str, str, Resampling, Resizer, float], ...] = (
    ("S3a", "bilinear, OpenCV's resize", "bilinear", "opencv", 1.3),
    ("S3a", "bilinear, Pillow alone", "bilinear", "pillow", 1.0),
    ("S3b", "antialias", "antialias", "auto", 2.0),
)
PILLOW, OPENCV_DECODES, PILLOW_DECODES = "ours, Pillow alone", "decoding, OpenCV", "decoding, Pillow"
OFFICIAL_BATCH, OFFICIAL_WORKERS, HAND_ROLLED_BATCH = 5, 5, 6


async def run(scale: Scale) -> Report:
    count = scale.pick(600, 24)
    images = inputs.repeated(inputs.jpegs(1280, 960), count)
    report = Report()
    async with children.start("benchmarks.server") as sink:
        for scenario, what, resampling, resizer, limit in VARIANTS:
            config = PreprocessConfig(encoding="none", resampling=resampling, resizer=resizer)
            report.rows.append(await _row(sink.endpoint, scenario, what, config, limit, images, scale))
    report.rows.append(await _resizers(images[: scale.pick(60, 6)], scale))
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


async def _resizers(images: Sequence[bytes], scale: Scale) -> Row:
    """What an image costs one thread with either resizer, and how much of it is decoding."""
    resizers: dict[str, Resizer] = {OURS: "opencv", PILLOW: "pillow"}
    peers: dict[str, Peer] = {
        OPENCV_DECODES: _ms(_opencv_decodes, images),
        PILLOW_DECODES: _ms(_pillow_decodes, images),
    }
    for name, resizer in resizers.items():
        config = PreprocessConfig(encoding="none", resampling="bilinear", resizer=resizer)
        peers[name] = _ms(lambda image, config=config: render_bytes(image, config, "none"), images)
    found = await take_turns(peers, scale.rounds)
    ms = {name: figure.median for name, figure in found.items()}
    beyond = (ms[OURS] - ms[OPENCV_DECODES]) / (ms[PILLOW] - ms[PILLOW_DECODES])
    note = f"OpenCV's resize costs {ms[OURS] / ms[PILLOW]:.2f}x Pillow alone, beyond decoding {beyond:.2f}x"
    return Row("S3a", "the same, processor time of one thread", "ms", found, (), note)


def _ms(work: Callable[[bytes], object], images: Sequence[bytes]) -> Peer:
    async def run() -> float:
        start_s = time.thread_time()
        for image in images:
            work(image)
        return (time.thread_time() - start_s) / len(images) * 1000

    return run


def _opencv_decodes(image: bytes) -> None:
    import cv2
    import numpy as np

    cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)


def _pillow_decodes(image: bytes) -> None:
    Image.open(io.BytesIO(image)).load()
