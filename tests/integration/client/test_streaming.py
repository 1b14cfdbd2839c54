"""`stream`: lazily pulled, whatever the pace of the source, the service and the consumer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import anyio
import pytest

from athena_async import (
    AthenaClient,
    BatchingConfig,
    ClientClosedError,
    ClientConfig,
    ImageInput,
    LimitsConfig,
    Outcome,
)
from athena_async.emulator import Emulator, EmulatorConfig, FaultPlan, ServiceModel
from tests.integration.client.world import config, endless, hashes, service, until

pytestmark = pytest.mark.anyio


async def test_an_endless_source_is_pulled_no_further_than_the_window(client: AthenaClient) -> None:
    pulled: list[int] = []
    taken: list[int] = []
    async with aclosing(client.stream(endless(pulled), window=40)) as results:
        async for result in results:
            taken.append(result.index)
            assert len(pulled) <= len(taken) + 40
            if len(taken) == 500:
                break
    assert len(set(taken)) == 500
    assert max(taken) < 540


async def test_without_a_window_the_limit_of_images_is_one() -> None:
    pulled: list[int] = []
    taken = 0
    async with (
        service(limits=LimitsConfig(max_in_flight=30)) as (client, _),
        aclosing(client.stream(endless(pulled))) as results,
    ):
        async for _ in results:
            taken += 1
            assert len(pulled) <= taken + 30
            if taken == 200:
                break


@pytest.mark.parametrize("window", [0, -1])
async def test_a_window_that_lets_nothing_in_is_refused(client: AthenaClient, window: int) -> None:
    with pytest.raises(ValueError, match=f"window is {window}, but must be at least 1"):
        await anext(client.stream(hashes(1), window=window))


async def test_a_slow_consumer_slows_the_source(client: AthenaClient) -> None:
    pulled: list[int] = []
    async with aclosing(client.stream(endless(pulled), window=10)) as results:
        await anext(results)
        await until(lambda: client.stats().accepted_count == client.stats().settled_count == 11)
        await anyio.sleep(0.05)  # time in which more would have been pulled
        assert len(pulled) == 11
        assert client.stats().in_flight_bytes == 0, "results that wait hold no frames"


async def test_an_asynchronous_source_is_asked_only_when_there_is_room(client: AthenaClient) -> None:
    asked = 0

    async def source() -> AsyncIterator[ImageInput]:
        nonlocal asked
        while True:
            asked += 1
            yield ImageInput(md5=f"{asked:032x}")

    async with aclosing(client.stream(source(), window=10)) as results:
        taken = 0
        async for _ in results:
            taken += 1
            assert asked <= taken + 10
            if taken == 100:
                break


async def test_results_come_while_the_source_still_runs(client: AthenaClient) -> None:
    gate = asyncio.Event()

    async def source() -> AsyncIterator[ImageInput]:
        yield ImageInput(md5="0" * 32)
        await gate.wait()
        yield ImageInput(md5="1" * 32)

    async with aclosing(client.stream(source())) as results:
        assert (await anext(results)).index == 0
        gate.set()
        assert (await anext(results)).index == 1
        with pytest.raises(StopAsyncIteration):
            await anext(results)


async def test_leaving_early_drops_what_was_not_sent_and_keeps_the_client_usable() -> None:
    async with service(EmulatorConfig(model=ServiceModel(fixed_s=0.1))) as (client, emulator):
        async with aclosing(client.stream(endless([]), window=1000)) as results:
            await anext(results)
        await until(lambda: client.stats().accepted_count == client.stats().settled_count)
        stats = client.stats()
        assert stats.accepted_count > emulator.audit.total, "images that waited for a channel were dropped"
        assert (stats.in_flight_bytes, stats.ready_count, stats.sent_count) == (0, 0, 0)
        assert all(result.ok for result in await client.classify_many(hashes(10)))


async def test_every_image_has_one_result_and_its_index(client: AthenaClient) -> None:
    given = [ImageInput(md5=f"{n:032x}", correlation_id=f"id-{n}") for n in range(1000)]
    found = {result.index: result.correlation_id async for result in client.stream(given)}
    assert found == {n: f"id-{n}" for n in range(1000)}
    assert client.stats().settled_count == 1000


async def test_streams_side_by_side_keep_their_results_apart(client: AthenaClient) -> None:
    async def run(name: str) -> list[str]:
        given = (ImageInput(md5=f"{n:032x}", correlation_id=f"{name}-{n}") for n in range(300))
        return [result.correlation_id async for result in client.stream(given, window=50)]

    found = await asyncio.gather(*(run(name) for name in "abc"))
    assert [set(ids) for ids in found] == [{f"{name}-{n}" for n in range(300)} for name in "abc"]


async def test_closing_the_client_ends_a_stream_with_all_its_results() -> None:
    fast = BatchingConfig(fixed_size=50)
    async with Emulator() as emulator:
        client = AthenaClient(config(emulator, batching=fast))
        async with client:
            emulator.hold()
            pulled: list[int] = []
            results = client.stream(endless(pulled), window=20)
            first = asyncio.ensure_future(anext(results))
            await until(lambda: emulator.audit.total == 20)
            closing = asyncio.ensure_future(client.aclose(drain_timeout_s=0.05))
            found = [await first]
            found += [await anext(results) for _ in range(19)]
            with pytest.raises(ClientClosedError):
                await anext(results)
            report = await closing
        assert {result.outcome for result in found} == {Outcome.UNKNOWN}
        assert sorted(result.correlation_id for result in found) == sorted(report.unknown)
        assert len(pulled) <= 21, "one more may have been at the door"


async def test_cancelling_a_call_leaves_the_others_alone() -> None:
    async with service(EmulatorConfig(model=ServiceModel(fixed_s=0.05))) as (client, _):
        cancelled = asyncio.ensure_future(client.classify_many(hashes(500)))
        kept = asyncio.ensure_future(client.classify_many(hashes(100)))
        await until(lambda: client.stats().sent_count)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert all(result.ok for result in await kept)
        await until(lambda: client.stats().accepted_count == client.stats().settled_count)


async def test_one_of_no_endpoint_ends_within_its_deadline() -> None:
    nobody = ClientConfig(endpoints=("127.0.0.1:9",), tls=False, timeout_s=0.4)
    async with AthenaClient(nobody) as client:
        outcomes = [result.outcome async for result in client.stream(hashes(5))]
    assert outcomes == [Outcome.FAILED] * 5


@pytest.mark.parametrize("seed", [3, 4, 5])
async def test_streams_that_break_lose_nothing(seed: int) -> None:
    """The service works on what it read before it ended the stream, so each image has its answer, without a resend."""
    faults = FaultPlan(seed=seed, drop_streams=0.5)
    async with service(EmulatorConfig(faults=faults)) as (client, emulator):
        found = [result async for result in client.stream(hashes(300))]
        sends = emulator.audit.sends()
    assert sorted(result.index for result in found) == list(range(300))
    assert [result.error for result in found if not result.ok] == []
    assert len(sends) == 300
