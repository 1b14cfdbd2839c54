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
    """How a call ends; reads what is left of it."""
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


@pytest.fixture
def lab() -> SimpleNamespace:
    """The helpers above, for tests that are imported apart from each other."""
    return SimpleNamespace(
        item=item, request=request, read_ids=read_ids, status_of=status_of, until=until, connect=connect, m=models_pb2
    )


@contextlib.asynccontextmanager
async def connect(
    address: str,
    *,
    token: str | None = None,
    credentials: grpc.ChannelCredentials | None = None,
    options: Iterable[tuple[str, Any]] = (),
) -> AsyncIterator[Any]:
    """A stub on a connection of its own."""
    arguments = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0), *options]
    if credentials is not None:
        if token is not None:
            credentials = grpc.composite_channel_credentials(credentials, grpc.access_token_call_credentials(token))
        channel = grpc.aio.secure_channel(address, credentials, options=arguments)
    else:
        interceptors = [_Bearer(token)] if token is not None else []
        channel = grpc.aio.insecure_channel(address, options=arguments, interceptors=interceptors)
    async with channel:
        yield athena_pb2_grpc.ClassifierServiceStub(channel)  # type: ignore[no-untyped-call]


class _Bearer(grpc.aio.UnaryUnaryClientInterceptor, grpc.aio.StreamStreamClientInterceptor):  # type: ignore[misc]
    """Sends a token over plaintext, which gRPC's own credentials refuse to."""

    def __init__(self, token: str) -> None:
        self._token = token

    def _with_token(self, details: grpc.aio.ClientCallDetails) -> grpc.aio.ClientCallDetails:
        metadata = grpc.aio.Metadata(*(details.metadata or ()), ("authorization", f"Bearer {self._token}"))
        return details._replace(metadata=metadata)

    async def intercept_unary_unary(self, continuation: Any, details: Any, message: Any) -> Any:
        return await continuation(self._with_token(details), message)

    async def intercept_stream_stream(self, continuation: Any, details: Any, messages: Any) -> Any:
        return await continuation(self._with_token(details), messages)
