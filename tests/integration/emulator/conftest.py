"""Hand-made callers: the generated stub and prebuilt messages, nothing of the client under test."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image

from athena_async._proto.athena import athena_pb2_grpc, models_pb2


def _frame() -> bytes:
    spec = importlib.util.find_spec("skimage")
    assert spec is not None
    assert spec.origin is not None
    with Image.open(Path(spec.origin).parent / "data" / "astronaut.png") as image:
        small = image.convert("RGB").resize((448, 448))
    return np.ascontiguousarray(np.asarray(small)[:, :, ::-1]).tobytes()


@pytest.fixture(scope="session")
def frame() -> bytes:
    """A photograph as 448x448 BGR."""
    return _frame()


def item(correlation_id: str, data: bytes = b"", **fields: Any) -> models_pb2.ClassificationInput:
    """An input of affiliate acme: raw pixels where there is data, otherwise one MD5."""
    values: dict[str, Any] = {"affiliate": "acme", "correlation_id": correlation_id}
    if data:
        values |= {"data": data, "format": models_pb2.IMAGE_FORMAT_RAW_UINT8_BGR}
    elif "hashes" not in fields:
        values["hashes"] = [models_pb2.ImageHash(value="0" * 32, type=models_pb2.HASH_TYPE_MD5)]
    return models_pb2.ClassificationInput(**{**values, **fields})


def request(*inputs: models_pb2.ClassificationInput, deployment_id: str = "d") -> models_pb2.ClassifyRequest:
    return models_pb2.ClassifyRequest(deployment_id=deployment_id, inputs=inputs)


async def read_ids(call: Any, count: int) -> list[str]:
    """Correlation ids of the next ``count`` outputs of a stream."""
    found: list[str] = []
    while len(found) < count:
        response = await call.read()
        assert response is not grpc.aio.EOF, f"the stream ended after {found}"
        found += [output.correlation_id for output in response.outputs]
    return found


async def status_of(call: Any) -> tuple[grpc.StatusCode, str]:
    """How a call ends; reads what is left of it.

    A call that is refused as it begins is given nothing to write: where a write comes too late, grpc.aio puts a
    status of its own in the place of the server's.
    """
    try:
        while await call.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details() or ""
    return await call.code(), await call.details()


async def until(condition: Callable[[], bool]) -> None:
    """Waits for a state of the emulator, which shares our loop."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.002)


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """Metadata with a token."""
    return (("authorization", f"Bearer {token}"),)


@pytest.fixture
def lab() -> SimpleNamespace:
    """The helpers above, for tests that are imported apart from each other."""
    return SimpleNamespace(
        item=item,
        request=request,
        bearer=bearer,
        read_ids=read_ids,
        status_of=status_of,
        until=until,
        connect=connect,
        m=models_pb2,
    )


@contextlib.asynccontextmanager
async def connect(
    address: str,
    *,
    credentials: grpc.ChannelCredentials | None = None,
    options: Iterable[tuple[str, Any]] = (),
) -> AsyncIterator[Any]:
    """A stub on a connection of its own."""
    arguments = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0), *options]
    if credentials is not None:
        channel = grpc.aio.secure_channel(address, credentials, options=arguments)
    else:
        channel = grpc.aio.insecure_channel(address, options=arguments)
    async with channel:
        yield athena_pb2_grpc.ClassifierServiceStub(channel)  # type: ignore[no-untyped-call]
