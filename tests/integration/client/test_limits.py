"""What the client holds at once, and how fast it goes: bounds that are kept while producers wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import numpy as np
import pytest

from athena_async import AthenaClient, BatchingConfig, ImageInput, LimitsConfig
from athena_async.config import RAW_FRAME_BYTES, MiB
from athena_async.emulator import Emulator, EmulatorConfig, ServiceModel
from athena_async.events import BatchSent, Event
from tests.integration.client.world import assert_classified, config, hashes, photograph, service, until

pytestmark = pytest.mark.anyio


class Watch:
    """Takes the client's figures at each event, the moments at which any of them changes."""

    def __init__(self) -> None:
        self.client: AthenaClient | None = None
        self.images: list[int] = []
        self.size_bytes: list[int] = []

    def __call__(self, event: Event) -> None:
        if self.client is None:
            return
        stats = self.client.stats()
        self.images.append(stats.accepted_count - stats.settled_count)
        self.size_bytes.append(stats.in_flight_bytes)


async def watched(given: list[object], limits: LimitsConfig, model: ServiceModel) -> Watch:
    """What was in flight while these were classified."""
    watch = Watch()
    async with (
        Emulator(EmulatorConfig(model=model)) as emulator,
        AthenaClient(config(emulator, limits=limits), observers=[watch]) as client,
    ):
        watch.client = client
        assert_classified(await client.classify_many(given), len(given))
    return watch


async def test_never_more_images_are_unsettled_than_allowed() -> None:
    watch = await watched([*hashes(400)], LimitsConfig(max_in_flight=25), ServiceModel(fixed_s=0.002))
    assert max(watch.images) == 25
    assert len(watch.images) > 50


async def test_never_more_bytes_are_held_than_allowed() -> None:
    frames: list[object] = [np.full((448, 448, 3), n, np.uint8) for n in range(24)]
    watch = await watched(frames, LimitsConfig(max_in_flight_bytes=4 * MiB), ServiceModel(fixed_s=0.002))
    assert max(watch.images) == 4 * MiB // RAW_FRAME_BYTES
    assert 3 * MiB < max(watch.size_bytes) <= 4 * MiB


async def test_one_image_larger_than_the_limit_is_let_in_alone() -> None:
    large = photograph("retina.jpg").read_bytes() + b"\0" * (3 * MiB)
    watch = await watched([large, *hashes(3), large], LimitsConfig(max_in_flight_bytes=2 * MiB), ServiceModel())
    assert max(watch.size_bytes) > 2 * MiB


async def test_producers_wait_while_the_service_does_not_answer() -> None:
    pulled = 0

    def source() -> Iterator[ImageInput]:
        nonlocal pulled
        for pulled, image in enumerate(hashes(300), 1):  # noqa: B007 - read outside
            yield image

    limits = LimitsConfig(max_in_flight=50)
    async with service(limits=limits, batching=BatchingConfig(fixed_size=50)) as (client, emulator):
        emulator.hold()
        one = asyncio.ensure_future(client.classify_many(source()))
        other = asyncio.ensure_future(client.classify_many(hashes(20)))
        await until(lambda: emulator.audit.total == 50)
        await asyncio.sleep(0.05)
        stats = client.stats()
        assert stats.accepted_count - stats.settled_count == 50
        assert emulator.audit.total == 50
        assert pulled <= 51, "one image may wait at the door"
        emulator.release()
        assert_classified(await one, 300)
        assert_classified(await other, 20)


async def test_the_rate_is_kept() -> None:
    rate, count = 200.0, 120
    seen: list[BatchSent] = []

    def note(event: Event) -> None:
        if isinstance(event, BatchSent):
            seen.append(event)

    limits = LimitsConfig(images_per_second=rate)
    async with Emulator() as emulator, AthenaClient(config(emulator, limits=limits), observers=[note]) as client:
        started_s = time.monotonic()
        assert_classified(await client.classify_many(hashes(count)), count)
        took_s = time.monotonic() - started_s
    burst = rate / 10
    assert took_s > 0.95 * (count - burst) / rate, "all but the first tenth of a second's images must wait"
    sent = 0
    for event in seen:
        sent += event.images
        assert sent <= burst + rate * (event.at_s - seen[0].at_s) + 0.1 * rate


async def test_single_calls_keep_the_rate_and_the_limit_too() -> None:
    limits = LimitsConfig(images_per_second=50.0, max_in_flight=2)
    async with service(EmulatorConfig(model=ServiceModel(fixed_s=0.05)), limits=limits) as (client, _):
        started_s = time.monotonic()
        await asyncio.gather(*(client.classify_single(image) for image in hashes(10)))
        assert time.monotonic() - started_s > 0.2, "five pairs, one after another"
