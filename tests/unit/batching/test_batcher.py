"""The batcher with a controller that does as it is told, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from athena_async.batching.batcher import Batcher
from athena_async.batching.controller import BatchController
from athena_async.config import BatchingConfig
from athena_async.streams.ticket import Batch, Ticket
from tests.unit.streams.fakes import ticket, tickets
from tests.virtual_time import run_virtual

LINGER_S = 0.005


class Lane:
    """A channel that always takes what it is given."""

    def __init__(self, endpoint: str = "a:1") -> None:
        self.endpoint = endpoint
        self.sent: list[list[str]] = []
        self.sent_s: list[float] = []
        self.batches: list[Batch] = []

    def send(self, batch: Batch) -> None:
        self.batches.append(batch)
        self.sent.append([image.correlation_id for image in batch.tickets])
        self.sent_s.append(asyncio.get_running_loop().time())

    def finished(self, batch: Batch, now: float) -> None: ...

    def release(self, batch: Batch) -> list[Ticket]:
        return batch.release()


class Bench:
    """One batcher over some lanes, the first with room picked."""

    def __init__(
        self, *lanes: Lane, images: int = 4, max_bytes: int = 10_000, in_flight: int = 1, linger_s: float = LINGER_S
    ) -> None:
        self.lanes = lanes or (Lane(),)
        self.healthy = True
        self.told: list[Batch] = []
        self.largest_bytes = 10**9
        self.refused: list[str] = []
        config = BatchingConfig(
            fixed_size=images, max_bytes=max_bytes, max_batches_in_flight=in_flight, linger_s=linger_s
        )
        self.batcher: Batcher[Lane] = Batcher(
            {lane.endpoint: BatchController(config) for lane in self.lanes},
            self._pick,
            lambda _lane, batch: self.told.append(batch),
            self._refuse,
            linger_s,
        )

    @property
    def sent(self) -> list[list[str]]:
        return self.lanes[0].sent

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def offer(self, *names: str, **kwargs: Any) -> list[Ticket]:
        images = tickets(*names, **kwargs)
        self.batcher.offer(images, self.now)
        return images

    def answered(self, endpoint: str = "a:1") -> None:
        self.batcher.finished(endpoint)
        self.batcher.pump(self.now)

    def _refuse(self, image: Ticket) -> bool:
        if image.frame_bytes <= self.largest_bytes:
            return False
        self.refused.append(image.correlation_id)
        image.settle()
        return True

    def _pick(self, _now: float, with_room: Sequence[str]) -> Lane | None:
        return next((lane for lane in self.lanes if lane.endpoint in with_room), None) if self.healthy else None


def play(scene: Callable[[], Awaitable[None]]) -> None:
    run_virtual(scene())  # type: ignore[arg-type]


def test_a_lone_image_leaves_at_once_when_nothing_is_in_flight() -> None:
    async def scene() -> None:
        bench = Bench()
        bench.offer("a")
        assert bench.sent == [["a"]]
        assert bench.batcher.in_flight("a:1") == 1
        assert bench.told == bench.lanes[0].batches

    play(scene)


def test_with_a_batch_in_flight_an_image_waits_for_company_and_no_longer_than_the_linger() -> None:
    async def scene() -> None:
        bench = Bench(in_flight=8)
        bench.offer("a")
        await asyncio.sleep(1.0)
        bench.offer("b")
        await asyncio.sleep(LINGER_S / 2)
        bench.offer("c")
        assert bench.sent == [["a"]]
        await asyncio.sleep(LINGER_S)
        assert bench.sent == [["a"], ["b", "c"]]
        assert bench.lanes[0].sent_s == pytest.approx([0.0, 1.0 + LINGER_S])

    play(scene)


def test_an_image_that_is_too_large_is_refused_and_holds_up_nothing() -> None:
    async def scene() -> None:
        bench = Bench()
        bench.offer("first")
        bench.largest_bytes = 500
        large, *others = tickets("large", size_bytes=501), *tickets("b", "c", size_bytes=500)
        bench.batcher.offer([*large, *others], bench.now)
        assert bench.refused == ["large"], "though no channel has room"
        bench.answered()
        assert bench.sent == [["first"], ["b", "c"]]
        assert bench.batcher.ready_bytes == 0

    play(scene)


def test_a_lone_image_goes_where_nothing_is_in_flight() -> None:
    """It would wait for company on the endpoint that is chosen first."""

    async def scene() -> None:
        bench = Bench(Lane("a:1"), Lane("b:1"), in_flight=8)
        for name in "abc":
            bench.offer(name)
        assert [lane.sent for lane in bench.lanes] == [[["a"]], [["b"]]]
        await asyncio.sleep(LINGER_S)
        assert [lane.sent for lane in bench.lanes] == [[["a"], ["c"]], [["b"]]]

    play(scene)


@pytest.mark.parametrize("start_s", [0.1, 1e3 + 0.3, 1e5 + 0.7, 123456.789, 1e7 + 1 / 3])
def test_the_linger_ends_whatever_the_clock_shows(start_s: float) -> None:
    """``(t + linger) - t`` is less than ``linger`` for some t: that must not start the wait anew for ever."""

    async def scene() -> None:
        await asyncio.sleep(start_s)
        for turn in range(50):
            bench = Bench(in_flight=8)
            bench.offer("a")
            bench.offer("b")
            await asyncio.sleep(2 * LINGER_S)
            assert bench.sent == [["a"], ["b"]], turn
            await asyncio.sleep(0.0137)

    play(scene)


def test_a_full_batch_does_not_linger() -> None:
    async def scene() -> None:
        bench = Bench(images=2, in_flight=8)
        bench.offer("a")
        bench.offer("b", "c", "d")
        assert bench.sent == [["a"], ["b", "c"]]
        by_bytes = Bench(images=100, max_bytes=1024, in_flight=8)
        by_bytes.offer("a")
        by_bytes.offer("b", size_bytes=600)
        by_bytes.offer("c", size_bytes=600)
        assert by_bytes.sent == [["a"], ["b"]]

    play(scene)


def test_bounds_in_images_and_bytes_and_order() -> None:
    async def scene() -> None:
        bench = Bench(images=3, max_bytes=1024)
        bench.healthy = False
        bench.offer("a", "b", "c", "d", size_bytes=200)
        bench.offer("e", size_bytes=900)
        bench.offer("f", size_bytes=200)
        assert (len(bench.batcher), bench.batcher.ready_bytes) == (6, 1900)
        bench.healthy = True
        bench.batcher.pump(bench.now)
        for _ in range(4):
            bench.answered()
        assert bench.sent == [["a", "b", "c"], ["d"], ["e"], ["f"]]
        assert [batch.size_bytes for batch in bench.told] == [600, 200, 900, 200]
        assert [batch.queue_depth for batch in bench.told] == [3, 2, 1, 0]
        assert bench.batcher.ready_bytes == 0

    play(scene)


def test_an_image_larger_than_the_bound_goes_alone() -> None:
    async def scene() -> None:
        bench = Bench(max_bytes=1024)
        bench.healthy = False
        bench.offer("a", size_bytes=100)
        bench.offer("big", size_bytes=5000)
        bench.offer("b", size_bytes=100)
        bench.healthy = True
        bench.batcher.pump(bench.now)
        for _ in range(3):
            bench.answered()
        assert bench.sent == [["a"], ["big"], ["b"]]

    play(scene)


def test_no_more_batches_in_flight_than_planned() -> None:
    async def scene() -> None:
        bench = Bench(images=1, in_flight=2)
        bench.offer("a", "b", "c")
        assert bench.sent == [["a"], ["b"]]
        assert [batch.in_flight for batch in bench.told] == [2, 2], "those that leave together count each other"
        await asyncio.sleep(60.0)
        assert len(bench.sent) == 2
        bench.answered()
        assert bench.sent[2:] == [["c"]]
        assert bench.told[2].in_flight == 2

    play(scene)


def test_the_other_endpoint_takes_what_one_has_no_room_for() -> None:
    async def scene() -> None:
        bench = Bench(Lane("a:1"), Lane("b:1"), images=1)
        bench.offer("a", "b", "c")
        assert [lane.sent for lane in bench.lanes] == [[["a"]], [["b"]]]

    play(scene)


def test_nothing_leaves_while_paused_and_pauses_nest() -> None:
    async def scene() -> None:
        bench = Bench()
        bench.batcher.pause()
        bench.batcher.pause()
        bench.offer("a")
        bench.batcher.resume()
        bench.batcher.pump(bench.now)
        await asyncio.sleep(1.0)
        assert bench.sent == []
        bench.batcher.resume()
        bench.batcher.pump(bench.now)
        assert bench.sent == [["a"]]

    play(scene)


def test_a_pause_during_the_linger_holds_back_too() -> None:
    async def scene() -> None:
        bench = Bench(in_flight=8)
        bench.offer("a")
        bench.offer("b")
        bench.batcher.pause()
        await asyncio.sleep(1.0)
        assert bench.sent == [["a"]]

    play(scene)


def test_resends_go_first_in_their_order() -> None:
    async def scene() -> None:
        bench = Bench(images=10)
        bench.healthy = False
        bench.offer("a", "b")
        bench.batcher.offer_first(tickets("x", "y"), bench.now)
        bench.healthy = True
        bench.batcher.pump(bench.now)
        assert bench.sent == [["x", "y", "a", "b"]]

    play(scene)


def test_an_image_sent_before_is_sent_once_more() -> None:
    async def scene() -> None:
        bench = Bench(images=10)
        again = ticket("again")
        again.attempts = 1
        bench.batcher.offer([again, ticket("new")], bench.now)
        (batch,) = bench.told
        assert (len(batch.leave()), batch.resent) == (2, 1)
        assert again.attempts == 2

    play(scene)


def test_removed_images_are_given_back_with_their_bytes() -> None:
    async def scene() -> None:
        bench = Bench()
        bench.healthy = False
        a, b, c = bench.offer("a", "b", "c", size_bytes=300)
        assert bench.batcher.remove(lambda image: image is b) == [b]
        assert bench.batcher.ready_bytes == 600
        bench.healthy = True
        bench.batcher.pump(bench.now)
        assert bench.sent == [["a", "c"]]
        assert (a.attempts, c.attempts, b.attempts) == (1, 1, 0)

    play(scene)


def test_bytes_of_images_that_were_settled_here_are_given_back() -> None:
    """A settled image has no frame any more, and its bytes must not be counted for ever."""

    async def scene() -> None:
        bench = Bench()
        bench.healthy = False
        for image in bench.offer("a", "b", "c", size_bytes=300):
            image.settle()
        assert len(bench.batcher.remove(lambda image: image.settled)) == 3
        assert bench.batcher.ready_bytes == 0

    play(scene)


def test_images_that_were_settled_while_they_waited_do_not_leave() -> None:
    """A late answer may come for an image that waits to be sent again; a batch with it would never be answered."""

    async def scene() -> None:
        bench = Bench(images=10)
        bench.healthy = False
        a, b, c, d = bench.offer("a", "b", "c", "d", size_bytes=300)
        for image in (a, c):
            image.settle()
        bench.healthy = True
        bench.batcher.pump(bench.now)
        assert bench.sent == [["b", "d"]]
        assert (bench.told[0].open_count, bench.told[0].size_bytes) == (2, 600)
        assert (a.attempts, a.batch, c.batch) == (0, None, None)
        assert bench.batcher.ready_bytes == 0

    play(scene)


def test_no_empty_batch_leaves() -> None:
    async def scene() -> None:
        bench = Bench()
        bench.healthy = False
        for image in bench.offer("a", "b"):
            image.settle()
        bench.healthy = True
        bench.batcher.pump(bench.now)
        assert bench.sent == []
        assert (len(bench.batcher), bench.batcher.in_flight("a:1")) == (0, 0)

    play(scene)


def test_closing_stops_the_timer() -> None:
    async def scene() -> None:
        bench = Bench(in_flight=8)
        bench.offer("a")
        bench.offer("b")
        bench.batcher.close()
        bench.batcher.close()
        await asyncio.sleep(1.0)
        assert bench.sent == [["a"]]

    play(scene)


def test_the_timer_of_an_image_that_left_is_harmless() -> None:
    async def scene() -> None:
        bench = Bench(images=2, in_flight=8)
        bench.offer("a")
        bench.offer("b")
        await asyncio.sleep(LINGER_S / 2)
        bench.offer("c")
        assert bench.sent == [["a"], ["b", "c"]], "two make it full"
        bench.offer("d")
        await asyncio.sleep(LINGER_S * 0.9)
        assert len(bench.sent) == 2, "d has a wait of its own"
        await asyncio.sleep(LINGER_S * 0.2)
        assert bench.sent[2:] == [["d"]]

    play(scene)


class SharedLink(Lane):
    """Two connections over one link: what is in flight is carried side by side, at equal shares of the bandwidth.
    An answer comes ``BACK_S`` after the last byte of its batch."""

    BYTES_PER_S = 5e6
    BACK_S = 0.01

    def __init__(self) -> None:
        super().__init__()
        self._left: dict[Batch, float] = {}
        self.carried_bytes = 0

    def send(self, batch: Batch) -> None:
        super().send(batch)
        self._left[batch] = batch.size_bytes

    async def carry(self, answered: Callable[[Batch], None]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            shares = max(1, len(self._left))
            step_s = min([0.001, *(left * shares / self.BYTES_PER_S for left in self._left.values())])
            await asyncio.sleep(step_s)
            for batch in list(self._left):
                self._left[batch] -= step_s * self.BYTES_PER_S / shares
                if self._left[batch] < 1.0:
                    del self._left[batch]
                    self.carried_bytes += batch.size_bytes
                    loop.call_later(self.BACK_S, answered, batch)


def test_two_connections_that_share_a_link_are_both_kept_busy() -> None:
    """A batch that left together with another takes as long as both: its latency is not that of a lone one."""

    async def scene() -> None:
        loop, link = asyncio.get_running_loop(), SharedLink()
        controller = BatchController(BatchingConfig(max_bytes=360_000, target_latency_s=0.3))
        batcher = Batcher(
            {link.endpoint: controller}, lambda *_: link, lambda *_: None, lambda _ticket: False, LINGER_S
        )

        def answered(batch: Batch) -> None:
            now = loop.time()
            batcher.finished(link.endpoint)
            controller.observe(
                images=len(batch.tickets), size_bytes=batch.size_bytes, latency_s=now - batch.sent_s,
                in_flight=batch.in_flight, queue_depth=batch.queue_depth, now=now,
            )  # fmt: skip
            batcher.offer(tickets(*"abcdef", size_bytes=60_000), now)

        batcher.offer(tickets(*"abcdef" * 20, size_bytes=60_000), 0.0)
        carrying = asyncio.ensure_future(link.carry(answered))
        await asyncio.sleep(20.0)
        carrying.cancel()
        assert link.carried_bytes > 0.95 * 20.0 * link.BYTES_PER_S

    play(scene)


def test_repr_shows_what_waits() -> None:
    async def scene() -> None:
        bench = Bench()
        bench.offer("a")
        bench.offer("b", size_bytes=300)
        assert repr(bench.batcher) == "Batcher(1 images, 300 bytes ready; batches in flight a:1: 1)"

    play(scene)
