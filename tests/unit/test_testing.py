"""The fake service that programs are given for their tests, in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from athena_async import ErrorCode, wire
from athena_async.channels.channel import CallFailed
from athena_async.testing import FakeAthena
from tests.virtual_time import run_virtual

IMAGE = wire.single_request(wire.frame_input("acme", "an-id", wire.Payload(b"pixels")))


async def ask(service: FakeAthena, timeout_s: float) -> wire.Answer:
    transport = await service.connect("anywhere:1")
    return wire.read_single(await transport.classify_single(IMAGE, timeout_s=timeout_s, metadata=()))


def test_a_single_call_takes_the_latency() -> None:
    async def scene() -> None:
        assert (await ask(FakeAthena(latency_s=3.0), 5.0)).error is None
        assert asyncio.get_running_loop().time() == 3.0

    run_virtual(scene())


def test_a_single_call_that_is_over_its_time_was_processed_all_the_same() -> None:
    async def scene() -> None:
        service = FakeAthena(latency_s=lambda: 3.0)
        with pytest.raises(CallFailed) as caught:
            await ask(service, 1.0)
        assert caught.value.code is ErrorCode.DEADLINE_EXCEEDED
        assert service.processed == {"an-id": 1}

    run_virtual(scene())
