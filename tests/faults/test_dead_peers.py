"""P10: a peer that is dead, though its end of the connection may say otherwise, is noticed in time.

Each of gRPC's options for this covers another death, so each test here leaves one alone to notice it.
"""

from __future__ import annotations

import asyncio
import os

import pytest

from athena_async import AthenaClient, PoolConfig
from athena_async.emulator import Emulator
from athena_async.events import Event, StreamClosed
from tests.faults.proxy import FaultProxy
from tests.faults.world import config, in_flight, inputs, noticed_after_s, resends, world
from tests.waits import until

pytestmark = pytest.mark.anyio

# The defaults are 10 and 5 s, and take as long to prove: ATHENA_TEST_PINGS=10,5
INTERVAL_S, TIMEOUT_S = (float(part) for part in os.environ.get("ATHENA_TEST_PINGS", "1,1").split(","))
SLACK_S = 0.5


@pytest.mark.timeout(60)
async def test_a_hole_is_noticed_within_15_seconds() -> None:
    """The peer's kernel takes bytes, and nobody reads them.

    Before it dies the connection is quiet for so long that pings without data would have been throttled.
    """
    pool = PoolConfig(channels=1, ping_interval_s=INTERVAL_S, ping_timeout_s=TIMEOUT_S, silence_timeout_s=50.0)
    async with world(pool=pool, timeout_s=50.0, keepalive_interval_s=50.0) as (emulator, proxy, client, seen):
        emulator.hold()
        work = asyncio.create_task(client.classify_many(inputs(16)))
        await in_flight(client, 16)
        await asyncio.sleep(2.2 * INTERVAL_S)
        assert not any(isinstance(event, StreamClosed) for event in seen), "it lives, and pings say so"
        proxy.hole = True
        noticed_s = await noticed_after_s(seen, INTERVAL_S + TIMEOUT_S + SLACK_S)
        print(f"P10: a hole noticed after {noticed_s:.1f} s with pings each {INTERVAL_S:g} s, {TIMEOUT_S:g} s patience")
        proxy.reset()
        await until(lambda: emulator.live_streams == 0)  # so that no answer is written to a dead stream
        proxy.hole = False
        proxy.reset()
        emulator.release()
        results = await work
        assert all(result.ok for result in results)
        assert resends(emulator) == 0


async def test_a_peer_that_stops_taking_bytes_is_noticed_though_no_ping_can_be_sent() -> None:
    """A request stands half sent in the kernels' buffers, and a ping behind it: TCP's own timeout must do."""
    numpy = pytest.importorskip("numpy")
    pool = PoolConfig(channels=1, probe_interval_s=0.1, ping_interval_s=60.0, ping_timeout_s=1.0)
    frame = numpy.zeros((448, 448, 3), numpy.uint8)
    seen: list[Event] = []
    async with (
        Emulator() as emulator,
        FaultProxy(emulator.address, buffer_bytes=64 * 1024) as proxy,
        AthenaClient(config(proxy.address, pool=pool), observers=[seen.append]) as client,
    ):
        proxy.stall_after_bytes = 100_000
        work = asyncio.create_task(client.classify_many([frame] * 12))
        await until(lambda: proxy.is_stalled)
        await noticed_after_s(seen, 5.0)  # the kernel looks at it ever more rarely
        proxy.stall_after_bytes = None
        results = await work
        assert all(result.ok for result in results)
        assert max(emulator.audit.sends().values()) <= 2


async def test_a_living_peer_does_not_take_pings_for_an_attack() -> None:
    """A gRPC server counts pings that come without data, and ends the connection of a client with too many."""
    pool = PoolConfig(channels=1, ping_interval_s=1.0, ping_timeout_s=1.0)
    async with world(pool=pool, keepalive_interval_s=50.0) as (emulator, _proxy, client, seen):
        emulator.hold()
        work = asyncio.create_task(client.classify_many(inputs(16)))
        await in_flight(client, 16)
        await asyncio.sleep(5.5)
        emulator.release()
        assert all(result.ok for result in await work)
        assert not any(isinstance(event, StreamClosed) for event in seen)
