"""What the flow counts, over a channel in memory whose writer the test holds, in virtual time."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from athena_async import BatchingConfig, PoolConfig, RetryConfig
from athena_async.errors import ErrorCode
from athena_async.flow import Flow
from athena_async.results import Outcome
from tests.simulation.runs import config
from tests.unit.streams.fakes import FakeAccess, FakeCall, FakeTransport, ListSink, settle, tickets
from tests.virtual_time import run_virtual


class Bench:
    """A flow with one channel and the tasks of its sessions; batches of ten images."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self.transport = FakeTransport()
        self.sink = ListSink()
        settings = config(
            batching=BatchingConfig(fixed_size=10, linger_s=0.0),
            pool=PoolConfig(channels=1, max_channels=1),
            retry=RetryConfig(budget_images=100, budget_ratio=0.1, base_s=0.1, cap_s=0.1),
        )
        access = FakeAccess(self.transport).access()
        self.flow = Flow(settings, "a-deployment", access, lambda _event: None, random.Random(1))
        self.flow.fleet.start(lambda run, session: tasks.create_task(run(session)))

    @property
    def call(self) -> FakeCall:
        return self.transport.call

    async def open(self) -> None:
        """A stream, joined to the deployment."""
        self.flow.want_streams()
        await settle()

    def accept(self, *names: str) -> None:
        images = tickets(*names, sink=self.sink, deadline_s=1000.0)
        for image in images:
            assert self.flow.limit.try_acquire(image.reserved_bytes)
        assert not self.flow.accept(images)
        self.flow.prepared(images, ())

    async def pass_s(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.05)):
            await asyncio.sleep(0.05)
            self.flow.tick(0.0)

    def close(self) -> None:
        self.flow.give_up_rest()
        self.flow.batcher.close()
        self.flow.fleet.close()


def play(scene: Any) -> None:
    async def run() -> None:
        async with asyncio.TaskGroup() as tasks:
            bench = Bench(tasks)
            await scene(bench)
            bench.close()

    run_virtual(run())


FIRST = [f"a{number}" for number in range(10)]
SECOND = [f"b{number}" for number in range(10)]


def test_images_that_come_back_unsent_earn_resends_once() -> None:
    async def scene(bench: Bench) -> None:
        bench.flow.budget.try_spend(100)
        await bench.open()
        bench.call.gate.clear()
        bench.accept(*FIRST, *SECOND)
        await settle()
        assert (bench.call.write_attempts, bench.flow.budget.available) == (2, 1), "the second batch waits"
        bench.call.fail(ErrorCode.UNAVAILABLE)
        await bench.pass_s(1.0)
        assert bench.call.requests == [SECOND], "it is sent, and the first may have been"
        assert bench.flow.budget.available == 2
        assert bench.flow.settlement.totals.resent_count == 0

    play(scene)


def test_a_resend_that_comes_back_unsent_is_counted_when_it_is_sent() -> None:
    async def scene(bench: Bench) -> None:
        totals = bench.flow.settlement.totals
        await bench.open()
        bench.accept(*FIRST)
        await settle()
        bench.call.fail(ErrorCode.UNAVAILABLE)
        await bench.pass_s(1.0)
        bench.call.gate.clear()
        bench.accept(*SECOND)
        bench.flow.arbiter.recovery.backlog(0, asyncio.get_running_loop().time())
        await bench.pass_s(10.0)
        assert (bench.call.write_attempts, totals.resent_count) == (2, 0), "they wait behind the second batch"
        bench.call.fail(ErrorCode.UNAVAILABLE)
        await bench.pass_s(1.0)
        assert bench.call.requests == [FIRST]
        assert totals.resent_count == 10

    play(scene)


def test_an_image_that_is_known_to_be_too_large_is_not_sent_and_its_resend_given_back() -> None:
    async def scene(bench: Bench) -> None:
        await bench.open()
        bench.flow.image_limit.refused(80, None)
        bench.accept("a")
        assert [(r.outcome, r.error and r.error.code, r.attempts) for r in bench.sink.results] == [
            (Outcome.FAILED, ErrorCode.IMAGE_TOO_LARGE, 0)
        ]
        images = tickets("b", sink=bench.sink, deadline_s=1000.0)
        images[0].attempts = 1
        assert bench.flow.limit.try_acquire(images[0].reserved_bytes)
        assert not bench.flow.accept(images)
        assert bench.flow.budget.try_spend(1)
        available = bench.flow.budget.snapshot().available
        bench.flow.prepared(images, ())
        assert bench.sink.results[1].outcome is Outcome.UNKNOWN, "an earlier stream may have carried it"
        assert bench.flow.budget.snapshot().available == available + 1
        assert len(bench.flow.demultiplexer) == 0

    play(scene)
