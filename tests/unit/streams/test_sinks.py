from __future__ import annotations

import asyncio

import pytest

from athena_async.results import ClassificationResult, Outcome
from athena_async.streams.sinks import GatheringSink, StreamingSink
from tests.unit.streams.fakes import settle

pytestmark = pytest.mark.anyio


def result(index: int) -> ClassificationResult:
    return ClassificationResult(f"id-{index}", index, Outcome.CLASSIFIED)


async def test_gathers_in_input_order_and_wakes_at_the_last() -> None:
    sink = GatheringSink()
    assert [sink.expect() for _ in range(3)] == [0, 1, 2]
    waiting = asyncio.create_task(sink.wait())
    for index in (2, 0):
        sink.deliver(result(index))
        await settle()
        assert not waiting.done()
    sink.deliver(result(1))
    assert [found.index for found in await waiting] == [0, 1, 2]


async def test_waiting_for_what_is_there_or_for_nothing_returns_at_once() -> None:
    sink = GatheringSink()
    assert await sink.wait() == []
    sink.expect()
    sink.deliver(result(0))
    assert len(await sink.wait()) == 1


async def test_results_that_come_after_the_wait_was_cancelled_are_harmless() -> None:
    sink = GatheringSink()
    sink.expect()
    waiting = asyncio.create_task(sink.wait())
    await settle()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    sink.deliver(result(0))
    assert len(await sink.wait()) == 1


async def test_streams_as_they_come_and_ends() -> None:
    sink = StreamingSink(10)
    for _ in range(2):
        sink.expect()
    taking = asyncio.create_task(sink.next())
    await settle()
    sink.deliver(result(1))
    first = await taking
    assert first is not None
    assert first.index == 1
    sink.end()
    ending = asyncio.create_task(sink.next())
    await settle()
    assert not ending.done(), "one is open yet"
    sink.deliver(result(0))
    assert (await ending) is not None
    assert await sink.next() is None
    assert await sink.next() is None


async def test_the_end_wakes_who_waits_for_a_result() -> None:
    sink = StreamingSink(10)
    taking = asyncio.create_task(sink.next())
    await settle()
    sink.end()
    assert await taking is None


async def test_a_failure_of_the_source_comes_after_all_results() -> None:
    sink = StreamingSink(10)
    sink.expect()
    sink.end(OSError("the disk is gone"))
    sink.deliver(result(0))
    assert await sink.next() is not None
    with pytest.raises(OSError, match="the disk is gone"):
        await sink.next()


async def test_room_is_what_is_neither_open_nor_unconsumed() -> None:
    sink = StreamingSink(2)
    await sink.wait_room()
    sink.expect()
    sink.expect()
    assert sink.room == 0
    waiting = asyncio.create_task(sink.wait_room())
    sink.deliver(result(0))
    await settle()
    assert not waiting.done(), "answered, but not consumed"
    await sink.next()
    await settle()
    assert waiting.done()
    assert sink.room == 1


async def test_cancelling_the_consumer_loses_no_result() -> None:
    sink = StreamingSink(2)
    sink.expect()
    taking = asyncio.create_task(sink.next())
    await settle()
    sink.deliver(result(0))
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert await sink.next() == result(0)
