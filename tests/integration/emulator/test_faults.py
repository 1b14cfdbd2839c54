"""Each fault of the plan, dealt once, over a socket."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import grpc
import pytest

from athena_async.emulator import Behaviour, Emulator, FaultPlan, ServiceModel

pytestmark = pytest.mark.anyio


async def test_refuse(lab: SimpleNamespace) -> None:
    async with Emulator(faults=FaultPlan(refuse_code="INTERNAL")) as emulator, lab.connect(emulator.address) as stub:
        emulator.faults.inject("refuse")
        assert (await lab.status_of(stub.Classify()))[0] is grpc.StatusCode.INTERNAL
        assert not (await stub.ClassifySingle(lab.item("one"))).HasField("error")


async def test_expired_tokens(lab: SimpleNamespace) -> None:
    async with Emulator(api_keys=("key",)) as emulator, lab.connect(emulator.address) as stub:
        emulator.faults.inject("expired_tokens")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ClassifySingle(lab.item("one"), metadata=lab.bearer("key"))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert not (await stub.ClassifySingle(lab.item("one"), metadata=lab.bearer("key"))).HasField("error")


async def test_drop_streams_keeps_the_answers(lab: SimpleNamespace) -> None:
    async with Emulator() as emulator, lab.connect(emulator.address) as stub:
        emulator.hold()
        emulator.faults.inject("drop_streams")
        call = stub.Classify()
        await call.write(lab.request(lab.item("one")))
        assert (await lab.status_of(call))[0] is grpc.StatusCode.UNAVAILABLE
        emulator.release()
        again = stub.Classify()
        await again.write(lab.request())
        assert await lab.read_ids(again, 1) == ["one"]


async def test_drop_streams_may_lose_the_request(lab: SimpleNamespace) -> None:
    plan = FaultPlan(drop_loses_request=True, drop_code="INTERNAL")
    async with Emulator(faults=plan) as emulator, lab.connect(emulator.address) as stub:
        emulator.faults.inject("drop_streams")
        call = stub.Classify()
        await call.write(lab.request(lab.item("one")))
        assert (await lab.status_of(call))[0] is grpc.StatusCode.INTERNAL
        assert emulator.audit.outcomes() == {"ABANDONED": 1}
        assert emulator.deployments.all()[0].backlog == 0


async def test_drop_by_hand(lab: SimpleNamespace) -> None:
    async with Emulator() as emulator, lab.connect(emulator.address) as stub:
        call = stub.Classify()
        await call.write(lab.request())
        await lab.until(lambda: emulator.live_streams == 1)
        assert emulator.drop_streams("ABORTED") == 1
        assert (await lab.status_of(call))[0] is grpc.StatusCode.ABORTED
        await lab.until(lambda: emulator.live_streams == 0)


async def test_half_close_is_ok_with_images_open(lab: SimpleNamespace) -> None:
    async with Emulator() as emulator, lab.connect(emulator.address) as stub:
        emulator.hold()
        emulator.faults.inject("half_close")
        call = stub.Classify()
        await call.write(lab.request(lab.item("one")))
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK
        assert emulator.deployments.all()[0].backlog == 1


async def test_blackhole_keeps_the_call_open_and_silent(lab: SimpleNamespace) -> None:
    async with Emulator() as emulator, lab.connect(emulator.address) as stub:
        emulator.faults.inject("blackhole")
        deaf, other = stub.Classify(), stub.Classify()
        await deaf.write(lab.request(lab.item("one")))
        await lab.until(lambda: emulator.faults.counts["blackhole"] == 1)
        await deaf.write(lab.request(lab.item("never read")))
        await other.write(lab.request(lab.item("two")))
        read = asyncio.ensure_future(deaf.read())
        got = await lab.read_ids(other, 1)
        if got == ["one"]:
            got += await lab.read_ids(other, 1)
        assert "two" in got
        await asyncio.wait({read}, timeout=0.1)
        assert emulator.live_streams == 2
        assert "never read" not in {record.correlation_id for record in emulator.audit}
        deaf.cancel()
        await asyncio.gather(read, return_exceptions=True)
        await lab.until(lambda: emulator.live_streams == 1)


async def test_goaway_lets_open_calls_go_on_and_new_ones_connect_anew(lab: SimpleNamespace) -> None:
    async with Emulator() as emulator, lab.connect(emulator.address) as stub:
        call = stub.Classify()
        emulator.faults.inject("goaway")
        await call.write(lab.request(lab.item("one")))
        assert await lab.read_ids(call, 1) == ["one"]
        await lab.until(lambda: emulator.faults.counts["goaway"] == 1)
        await asyncio.sleep(0.2)  # GOAWAY is on its way
        await call.write(lab.request(lab.item("two")))
        assert await lab.read_ids(call, 1) == ["two"]
        second = stub.Classify(wait_for_ready=True)
        await second.write(lab.request(lab.item("three"), deployment_id="other"))
        assert await lab.read_ids(second, 1) == ["three"]
        assert emulator.live_streams == 2


async def test_delay_lets_later_requests_overtake(lab: SimpleNamespace) -> None:
    async with Emulator(faults=FaultPlan(delay_s=0.2)) as emulator, lab.connect(emulator.address) as stub:
        emulator.faults.inject("delay")
        call = stub.Classify()
        await call.write(lab.request(lab.item("slow")))
        await call.write(lab.request(lab.item("fast")))
        assert await lab.read_ids(call, 2) == ["fast", "slow"]


@pytest.mark.parametrize("shared", [False, True])
async def test_global_errors_name_nobody(lab: SimpleNamespace, shared: bool) -> None:
    plan = FaultPlan(global_error_code="MODEL_ERROR")
    behaviour = Behaviour(share_global_errors=shared)
    async with Emulator(faults=plan, behaviour=behaviour) as emulator, lab.connect(emulator.address) as stub:
        emulator.faults.inject("global_errors")
        call = stub.Classify()
        await call.write(lab.request(lab.item("one"), lab.item("two")))
        response = await call.read()
        assert response.global_error.code == lab.m.ERROR_CODE_MODEL_ERROR
        assert not response.outputs
        await call.write(lab.request(lab.item("three")))
        assert await lab.read_ids(call, 1) == ["three"]
        assert emulator.audit.outcomes() == {"MODEL_ERROR": 2, "CLASSIFIED": 1}


@pytest.mark.parametrize(
    "code", ["UNSPECIFIED", "IMAGE_TOO_LARGE", "MODEL_ERROR", "DEPLOYMENT_ID_INVALID", "CORRELATION_ID_INVALID"]
)
async def test_image_errors_of_every_code(lab: SimpleNamespace, code: str) -> None:
    async with Emulator(faults=FaultPlan(image_error_code=code)) as emulator, lab.connect(emulator.address) as stub:
        emulator.faults.inject("image_errors")
        call = stub.Classify()
        await call.write(lab.request(lab.item("bad"), lab.item("good")))
        bad, good = (await call.read()).outputs
        assert bad.error.code == lab.m.ErrorCode.Value(f"ERROR_CODE_{code}")
        assert not good.HasField("error")
        assert [(r.outcome, r.billed) for r in emulator.audit] == [(code, False), ("CLASSIFIED", True)]


async def test_omitted_answers_are_billed_and_never_sent(lab: SimpleNamespace) -> None:
    async with Emulator() as emulator, lab.connect(emulator.address) as stub:
        emulator.faults.inject("omit")
        call = stub.Classify(iter([lab.request(lab.item("one"))]))
        assert (await lab.status_of(call))[0] is grpc.StatusCode.OK
        assert emulator.audit.billed_count == 1
        assert emulator.deployments.all()[0].backlog == 0


async def test_duplicates(lab: SimpleNamespace) -> None:
    async with Emulator() as emulator, lab.connect(emulator.address) as stub:
        emulator.faults.inject("duplicate")
        call = stub.Classify(iter([lab.request(lab.item("one"))]))
        assert await lab.read_ids(call, 2) == ["one", "one"]
        assert (await lab.status_of(call))[0] is grpc.StatusCode.OK
        assert len(emulator.audit) == 1


async def test_reordered_answers(lab: SimpleNamespace) -> None:
    async with Emulator() as emulator, lab.connect(emulator.address) as stub:
        emulator.faults.inject("reorder")
        call = stub.Classify()
        sent = [f"{n}" for n in range(20)]
        await call.write(lab.request(*(lab.item(name) for name in sent)))
        await call.write(lab.request(lab.item("later")))
        got = await lab.read_ids(call, 21)
        assert got[0] == "later"
        assert got[1:] != sent
        assert sorted(got[1:]) == sorted(sent)


async def test_foreign_answers(lab: SimpleNamespace) -> None:
    async with Emulator() as emulator, lab.connect(emulator.address) as stub:
        emulator.faults.inject("foreign")
        call = stub.Classify()
        await call.write(lab.request(lab.item("one")))
        foreign, own = await lab.read_ids(call, 2)
        assert foreign.startswith("foreign-")
        assert own == "one"
        assert len(emulator.audit) == 1


async def test_a_full_queue_is_resource_exhausted_and_what_was_accepted_is_answered(lab: SimpleNamespace) -> None:
    model = ServiceModel(fixed_s=0.2, queue_limit_images=3)
    async with Emulator(model=model) as emulator, lab.connect(emulator.address) as stub:
        call = stub.Classify()
        await call.write(lab.request(lab.item("1"), lab.item("2"), lab.item("3")))
        await call.write(lab.request(lab.item("4")))
        assert (await lab.status_of(call))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ClassifySingle(lab.item("5"))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        again = stub.Classify()
        await again.write(lab.request())
        assert await lab.read_ids(again, 3) == ["1", "2", "3"]
        assert emulator.audit.outcomes() == {"RESOURCE_EXHAUSTED": 2, "CLASSIFIED": 3}


async def test_held_single_images_wait_as_well(lab: SimpleNamespace) -> None:
    async with Emulator() as emulator, lab.connect(emulator.address) as stub:
        emulator.hold()
        call = stub.ClassifySingle(lab.item("one"))
        await lab.until(lambda: len(emulator.audit) == 1)
        assert not call.done()
        emulator.release()
        assert (await call).correlation_id == "one"


async def test_the_model_may_change_while_it_runs(lab: SimpleNamespace) -> None:
    async with Emulator(model=ServiceModel(fixed_s=3600.0)) as emulator, lab.connect(emulator.address) as stub:
        call = stub.Classify()
        await call.write(lab.request(lab.item("slow")))
        await lab.until(lambda: bool(emulator.deployments.all()) and emulator.deployments.all()[0].backlog == 1)
        emulator.model = ServiceModel()
        await call.write(lab.request(lab.item("fast")))
        assert await lab.read_ids(call, 1) == ["fast"]


async def test_a_goaway_that_is_given_up_half_way_does_no_harm(lab: SimpleNamespace) -> None:
    """A listener that was bound and never started would take every other connection and answer none."""
    async with Emulator() as emulator:
        for _ in range(10):
            half_way = asyncio.ensure_future(emulator.go_away())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            half_way.cancel()
            await asyncio.gather(half_way, return_exceptions=True)
        for _ in range(10):
            async with lab.connect(emulator.address) as stub:
                assert not (await stub.ClassifySingle(lab.item("one"), wait_for_ready=True)).HasField("error")
