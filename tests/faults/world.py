"""A client, a proxy that misbehaves and an emulator that judges: what the tests of faults share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

from athena_async import AthenaClient, ClientConfig, ImageInput, PoolConfig, RetryConfig
from athena_async.emulator import Emulator, ServiceModel
from athena_async.events import Event, StreamClosed
from tests.faults.proxy import FaultProxy
from tests.waits import until

IMAGES = 120

EventT = TypeVar("EventT", bound=Event)


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
    await until(lambda: client.stats().sent_count >= least, otherwise=f"{least} images were not sent")
    return client.stats().sent_count


def of_kind(seen: list[Event], kind: type[EventT]) -> list[EventT]:
    """Those of the events that are of a kind, in their order."""
    return [event for event in seen if isinstance(event, kind)]


def resends(emulator: Emulator) -> int:
    """By the emulator's account, not ours."""
    return sum(count - 1 for count in emulator.audit.sends().values())


async def noticed_after_s(seen: list[Event], limit_s: float) -> float:
    """Seconds until a stream was given up; fails once it takes longer than ``limit_s``."""
    return await until(lambda: of_kind(seen, StreamClosed) != [], limit_s, "the dead peer was not noticed")
