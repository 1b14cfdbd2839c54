"""P12: cancelling one caller, at whichever turn of the loop, loses nothing of the others and leaves no task behind."""

from __future__ import annotations

import asyncio
import random

import pytest

from athena_async import AthenaClient, ClassificationResult, ErrorCode, LimitsConfig
from athena_async.testing import FakeAthena
from tests.simulation.runs import config, hash_inputs
from tests.virtual_time import run_virtual

TURNS = 60


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def victim_many(client: AthenaClient) -> object:
    return await client.classify_many(hash_inputs(300))


async def victim_stream(client: AthenaClient) -> object:
    return [result async for result in client.stream(hash_inputs(300), window=50)]


async def victim_single(client: AthenaClient) -> object:
    return await client.classify_single(next(hash_inputs(1)))


async def victim_foreign(client: AthenaClient) -> object:
    return [result async for result in client.foreign_results()]


async def cancel_at(turn: int, victim: object) -> None:
    service = FakeAthena(latency_s=0.01)
    before = asyncio.all_tasks()
    limits = LimitsConfig(max_in_flight=100)
    async with AthenaClient(config(limits=limits), connect=service.connect, seed=1) as client:
        doomed = asyncio.create_task(victim(client))  # type: ignore[operator]
        others = asyncio.create_task(client.classify_many(hash_inputs(200)))
        await turns(turn)
        doomed.cancel()
        results = await others
        assert all(result.ok for result in results), f"cancelled at turn {turn}"
        await asyncio.gather(doomed, return_exceptions=True)
        await asyncio.sleep(1.0)
        stats = client.stats()
        assert stats.accepted_count == stats.settled_count, f"cancelled at turn {turn}: {stats}"
        assert stats.in_flight_bytes == 0, f"cancelled at turn {turn}"
        assert await client.classify(next(hash_inputs(1)))
    assert asyncio.all_tasks() == before, f"cancelled at turn {turn}"


@pytest.mark.parametrize("victim", [victim_many, victim_stream, victim_single, victim_foreign])
def test_cancelling_one_caller_at_each_turn_leaves_the_others_whole(victim: object) -> None:
    for turn in range(TURNS):
        run_virtual(cancel_at(turn, victim))


async def cancel_unsent() -> None:
    service = FakeAthena()
    service.refuse(ErrorCode.UNAVAILABLE)
    async with AthenaClient(config(), connect=service.connect, seed=1) as client:
        doomed = asyncio.create_task(client.classify_many(hash_inputs(300)))
        await asyncio.sleep(1.0)
        doomed.cancel()
        await asyncio.gather(doomed, return_exceptions=True)
        assert client.stats().settled_count == client.stats().accepted_count == 300
        service.refuse(None)
        assert all(result.ok for result in await client.classify_many(hash_inputs(10)))
    assert service.processed.total() == 10, "what nobody waits for was not sent, and is not billed"


def test_images_of_a_cancelled_caller_that_were_not_sent_are_dropped() -> None:
    run_virtual(cancel_unsent())


async def cancel_client_at(turn: int) -> None:
    service = FakeAthena(latency_s=0.01)
    before = asyncio.all_tasks()

    async def program() -> None:
        async with AthenaClient(config(), connect=service.connect, seed=1) as client:
            await client.classify_many(hash_inputs(500))
            await asyncio.sleep(10)

    task = asyncio.create_task(program())
    await turns(turn)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == before, f"cancelled at turn {turn}"


def test_cancelling_the_program_at_each_turn_ends_every_task() -> None:
    for turn in range(TURNS):
        run_virtual(cancel_client_at(turn))


async def close_at(delay_s: float, drain_s: float, rng: random.Random) -> None:
    """One random close while images are under way, streams are cut, and answers are slow."""
    service = FakeAthena(latency_s=lambda: rng.choice([0.01, 0.2, 30.0]))
    loop = asyncio.get_running_loop()
    client = AthenaClient(config(), connect=service.connect, seed=rng.randrange(1000))
    results: list[ClassificationResult] = []

    async def consume() -> None:
        async for result in client.stream(hash_inputs(400)):
            results.append(result)

    async with client:
        consumer = asyncio.create_task(consume())
        await asyncio.sleep(delay_s)
        if rng.random() < 0.3:
            service.drop()
        started_s = loop.time()
        report = await client.aclose(drain_timeout_s=drain_s)
        assert loop.time() - started_s <= drain_s + 1.0
    await asyncio.gather(consumer, return_exceptions=True)
    stats = client.stats()
    assert stats.accepted_count == stats.settled_count == len(results)
    left = {result.correlation_id for result in results if result.error is not None and result.error.code == "CLOSED"}
    assert left == set(report.failed) | set(report.unknown)
    unknown = {result.correlation_id for result in results if result.outcome == "UNKNOWN"}
    assert set(report.unknown) <= unknown


@pytest.mark.timeout(60)
def test_500_random_closes_end_in_time_and_list_what_they_left() -> None:
    """P13."""
    rng = random.Random(13)
    for _ in range(500):
        run_virtual(close_at(rng.uniform(0, 1.0), rng.choice([0.0, 0.05, 0.5, 5.0]), rng))
