"""A caller that knows nothing of Athena: finds the service by reflection and calls it, as grpcurl does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from athena_async.emulator import Emulator

pytestmark = pytest.mark.anyio


async def reflect(channel: grpc.aio.Channel, *requests: reflection_pb2.ServerReflectionRequest) -> list[Any]:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    return [response async for response in stub.ServerReflectionInfo(iter(requests))]


async def pool_of(channel: grpc.aio.Channel, symbol: str) -> descriptor_pool.DescriptorPool:
    """Every file that a symbol needs, fetched as grpcurl fetches them."""
    request = reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol)
    [response] = await reflect(channel, request)
    files = [
        descriptor_pb2.FileDescriptorProto.FromString(f)
        for f in response.file_descriptor_response.file_descriptor_proto
    ]
    known = {file.name for file in files}
    missing = [name for file in files for name in file.dependency if name not in known]
    while missing:
        name = missing.pop()
        if name in known:
            continue
        [found] = await reflect(channel, reflection_pb2.ServerReflectionRequest(file_by_filename=name))
        for data in found.file_descriptor_response.file_descriptor_proto:
            file = descriptor_pb2.FileDescriptorProto.FromString(data)
            if file.name not in known:
                known.add(file.name)
                files.insert(0, file)
                missing += file.dependency
    pool = descriptor_pool.DescriptorPool()
    added: set[str] = set()
    while len(added) < len(files):
        for file in files:
            if file.name not in added and set(file.dependency) <= added:
                pool.Add(file)
                added.add(file.name)
    return pool


@pytest.fixture
async def channel() -> AsyncIterator[grpc.aio.Channel]:
    async with Emulator() as emulator, grpc.aio.insecure_channel(emulator.address) as found:
        yield found


async def test_services_are_listed(channel: grpc.aio.Channel) -> None:
    [response] = await reflect(channel, reflection_pb2.ServerReflectionRequest(list_services=""))
    assert {service.name for service in response.list_services_response.service} == {
        "athena.ClassifierService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


async def test_every_service_can_be_described(channel: grpc.aio.Channel) -> None:
    for name in ("athena.ClassifierService", "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"):
        assert (await pool_of(channel, name)).FindServiceByName(name).full_name == name


async def test_a_generic_stub_calls_every_method(channel: grpc.aio.Channel) -> None:
    service = (await pool_of(channel, "athena.ClassifierService")).FindServiceByName("athena.ClassifierService")
    assert [method.name for method in service.methods] == ["Classify", "ListDeployments", "ClassifySingle"]

    def stub(name: str) -> Any:
        method = service.methods_by_name[name]
        kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
        return getattr(channel, kind)(
            f"/{service.full_name}/{name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
        )

    def message(name: str, **fields: Any) -> Any:
        kind = message_factory.GetMessageClass(service.methods_by_name[name].input_type)
        return json_format.ParseDict(fields, kind())

    item = {"affiliate": "a", "correlationId": "x", "hashes": [{"value": "0" * 32, "type": "HASH_TYPE_MD5"}]}
    single = json_format.MessageToDict(await stub("ClassifySingle")(message("ClassifySingle", **item)))
    assert single == {"correlationId": "x", "classifications": [{"label": "KnownCSAM-MD5"}]}
    call = stub("Classify")(iter([message("Classify", deploymentId="d", inputs=[item])]))
    assert [output.correlation_id async for response in call for output in response.outputs] == ["x"]
    listed = json_format.MessageToDict(await stub("ListDeployments")(message("ListDeployments")))
    assert listed == {"deployments": [{"deploymentId": "d"}]}
