"""A client, a proxy that misbehaves and an emulator that judges: what the tests of faults share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from athena_async import AthenaClient, ClientConfig, ImageInput, PoolConfig, RetryConfig
from athena_async.emulator import Emulator, ServiceModel
from athena_async.events import Event, StreamClosed
from tests.faults.proxy import FaultProxy

IMAGES = 120


def inputs(count: int = IMAGES) -> list[ImageInput]:
    return [ImageInput(md5=f"{number:032x}") for number in range(count)]


def config(address: str, **overrides: object) -> ClientConfig:
    settings: dict[str, object] = {
        "endpoints": (address,),
        "affiliate": "acme",
        "tls": False,
        "timeout_s": 15.0,
        "retry": RetryConfig(grace_min_s=0.3, grace_max_s=2.0),
        "pool": PoolConfig(channels=2, probe_interval_s=0.1),
    }
    return ClientConfig(**(settings | overrides))  # type: ignore[arg-type]


@asynccontextmanager
async def world(
    *, latency_s: float = 0.1, **overrides: object
) -> AsyncIterator[tuple[Emulator, FaultProxy, AthenaClient, list[Event]]]:
    """Emulator, proxy and client, in that order, and the events of the client."""
    seen: list[Event] = []
    async with (
        Emulator(model=ServiceModel(fixed_s=latency_s, parallelism=64)) as emulator,
        FaultProxy(emulator.address) as proxy,
        AthenaClient(config(proxy.address, **overrides), observers=[seen.append]) as client,
    ):
        yield emulator, proxy, client, seen


async def in_flight(client: AthenaClient, least: int = 1) -> int:
    """Waits until images are on streams; returns how many."""
    while (count := client.stats().sent_count) < least:
        await asyncio.sleep(0.005)
    return count


def resends(emulator: Emulator) -> int:
    """By the emulator's account, not ours."""
    return sum(count - 1 for count in emulator.audit.sends().values())


async def until(holds: Callable[[], bool], limit_s: float = 10.0) -> None:
    """Waits until it holds.

    Raises:
        TimeoutError: it does not within ``limit_s``.
    """
    async with asyncio.timeout(limit_s):
        while not holds():
            await asyncio.sleep(0.01)


async def noticed_after_s(seen: list[Event], limit_s: float) -> float:
    """Seconds until a stream was given up; fails once it takes longer than ``limit_s``."""
    began_s = time.monotonic()
    while not any(isinstance(event, StreamClosed) for event in seen):
        assert time.monotonic() - began_s <= limit_s, f"the dead peer was not noticed within {limit_s:g} s"
        await asyncio.sleep(0.01)
    return time.monotonic() - began_s
