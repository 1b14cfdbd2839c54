from __future__ import annotations

import asyncio

import pytest

from athena_async.errors import ClientClosedError
from athena_async.resilience.limits import ImageLimit, InFlightLimit
from tests.unit.streams.fakes import settle

pytestmark = pytest.mark.anyio


def held(limit: InFlightLimit) -> tuple[int, int]:
    return limit.images, limit.size_bytes


async def waiting(limit: InFlightLimit, *sizes: int) -> list[asyncio.Task[None]]:
    """Tasks that wait for places of these sizes, in this order."""
    tasks = []
    for size in sizes:
        tasks.append(asyncio.create_task(limit.acquire(size)))
        await settle(3)
    return tasks


async def test_bounds_images_and_bytes() -> None:
    limit = InFlightLimit(3, 100)
    assert limit.try_acquire(40)
    assert limit.try_acquire(60)
    assert not limit.try_acquire(1), "no byte is left"
    limit.release(1, 60)
    assert limit.try_acquire(1)
    assert limit.try_acquire(1)
    assert not limit.try_acquire(1), "no image is left"
    assert held(limit) == (3, 42)


async def test_an_oversized_image_is_let_in_alone() -> None:
    limit = InFlightLimit(10, 100)
    assert limit.try_acquire(1)
    assert not limit.try_acquire(500)
    limit.release(1, 1)
    assert limit.try_acquire(500)
    assert not limit.try_acquire(1), "nobody joins it"
    limit.release(1, 500)
    assert held(limit) == (0, 0)


async def test_first_come_first_served_even_past_an_oversized_one() -> None:
    limit = InFlightLimit(10, 100)
    assert limit.try_acquire(90)
    big, small = await waiting(limit, 500, 5)
    assert not limit.try_acquire(1), "nobody overtakes a waiter, though there would be room"
    limit.release(1, 90)
    await settle()
    assert (big.done(), small.done()) == (True, False)
    limit.release(1, 500)
    await settle()
    assert small.done()
    assert held(limit) == (1, 5)


async def test_one_release_lets_in_as_many_as_fit() -> None:
    limit = InFlightLimit(10, 100)
    limit.try_acquire(100)
    tasks = await waiting(limit, 30, 30, 30, 30)
    limit.release(1, 100)
    await settle()
    assert [task.done() for task in tasks] == [True, True, True, False]
    tasks[-1].cancel()


async def test_cancelling_a_waiter_lets_the_next_one_in() -> None:
    limit = InFlightLimit(10, 100)
    limit.try_acquire(90)
    big, small = await waiting(limit, 50, 10)
    big.cancel()
    await settle()
    assert small.done()
    assert held(limit) == (2, 100)
    with pytest.raises(asyncio.CancelledError):
        await big


async def test_cancelling_one_in_the_middle_keeps_the_order() -> None:
    limit = InFlightLimit(1, 100)
    limit.try_acquire(1)
    first, second, third = await waiting(limit, 1, 1, 1)
    second.cancel()
    limit.release(1, 1)
    await settle()
    assert (first.done(), third.done()) == (True, False)
    limit.release(1, 1)
    await settle()
    assert third.done()


async def test_cancelling_right_after_the_grant_gives_the_place_back() -> None:
    limit = InFlightLimit(1, 100)
    limit.try_acquire(1)
    first, second = await waiting(limit, 1, 1)
    limit.release(1, 1)
    first.cancel()  # granted, but the task did not run yet
    await settle()
    assert first.cancelled()
    assert second.done()
    assert held(limit) == (1, 1)


async def test_cancelling_right_before_the_grant_takes_no_place() -> None:
    limit = InFlightLimit(1, 100)
    limit.try_acquire(1)
    first, second = await waiting(limit, 1, 1)
    first.cancel()
    limit.release(1, 1)  # its future is cancelled, its task did not run yet
    await settle()
    assert first.cancelled()
    assert second.done()
    assert held(limit) == (1, 1)


async def test_closing_tells_those_who_wait_and_those_who_come() -> None:
    limit = InFlightLimit(1, 100)
    limit.try_acquire(1)
    tasks = await waiting(limit, 1, 1)
    limit.close()
    limit.close()
    for task in tasks:
        with pytest.raises(ClientClosedError):
            await task
    assert not limit.try_acquire(1)
    with pytest.raises(ClientClosedError):
        await limit.acquire(1)
    limit.release(1, 1)
    assert held(limit) == (0, 0)
    assert not limit.try_acquire(1), "closed for good"


async def test_cancelling_a_waiter_that_was_just_told_of_the_close_is_quiet() -> None:
    limit = InFlightLimit(1, 100)
    limit.try_acquire(1)
    (task,) = await waiting(limit, 1)
    limit.close()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert held(limit) == (1, 1)


async def test_an_image_that_turned_out_smaller_makes_room() -> None:
    limit = InFlightLimit(10, 100)
    limit.try_acquire(100)
    (task,) = await waiting(limit, 60)
    limit.adjust(-30)
    await settle()
    assert not task.done()
    limit.adjust(-30)
    await settle()
    assert task.done()
    limit.adjust(+50)
    assert held(limit) == (2, 150), "a larger one is not sent away any more"
    assert not limit.try_acquire(1)


async def test_repr_shows_what_is_held() -> None:
    limit = InFlightLimit(1, 100)
    limit.try_acquire(7)
    (task,) = await waiting(limit, 1)
    assert repr(limit) == "InFlightLimit(1/1 images, 7/100 bytes, 1 waiting)"
    task.cancel()
    await settle()


def test_an_image_is_taken_below_everything_that_was_refused() -> None:
    limit = ImageLimit()
    assert limit.takes(10**9)
    limit.refused(3_000_000, None)
    assert [limit.takes(size) for size in (2_999_999, 3_000_000)] == [True, False]
    limit.refused(2_000_000, 1_000_000)
    assert [limit.takes(size) for size in (1_000_000, 1_000_001)] == [True, False]
    limit.refused(900_000, 2_000_000)
    assert [limit.takes(size) for size in (899_999, 900_000)] == [True, False], "whatever the server says it takes"
    limit.refused(3_000_000, None)
    assert not limit.takes(900_000), "for good"
