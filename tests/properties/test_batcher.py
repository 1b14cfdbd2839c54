"""The batcher against its invariants: whatever is offered, answered, paused and settled in whatever order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from athena_async.batching.batcher import Batcher
from athena_async.batching.controller import BatchController
from athena_async.config import BatchingConfig
from athena_async.streams.ticket import Batch, Ticket
from tests.unit.streams.fakes import ticket
from tests.virtual_time import run_virtual

MAX_IMAGES = 4
MAX_BYTES = 1024
LINGER_S = 0.005
IN_FLIGHT = 2

STEP = st.one_of(
    st.tuples(st.just("offer"), st.lists(st.integers(60, 1500), min_size=1, max_size=6)),
    st.tuples(st.just("resend"), st.lists(st.integers(60, 1500), min_size=1, max_size=3)),
    st.tuples(st.just("answer"), st.integers(0, 10)),
    st.tuples(st.just("settle"), st.integers(0, 10)),
    st.tuples(st.just("remove"), st.integers(0, 10)),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.001, LINGER_S, 0.1])),
    st.tuples(st.sampled_from(["pause", "resume", "ill", "well"]), st.just(None)),
)


class Lane:
    def __init__(self, world: World, endpoint: str) -> None:
        self.endpoint = endpoint
        self.world = world
        self.flying: list[Batch] = []

    def send(self, batch: Batch) -> None:
        self.world.check_sent(self, batch)
        self.flying.append(batch)

    def finished(self, batch: Batch, now: float) -> None: ...

    def release(self, batch: Batch) -> list[Ticket]:
        return batch.release()


class World:
    """The queue as it should be, beside the batcher."""

    def __init__(self) -> None:
        config = BatchingConfig(
            fixed_size=MAX_IMAGES, max_bytes=MAX_BYTES, max_batches_in_flight=IN_FLIGHT, linger_s=LINGER_S
        )
        self.lanes = [Lane(self, "a:1"), Lane(self, "b:1")]
        self.queue: list[Ticket] = []
        self.well = True
        self.pauses = 0
        self.counter = 0
        self.clock = asyncio.get_running_loop().time
        self.batcher: Batcher[Lane] = Batcher(
            {lane.endpoint: BatchController(config) for lane in self.lanes},
            self._pick,
            lambda *_: None,
            lambda _ticket: False,
            LINGER_S,
        )

    def check_sent(self, lane: Lane, batch: Batch) -> None:
        waiting = [one for one in self.queue if not one.settled]
        count = len(batch.tickets)
        assert count, "an empty batch left"
        assert list(batch.tickets) == waiting[:count], "not first in, first out"
        # Settled ones count until they are dropped, which only makes a batch leave sooner.
        seen_images, seen_bytes = len(self.queue), sum(one.reserved_bytes for one in self.queue)
        self.queue = self.queue[self.queue.index(batch.tickets[-1]) + 1 :]
        assert count <= MAX_IMAGES
        size_bytes = sum(one.frame.size_bytes for one in batch.tickets if one.frame)
        assert batch.size_bytes == size_bytes
        assert size_bytes <= MAX_BYTES or count == 1
        assert not self.pauses
        assert self.well
        assert len(lane.flying) < IN_FLIGHT
        lingered = self.clock() - batch.tickets[0].ready_s >= LINGER_S * 0.999
        full = seen_images >= MAX_IMAGES or seen_bytes >= MAX_BYTES
        assert not lane.flying or full or lingered, "left without need while another was in flight"

    async def step(self, kind: str, value: object) -> None:
        now = self.clock()
        if kind in ("offer", "resend"):
            assert isinstance(value, list)
            images = [self._ticket(size) for size in value]
            if kind == "offer":
                self.queue.extend(images)
                self.batcher.offer(images, now)
            else:
                self.queue[:0] = images
                self.batcher.offer_first(images, now)
        elif kind == "wait":
            await asyncio.sleep(float(str(value)))
        elif kind in ("pause", "resume"):
            self._pause(kind)
        elif kind in ("ill", "well"):
            self.well = kind == "well"
        else:
            assert isinstance(value, int)
            getattr(self, f"_{kind}")(value)
        self.batcher.pump(self.clock())
        await asyncio.sleep(0)
        self.check()

    def check(self) -> None:
        waiting = [one for one in self.queue if not one.settled]
        assert len(waiting) <= len(self.batcher) <= len(self.queue)
        for lane in self.lanes:
            assert self.batcher.in_flight(lane.endpoint) == len(lane.flying)
        if waiting and self.well and not self.pauses:
            assert any(lane.flying for lane in self.lanes), "waits though nothing is in flight"

    async def finish(self) -> None:
        """With everything well again all of it leaves, and nothing is counted any more."""
        self.well = True
        while self.pauses:
            self._pause("resume")
        for _ in range(300):
            if not len(self.batcher):
                break
            await self.step("wait", LINGER_S * 2)
            for _ in range(4):
                self._answer(0)
            self.batcher.pump(self.clock())
        assert not [one for one in self.queue if not one.settled]
        assert (len(self.batcher), self.batcher.ready_bytes) == (0, 0)

    def _pick(self, _now: float, with_room: Sequence[str]) -> Lane | None:
        return next((lane for lane in self.lanes if lane.endpoint in with_room), None) if self.well else None

    def _ticket(self, size_bytes: int) -> Ticket:
        self.counter += 1
        return ticket(f"id-{self.counter}", size_bytes=size_bytes)

    def _pause(self, kind: str) -> None:
        if kind == "pause":
            self.pauses += 1
            self.batcher.pause()
        elif self.pauses:
            self.pauses -= 1
            self.batcher.resume()

    def _answer(self, which: int) -> None:
        flying = [(lane, batch) for lane in self.lanes for batch in lane.flying]
        if flying:
            lane, batch = flying[which % len(flying)]
            lane.flying.remove(batch)
            self.batcher.finished(lane.endpoint)

    def _settle(self, which: int) -> None:
        if self.queue:
            self.queue[which % len(self.queue)].settle()

    def _remove(self, which: int) -> None:
        if self.queue:
            gone = self.queue[which % len(self.queue)]
            removed = self.batcher.remove(lambda one: one is gone)
            assert removed == [gone] or gone.settled
            self.queue.remove(gone)


@settings(max_examples=100, deadline=None)
@given(st.lists(STEP, max_size=25))
def test_the_invariants_hold_whatever_happens(steps: list[tuple[str, object]]) -> None:
    async def main() -> None:
        world = World()
        for kind, value in steps:
            await world.step(kind, value)
        await world.finish()
        world.batcher.close()

    run_virtual(main())
