"""A CancelledError that nobody asked for, from code that is not ours: it must not end the client in silence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from athena_async import AthenaClient, ErrorCode, ImageInput, Outcome
from athena_async.channels.channel import Transport
from athena_async.testing import FakeAthena
from tests.simulation.runs import config, hash_inputs
from tests.virtual_time import run_virtual


async def awaits_something_cancelled() -> AsyncIterator[ImageInput]:
    for image in hash_inputs(2):
        yield image
    gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    gone.cancel()
    await gone


def test_a_source_that_awaits_something_cancelled_fails_its_own_call_alone() -> None:
    async def scene() -> None:
        async with AthenaClient(config(), connect=FakeAthena().connect) as client:
            with pytest.raises(asyncio.CancelledError):
                await client.classify_many(awaits_something_cancelled())
            results = client.stream(awaits_something_cancelled())
            assert [(await anext(results)).ok for _ in range(2)] == [True, True]
            with pytest.raises(asyncio.CancelledError):
                await anext(results)
            assert (await client.classify(next(hash_inputs(1)))).ok

    run_virtual(scene())


def test_a_task_of_ours_that_ends_as_cancelled_leaves_nobody_waiting() -> None:
    async def connect(_endpoint: str) -> Transport:
        raise asyncio.CancelledError

    async def scene() -> None:
        told: list[str] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))
        async with AthenaClient(config(), connect=connect) as client:
            results = await client.classify_many(hash_inputs(3))
            assert "closed" in repr(client)
        assert [result.outcome for result in results] == [Outcome.FAILED] * 3
        assert {result.error and result.error.code for result in results} == {ErrorCode.INTERNAL}
        assert "one of its tasks was cancelled" in str(results[0].error)
        assert told == ["the client stopped: one of its tasks was cancelled from outside"]

    run_virtual(scene())


def test_a_source_that_closes_its_own_client_is_told_so() -> None:
    async def scene() -> None:
        async with AthenaClient(config(), connect=FakeAthena().connect) as client:

            async def closing() -> AsyncIterator[ImageInput]:
                yield next(hash_inputs(1))
                await client.aclose()

            results = client.stream(closing())
            assert (await anext(results)).ok
            with pytest.raises(RuntimeError, match="end the source instead"):
                await anext(results)
            assert (await client.classify(next(hash_inputs(1)))).ok

    run_virtual(scene())
