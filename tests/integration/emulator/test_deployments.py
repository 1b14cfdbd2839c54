"""Deployments over sockets: who gets which answer, and for how long."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.protobuf import empty_pb2

from athena_async.emulator import Behaviour, Deployments, Emulator, ManualClock, ServiceModel

pytestmark = pytest.mark.anyio


async def listed(stub: Any, metadata: Any = None) -> dict[str, int]:
    response = await stub.ListDeployments(empty_pb2.Empty(), metadata=metadata)
    return {row.deployment_id: row.backlog for row in response.deployments}


async def test_answers_go_to_the_streams_of_a_deployment_in_turn(lab: SimpleNamespace) -> None:
    async with Emulator() as emulator, lab.connect(emulator.address) as stub:
        asker, listener = stub.Classify(), stub.Classify()
        for call in (asker, listener):
            await call.write(lab.request())
        await lab.until(lambda: emulator.deployments.all() and emulator.deployments.all()[0].stream_count == 2)
        got: list[str] = []
        for n in range(4):
            await asker.write(lab.request(lab.item(f"{n}")))
            await lab.until(lambda n=n: len(emulator.audit) == n + 1 and not emulator.deployments.all()[0].backlog)
        got += await lab.read_ids(asker, 2)
        got += await lab.read_ids(listener, 2)
        assert sorted(got) == ["0", "1", "2", "3"]


async def test_a_stream_that_went_away_leaves_its_answers_to_the_deployment(lab: SimpleNamespace) -> None:
    async with Emulator() as emulator:
        emulator.hold()
        async with lab.connect(emulator.address) as stub:
            call = stub.Classify()
            await call.write(lab.request(lab.item("one"), lab.item("two")))
            await lab.until(lambda: len(emulator.audit) == 2)
        await lab.until(lambda: emulator.live_streams == 0)
        emulator.release()
        async with lab.connect(emulator.address) as stub:
            assert await listed(stub) == {"d": 2}
            call = stub.Classify()
            await call.write(lab.request())
            assert await lab.read_ids(call, 2) == ["one", "two"]
            assert await listed(stub) == {"d": 0}


async def test_work_goes_on_when_the_connection_is_lost(lab: SimpleNamespace) -> None:
    model = ServiceModel(fixed_s=0.1)
    async with Emulator(model=model) as emulator:
        async with lab.connect(emulator.address) as stub:
            call = stub.Classify()
            await call.write(lab.request(lab.item("one")))
            await lab.until(lambda: bool(emulator.deployments.all()) and emulator.deployments.all()[0].backlog == 1)
            await emulator.kill()
            code, _ = await lab.status_of(call)
            assert code is grpc.StatusCode.UNAVAILABLE
        await lab.until(lambda: len(emulator.audit) == 1)
        await emulator.start()
        async with lab.connect(emulator.address) as stub:
            call = stub.Classify()
            await call.write(lab.request())
            assert await lab.read_ids(call, 1) == ["one"]


async def test_a_crash_that_forgets_audits_what_it_abandoned(lab: SimpleNamespace) -> None:
    async with Emulator(model=ServiceModel(fixed_s=60.0)) as emulator, lab.connect(emulator.address) as stub:
        port = emulator.port
        call = stub.Classify()
        await call.write(lab.request(lab.item("lost")))
        await lab.until(lambda: bool(emulator.deployments.all()) and emulator.deployments.all()[0].backlog == 1)
        await emulator.kill(forget=True)
        assert [(record.outcome, record.billed) for record in emulator.audit] == [("ABANDONED", False)]
        assert len(emulator.deployments) == 0
        await emulator.start()
        assert emulator.port == port


async def test_clients_do_not_see_each_others_deployments(lab: SimpleNamespace) -> None:
    async with Emulator(api_keys=("a=ka", "b=kb")) as emulator, lab.connect(emulator.address) as stub:
        emulator.hold()
        call = stub.Classify(metadata=lab.bearer("ka"))
        await call.write(lab.request(lab.item("one")))
        await lab.until(lambda: len(emulator.audit) == 1)
        assert await listed(stub, lab.bearer("ka")) == {"d": 1}
        assert await listed(stub, lab.bearer("kb")) == {}
        assert emulator.audit[0].client == "a"


async def test_several_endpoints_may_share_deployments(lab: SimpleNamespace) -> None:
    shared = Deployments()
    async with (
        Emulator(deployments=shared) as left,
        Emulator(deployments=shared) as right,
        lab.connect(left.address) as asker,
        lab.connect(right.address) as taker,
    ):
        left.hold()
        call = asker.Classify()
        await call.write(lab.request(lab.item("one")))
        other = taker.Classify()
        await other.write(lab.request())
        assert await lab.read_ids(other, 1) == ["one"]
        assert await listed(asker) == {"d": 0}


async def test_an_answer_is_kept_for_an_hour(lab: SimpleNamespace) -> None:
    clock = ManualClock()
    async with Emulator(clock=clock) as emulator, lab.connect(emulator.address) as stub:
        emulator.hold()
        call = stub.Classify()
        await call.write(lab.request(lab.item("early")))
        await lab.until(lambda: len(emulator.audit) == 1)
        clock.advance(1800.0)
        await call.write(lab.request(lab.item("late")))
        await lab.until(lambda: len(emulator.audit) == 2)
        clock.advance(1801.0)
        emulator.release()
        assert await lab.read_ids(call, 1) == ["late"]
        assert emulator.deployments.all()[0].expired_count == 1
        assert await listed(stub) == {"d": 0}


async def test_an_answer_of_59_minutes_is_still_there(lab: SimpleNamespace) -> None:
    clock = ManualClock()
    async with Emulator(clock=clock) as emulator, lab.connect(emulator.address) as stub:
        emulator.hold()
        call = stub.Classify()
        await call.write(lab.request(lab.item("one")))
        await lab.until(lambda: len(emulator.audit) == 1)
        clock.advance(59 * 60.0)
        emulator.release()
        assert await lab.read_ids(call, 1) == ["one"]


async def test_a_deployment_is_removed_after_a_day_and_a_stream_that_stayed_begins_anew(lab: SimpleNamespace) -> None:
    clock = ManualClock()
    async with Emulator(clock=clock) as emulator, lab.connect(emulator.address) as stub:
        call = stub.Classify()
        await call.write(lab.request(lab.item("one")))
        await lab.read_ids(call, 1)
        clock.advance(23 * 3600.0)
        assert await listed(stub) == {"d": 0}
        clock.advance(3600.0)
        assert await listed(stub) == {}
        await call.write(lab.request(lab.item("two")))
        assert await lab.read_ids(call, 1) == ["two"]
        assert await listed(stub) == {"d": 0}


async def test_keep_alives_keep_a_deployment(lab: SimpleNamespace) -> None:
    clock = ManualClock()
    async with Emulator(clock=clock) as emulator, lab.connect(emulator.address) as stub:
        call = stub.Classify()
        await call.write(lab.request())
        await lab.until(lambda: len(emulator.deployments) == 1)
        clock.advance(23 * 3600.0)
        await call.write(lab.request())
        await lab.until(lambda: emulator.deployments.all()[0].last_activity_s == clock.now())
        clock.advance(23 * 3600.0)
        assert await listed(stub) == {"d": 0}


async def test_time_runs_as_fast_as_asked(lab: SimpleNamespace) -> None:
    async with Emulator(time_scale=36_000_000.0) as emulator, lab.connect(emulator.address) as stub:
        emulator.hold()
        call = stub.Classify()
        await call.write(lab.request(lab.item("one")))
        await lab.until(lambda: len(emulator.audit) == 1)
        await lab.until(lambda: not len(emulator.deployments))


async def test_a_deployment_starts_on_first_use(lab: SimpleNamespace) -> None:
    async with Emulator(model=ServiceModel(startup_s=0.3)) as emulator, lab.connect(emulator.address) as stub:
        call = stub.Classify()
        await call.write(lab.request(lab.item("one")))
        await lab.until(lambda: bool(emulator.deployments.all()) and emulator.deployments.all()[0].backlog == 1)
        ready_s = emulator.deployments.all()[0].ready_s
        await lab.read_ids(call, 1)
        assert asyncio.get_running_loop().time() >= ready_s
        await call.write(lab.request(lab.item("two")))
        await lab.read_ids(call, 1)
        assert emulator.deployments.all()[0].ready_s == ready_s


async def test_an_idle_stream_is_ended_where_that_is_chosen(lab: SimpleNamespace) -> None:
    behaviour = Behaviour(stream_idle_timeout_s=0.05)
    async with Emulator(behaviour=behaviour) as emulator, lab.connect(emulator.address) as stub:
        call = stub.Classify()
        await call.write(lab.request())
        assert (await lab.status_of(call))[0] is grpc.StatusCode.UNAVAILABLE


async def test_work_of_a_purged_deployment_goes_nowhere(lab: SimpleNamespace) -> None:
    clock = ManualClock()
    model = ServiceModel(fixed_s=0.2)
    async with Emulator(clock=clock, model=model) as emulator, lab.connect(emulator.address) as stub:
        call = stub.Classify(iter([lab.request(lab.item("one"))]))
        await lab.until(lambda: bool(emulator.deployments.all()) and emulator.deployments.all()[0].backlog == 1)
        clock.advance(24 * 3600.0)
        assert await listed(stub) == {}
        assert (await lab.status_of(call))[0] is grpc.StatusCode.OK
        assert len(emulator.audit) == 1
        assert await listed(stub) == {}


async def test_stopping_amid_work_owes_a_shared_deployment_nothing(lab: SimpleNamespace) -> None:
    shared = Deployments()
    model = ServiceModel(fixed_s=60.0)
    async with Emulator(deployments=shared, model=model) as emulator, lab.connect(emulator.address) as stub:
        call = stub.Classify()
        await call.write(lab.request(lab.item("one")))
        await lab.until(lambda: bool(shared.all()) and shared.all()[0].backlog == 1)
    assert shared.all()[0].backlog == 0
    assert emulator.audit.outcomes() == {"ABANDONED": 1}
