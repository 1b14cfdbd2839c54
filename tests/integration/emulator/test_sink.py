"""The fast mode over a socket."""

from __future__ import annotations

from types import SimpleNamespace

import grpc
import pytest
from google.protobuf import empty_pb2

from athena_async.emulator import Emulator, ServiceModel

pytestmark = pytest.mark.anyio


async def test_it_answers_everything_by_its_id(lab: SimpleNamespace, frame: bytes) -> None:
    async with Emulator(sink=True) as emulator, lab.connect(emulator.address) as stub:
        call = stub.Classify(iter([lab.request(lab.item("a", frame), lab.item("ü" * 64)), lab.request()]))
        assert await lab.read_ids(call, 2) == ["a", "ü" * 64]
        assert (await lab.status_of(call))[0] is grpc.StatusCode.OK
        assert (await stub.ClassifySingle(lab.item("b", frame))).correlation_id == "b"
        assert not (await stub.ListDeployments(empty_pb2.Empty())).deployments


async def test_it_follows_the_service_model(lab: SimpleNamespace) -> None:
    model = ServiceModel(fixed_s=0.05, queue_limit_images=2)
    async with Emulator(sink=True, model=model) as emulator, lab.connect(emulator.address) as stub:
        call = stub.Classify(iter([lab.request(lab.item("a"), lab.item("b"))]))
        assert await lab.read_ids(call, 2) == ["a", "b"]
        assert (await lab.status_of(call))[0] is grpc.StatusCode.OK
        call = stub.Classify(iter([lab.request(lab.item("a"), lab.item("b"), lab.item("c"))]))
        assert (await lab.status_of(call))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_it_holds_and_drops(lab: SimpleNamespace) -> None:
    async with Emulator(sink=True) as emulator, lab.connect(emulator.address) as stub:
        emulator.hold()
        call = stub.Classify()
        await call.write(lab.request(lab.item("a")))
        single = stub.ClassifySingle(lab.item("b"))
        await lab.until(lambda: emulator.live_streams == 1)
        emulator.release()
        assert await lab.read_ids(call, 1) == ["a"]
        assert (await single).correlation_id == "b"
        assert emulator.drop_streams() == 1
        assert (await lab.status_of(call))[0] is grpc.StatusCode.UNAVAILABLE


async def test_it_asks_for_keys_where_there_are_any(lab: SimpleNamespace) -> None:
    async with Emulator(sink=True, api_keys=("key",)) as emulator, lab.connect(emulator.address) as stub:
        assert (await lab.status_of(stub.Classify()))[0] is grpc.StatusCode.UNAUTHENTICATED
        call = stub.Classify(iter([lab.request(lab.item("a"))]), metadata=lab.bearer("key"))
        assert await lab.read_ids(call, 1) == ["a"]


async def test_bytes_that_are_no_request_end_the_stream(lab: SimpleNamespace) -> None:
    async with Emulator(sink=True) as emulator, grpc.aio.insecure_channel(emulator.address) as channel:
        call = channel.stream_stream("/athena.ClassifierService/Classify")()
        await call.write(b"\x12\xff\xff")
        assert (await lab.status_of(call))[0] is grpc.StatusCode.INTERNAL
