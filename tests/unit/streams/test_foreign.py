from __future__ import annotations

import asyncio

import pytest

from athena_async.errors import ErrorCode
from athena_async.results import Outcome
from athena_async.streams.foreign import ForeignResults
from tests.unit.streams.fakes import SCORES, bad, good, settle

pytestmark = pytest.mark.anyio


async def test_hands_over_scores_and_errors_in_order() -> None:
    foreign = ForeignResults(10)
    assert foreign.put([good("a"), bad("b", ErrorCode.MODEL_ERROR, "busy")]) == 0
    first, second = await foreign.next(), await foreign.next()
    assert first is not None
    assert second is not None
    assert (first.correlation_id, first.index, first.outcome, first.classifications) == (
        "a",
        -1,
        Outcome.CLASSIFIED,
        SCORES,
    )
    assert second.error is not None
    assert (second.outcome, second.error.code, second.error.correlation_id) == (
        Outcome.FAILED,
        ErrorCode.MODEL_ERROR,
        "b",
    )


async def test_drops_the_oldest_and_counts_them() -> None:
    foreign = ForeignResults(2)
    assert foreign.put([good("a")]) == 0
    assert foreign.put([good("b"), good("c")]) == 1
    assert foreign.put([good(name) for name in "defg"]) == 4
    kept = [await foreign.next(), await foreign.next()]
    assert [found and found.correlation_id for found in kept] == ["f", "g"]
    assert len(foreign) == 0


async def test_every_answer_goes_to_one_of_several_readers() -> None:
    foreign = ForeignResults(10)
    reading = [asyncio.create_task(foreign.next()) for _ in range(3)]
    await settle()
    foreign.put([good("a")])
    await settle()
    assert sum(task.done() for task in reading) == 1
    foreign.put([good("b"), good("c")])
    found = await asyncio.gather(*reading)
    assert sorted(one.correlation_id for one in found if one) == ["a", "b", "c"]


async def test_cancelling_a_reader_loses_none() -> None:
    foreign = ForeignResults(10)
    reading = asyncio.create_task(foreign.next())
    await settle()
    foreign.put([good("a")])
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert len(foreign) == 1


async def test_closing_gives_what_is_left_and_then_the_end_to_every_reader() -> None:
    foreign = ForeignResults(10)
    reading = [asyncio.create_task(foreign.next()) for _ in range(2)]
    await settle()
    foreign.put([good("a")])
    foreign.close()
    assert sorted(str(one and one.correlation_id) for one in await asyncio.gather(*reading)) == ["None", "a"]
    assert await foreign.next() is None
