"""The same client on uvloop, which the command line and `athena_async.run` use."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

from athena_async import AthenaClient, Outcome, TlsConfig
from athena_async.emulator import Emulator, EmulatorConfig, FaultPlan
from tests.integration.client.world import (
    assert_classified,
    codes,
    config,
    distance,
    endless,
    frame,
    hashes,
    photograph,
    service,
)

uvloop = pytest.importorskip("uvloop")
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return "asyncio", {"use_uvloop": True, "debug": True}


async def test_many_of_every_kind() -> None:
    async with service() as (client, _):
        assert isinstance(asyncio.get_running_loop(), uvloop.Loop)
        given = [photograph("astronaut.png"), frame("astronaut.png"), b"no image", *hashes(500)]
        results = await client.classify_many(given)
    assert [result.index for result in results] == list(range(503))
    assert [index for index, code in enumerate(codes(results)) if code] == [2]
    assert max(abs(results[0].scores[label] - weight) for label, weight in results[1].scores.items()) < 0.02


async def test_streaming_with_an_early_end_and_single_calls() -> None:
    pulled: list[int] = []
    async with service() as (client, _):
        async with aclosing(client.stream(endless(pulled), window=20)) as results:
            async for result in results:
                if result.index >= 300:
                    break
        assert len(pulled) <= 300 + 2 * 20
        single = await client.classify_single(photograph("coffee.png"))
        assert distance(single, await client.classify(photograph("coffee.png"))) < 1e-6
        assert len(await client.list_deployments()) == 1


async def test_streams_that_break() -> None:
    faults = FaultPlan(seed=3, drop_streams=0.2)
    async with service(EmulatorConfig(faults=faults), timeout_s=15.0) as (client, _):
        results = await client.classify_many(hashes(400))
    assert [result.index for result in results] == list(range(400))
    assert {result.outcome for result in results} <= {Outcome.CLASSIFIED, Outcome.UNKNOWN}
    assert sum(result.ok for result in results) > 300


async def test_tls(tmp_path: Path) -> None:
    async with (
        Emulator(tls_dir=tmp_path) as emulator,
        AthenaClient(config(emulator, tls=TlsConfig(ca=emulator.ca))) as client,
    ):
        assert_classified(await client.classify_many(hashes(50)), 50)
