"""Our own client, as a user would run it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from athena_async import AthenaClient, ClientConfig, ImageInput
from athena_async.config import IMAGE_SIDE, BatchingConfig, PoolConfig, PreprocessConfig
from athena_async.events import BatchAnswered, Event, ImagesPrepared


def config(
    *endpoints: str,
    pool: PoolConfig | None = None,
    batching: BatchingConfig | None = None,
    preprocess: PreprocessConfig | None = None,
) -> ClientConfig:
    """The defaults, but for the parts that a scenario is about."""
    return ClientConfig(
        endpoints=endpoints,
        tls=False,
        affiliate="bench",
        pool=pool or PoolConfig(),
        batching=batching or BatchingConfig(),
        preprocess=preprocess or PreprocessConfig(),
    )


def hash_only(digests: Iterable[str]) -> list[ImageInput]:
    """Inputs without image data."""
    return [hash_input(digest) for digest in digests]


def hash_input(digest: str) -> ImageInput:
    """One of them."""
    return ImageInput(md5=digest)


def arrays(frames: Iterable[bytes]) -> list[NDArray[np.uint8]]:
    """Raw frames as (448, 448, 3) uint8 arrays that share the frames' memory."""
    return [np.frombuffer(frame, np.uint8).reshape(IMAGE_SIDE, IMAGE_SIDE, 3) for frame in frames]


async def classify_many(client: AthenaClient, images: Sequence[object]) -> float:
    """Classifies the images; returns the seconds that it took. All must be classified."""
    start = time.perf_counter()
    results = await client.classify_many(images)
    taken = time.perf_counter() - start
    failed = [result for result in results if not result.ok]
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(results)} images failed, the first with {failed[0].error!r}")
    return taken


class Observed:
    """An observer that keeps what benchmarks ask for: how long batches and preprocessing took."""

    def __init__(self) -> None:
        self.answered: list[BatchAnswered] = []
        self.prepared: list[ImagesPrepared] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, BatchAnswered):
            self.answered.append(event)
        elif isinstance(event, ImagesPrepared):
            self.prepared.append(event)

    def clear(self) -> None:
        self.answered.clear()
        self.prepared.clear()


async def watch(client: AthenaClient, every_s: float, samples: list[dict[str, float]]) -> None:
    """Adds the first endpoint's controller, as it is, to ``samples`` until cancelled."""
    start = time.perf_counter()
    while True:
        state = next(iter(client.stats().controllers.values()))
        samples.append(
            {
                "at_s": time.perf_counter() - start,
                "images": state.images,
                "in_flight": state.in_flight,
                "latency_p95_s": state.latency_p95_s,
                "images_per_s": state.images_per_s,
            }
        )
        await asyncio.sleep(every_s)
