"""P9: what is held is bounded in images and bytes, whoever is slow; the producer waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from athena_async import AthenaClient, ImageInput, LimitsConfig, PoolConfig, PreprocessConfig
from athena_async.emulator import Emulator, ServiceModel
from athena_async.events import StreamClosed
from tests.faults.world import config, inputs, resends, world
from tests.waits import until

pytestmark = pytest.mark.anyio

MiB = 1024 * 1024
FRAME_BYTES = 448 * 448 * 3


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


class Source:
    """Frames, or hashes, without end; ``taken`` counts them."""

    def __init__(self, *, frames: bool) -> None:
        self.taken = 0
        self._frames = frames

    def __iter__(self) -> Iterator[object]:
        import numpy as np

        while True:
            self.taken += 1
            yield (
                np.full((448, 448, 3), self.taken % 256, np.uint8)
                if self._frames
                else ImageInput(md5=f"{self.taken:032x}")
            )


async def settled(source: Source) -> None:
    """Until the source was left alone for half a second."""
    before = -1
    while source.taken != before:
        before = source.taken
        await asyncio.sleep(0.5)


async def test_a_server_that_never_reads_makes_the_producer_wait() -> None:
    pytest.importorskip("numpy")
    limits = LimitsConfig(max_in_flight_bytes=16 * MiB)
    async with (
        Emulator() as emulator,
        AthenaClient(config(emulator.address, limits=limits, timeout_s=60.0)) as client,
    ):
        emulator.faults.update(blackhole=1.0)
        source = Source(frames=True)
        before_bytes = resident_bytes()
        work = asyncio.create_task(client.classify_many(source))
        await settled(source)
        held_bytes, taken = client.stats().in_flight_bytes, source.taken
        assert 15 * MiB - FRAME_BYTES <= held_bytes <= 16 * MiB
        # An array counts with its frame until it is one, so that the last place may be a whole image too large.
        assert taken * FRAME_BYTES <= 16 * MiB * 1.3, "a chunk of the source must not wait outside the limit"
        await asyncio.sleep(1.0)
        assert source.taken == taken
        grown_bytes = resident_bytes() - before_bytes
        print(f"P9: {held_bytes / MiB:.1f} MiB held, resident memory grew by {grown_bytes / MiB:.1f} MiB")
        # Core copies what it takes from us, up to some 4 MiB a connection; the emulator lives here too.
        assert grown_bytes <= 2 * 16 * MiB + 32 * MiB
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await client.aclose(drain_timeout_s=0)


async def test_a_slow_link_is_not_taken_for_a_dead_peer() -> None:
    """Six frames of 0.6 MB would take longer on it than a peer may be silent: 3.6 s, here, and 2 s."""
    np = pytest.importorskip("numpy")
    pool = PoolConfig(ping_interval_s=1.0, ping_timeout_s=1.0)
    async with world(pool=pool, preprocess=PreprocessConfig(encoding="none")) as (emulator, proxy, client, seen):
        proxy.pause_s, proxy.slice_bytes = 0.016, 16 * 1024
        results = await client.classify_many(np.full((448, 448, 3), shade, np.uint8) for shade in range(7))
        assert all(result.ok for result in results)
        assert not [event for event in seen if isinstance(event, StreamClosed)]
        assert resends(emulator) == 0


async def test_a_slow_server_makes_the_producer_wait() -> None:
    model = ServiceModel(per_image_s=0.005, parallelism=1)
    limits = LimitsConfig(max_in_flight=50)
    async with (
        Emulator(model=model) as emulator,
        AthenaClient(config(emulator.address, limits=limits)) as client,
    ):
        source, done, most = Source(frames=False), 0, 0
        stream = client.stream(source)
        async for result in stream:
            assert result.ok
            done += 1
            most = max(most, source.taken - done)
            if done == 300:
                break
        await stream.aclose()
        assert 0 < most <= 50 + 1


async def test_a_slow_consumer_makes_the_source_wait_and_loses_nothing() -> None:
    async with Emulator() as emulator, AthenaClient(config(emulator.address)) as client:
        taken = 0

        async def source() -> AsyncIterator[ImageInput]:
            nonlocal taken
            for given in inputs(200):
                taken += 1
                yield given

        seen: set[int] = set()
        async for result in client.stream(source(), window=20):
            seen.add(result.index)
            if len(seen) in (1, 50):
                await until(lambda: client.stats().accepted_count == client.stats().settled_count)
                await asyncio.sleep(0.2)
                assert taken <= len(seen) + 20
        assert seen == set(range(200))
