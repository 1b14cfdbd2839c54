"""Servers of other languages, with limits of their own for messages and words of their own for refusing them."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from PIL import Image

from athena_async import AthenaClient, BatchingConfig, ClassificationError, ErrorCode, PreprocessConfig, wire
from athena_async.emulator.sink import answer_request
from athena_async.events import BatchSent, Event, StreamClosed
from athena_async.results import Outcome
from tests.faults.world import config, inputs, of_kind, world

pytestmark = pytest.mark.anyio

LIMIT_BYTES = 1_300_000
EXHAUSTED, OUT_OF_RANGE = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.OUT_OF_RANGE
REFUSALS = {
    "go": (EXHAUSTED, "grpc: received message larger than max ({sent} vs. {allowed})"),
    "java": (EXHAUSTED, "gRPC message exceeds maximum size {allowed}: {sent}"),
    "rust": (
        OUT_OF_RANGE,
        "Error, decoded message length too large: found {sent} bytes, the limit is: {allowed} bytes",
    ),
    "dotnet": (EXHAUSTED, "Received message exceeds the maximum configured message size."),
}


class _Service(grpc.GenericRpcHandler):
    """Answers as the sink does what is not larger than the limit, and aborts with the language's status what is."""

    def __init__(self, language: str, limit_bytes: int) -> None:
        self._code, self._words = REFUSALS[language]
        self._limit_bytes = limit_bytes
        self.refused_count = 0

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        if details.method == wire.CLASSIFY:
            return grpc.stream_stream_rpc_method_handler(self._classify)
        return grpc.unary_unary_rpc_method_handler(self._list)

    async def _classify(self, _requests: Any, context: Any) -> None:
        while (request := await context.read()) is not grpc.aio.EOF:
            if len(request) > self._limit_bytes:
                self.refused_count += 1
                await context.abort(self._code, self._words.format(sent=len(request), allowed=self._limit_bytes))
            response, count = answer_request(request)
            if count:
                await context.write(response)

    async def _list(self, _request: bytes, _context: Any) -> bytes:
        return b""


@asynccontextmanager
async def refusing(language: str, limit_bytes: int) -> AsyncIterator[tuple[_Service, AthenaClient, list[Event]]]:
    """A server with a limit, a client of it, and the client's events."""
    service = _Service(language, limit_bytes)
    server = grpc.aio.server(handlers=[service], options=[("grpc.max_receive_message_length", -1)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    seen: list[Event] = []
    try:
        async with AthenaClient(config(f"127.0.0.1:{port}", timeout_s=10.0), observers=[seen.append]) as client:
            yield service, client, seen
    finally:
        await server.stop(None)


@pytest.fixture
def frame() -> Any:
    return pytest.importorskip("numpy").zeros((448, 448, 3), "uint8")


@pytest.mark.parametrize("language", REFUSALS)
async def test_batches_become_small_enough_and_stay_so(language: str, frame: Any) -> None:
    async with refusing(language, LIMIT_BYTES) as (_service, client, seen):
        results = await client.classify_many([frame] * 12)
        assert all(result.ok for result in results)
        (controller,) = client.stats().controllers.values()
        assert controller.size_bytes < LIMIT_BYTES
        assert of_kind(seen, StreamClosed)
        assert max(event.size_bytes for event in of_kind(seen, BatchSent)) > LIMIT_BYTES
        seen.clear()
        assert all(result.ok for result in await client.classify_many([frame] * 12))
        assert of_kind(seen, StreamClosed) == []
        assert max(event.size_bytes for event in of_kind(seen, BatchSent)) <= LIMIT_BYTES


@pytest.mark.parametrize("language", REFUSALS)
async def test_an_image_that_is_too_large_is_sent_once_and_its_like_never(language: str, frame: Any) -> None:
    """Each would cost its stream, and with it the wait for everything else that was on it."""
    async with refusing(language, 100_000) as (service, client, seen):
        assert await _codes(client, [frame]) == ["IMAGE_TOO_LARGE"]
        assert (len(of_kind(seen, StreamClosed)), service.refused_count) == (1, 1)
        assert await _codes(client, [frame, *inputs(20), frame]) == ["IMAGE_TOO_LARGE", *[""] * 20, "IMAGE_TOO_LARGE"]
        with pytest.raises(ClassificationError) as raised:
            await client.classify_single(frame)
        assert raised.value.code is ErrorCode.IMAGE_TOO_LARGE
        assert (len(of_kind(seen, StreamClosed)), service.refused_count) == (1, 1)


async def test_a_file_that_alone_is_larger_than_a_batch_may_be_is_never_sent(frame: Any) -> None:
    """Sent as it is, a file may have any size; resized, none is as large as the least bound."""
    batching = BatchingConfig(max_bytes=100_000)
    large, small = (_png(Image.effect_noise((448, 448), spread)) for spread in (100, 0))
    assert len(small) < batching.max_bytes < len(large)
    async with world(batching=batching, preprocess=PreprocessConfig(resize=False)) as (emulator, _, client, seen):
        results = await client.classify_many([small, large, small, frame])
        assert [result.error and result.error.code for result in results] == [None, "IMAGE_TOO_LARGE"] * 2
        assert results[1].outcome is Outcome.FAILED
        assert "batching.max_bytes is 100000: " in str(results[1].error)
        assert max(event.size_bytes for event in of_kind(seen, BatchSent)) <= batching.max_bytes
        assert len(emulator.audit) == 2
        assert of_kind(seen, StreamClosed) == []


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.convert("RGB").save(file, "PNG")
    return file.getvalue()


async def _codes(client: AthenaClient, images: list[Any]) -> list[str]:
    results = await client.classify_many(images)
    return ["" if result.error is None else str(result.error.code) for result in results]
