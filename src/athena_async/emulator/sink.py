"""The fast mode: every input is answered with a canned classification, and no image is looked at.

Requests and responses stay bytes: the correlation ids are found by walking the fields of the protobuf
encoding (https://protobuf.dev/programming-guides/encoding/), so that a server of one core keeps up with
any client of one core. Speed, holding and dropping work as in the full service; deployments, images,
affiliates and audit do not.
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from athena_async import wire
from athena_async._proto.athena import models_pb2
from athena_async.emulator.admission import Admission
from athena_async.emulator.background import Background
from athena_async.emulator.model import ServiceQueue
from athena_async.emulator.streams import Ending

_AFFILIATE, _ID, _ENCODING, _DATA, _FORMAT = 0x0A, 0x12, 0x18, 0x22, 0x28
_INPUTS = 0x12
_VARINTS = frozenset({_ENCODING, _FORMAT})
_CANNED = models_pb2.ClassificationOutput(
    classifications=[models_pb2.Classification(label="UnknownCSAM-Goose", weight=1.0)]
).SerializeToString()
_MAX_DELAYED_REQUESTS = 1024


class MalformedRequest(ValueError):
    """Bytes that are no request."""


def answer_request(data: bytes) -> tuple[bytes, int]:
    """The response to a request, and how many inputs it had.

    Args:
        data: a serialized ClassifyRequest.

    Raises:
        MalformedRequest: ``data`` is none.
    """
    outputs: list[bytes] = []
    position, end = 0, len(data)
    try:
        while position < end:
            tag = data[position]
            size, position = _length(data, position + 1)
            if tag == _INPUTS:
                outputs.append(_output(_INPUTS, correlation_id(data, position, position + size)))
            position += size
    except IndexError:
        raise MalformedRequest from None
    return b"".join(outputs), len(outputs)


def correlation_id(data: bytes, position: int, end: int) -> bytes:
    """The field of that name, with its tag's length prefix left out; empty where it is missing.

    Args:
        data: holds a serialized ClassificationInput from ``position`` to ``end``.

    Raises:
        IndexError: a field runs over the end.
    """
    while position < end:
        tag = data[position]
        size, position = _length(data, position + 1)
        if tag == _ID:
            return data[position : position + size]
        if tag not in _VARINTS:
            position += size
    return b""


def answer_single(data: bytes) -> bytes:
    """A serialized ClassificationOutput for a serialized ClassificationInput."""
    found = correlation_id(data, 0, len(data))
    return b"".join((b"\x0a", _varint(len(found)), found, _CANNED))


def _output(tag: int, found: bytes) -> bytes:
    size = len(found)
    total = size + 2 + len(_CANNED)
    if total < 0x80:
        return bytes((tag, total, 0x0A, size)) + found + _CANNED
    body = b"".join((b"\x0a", _varint(size), found, _CANNED))
    return bytes((tag,)) + _varint(len(body)) + body


def _length(data: bytes, position: int) -> tuple[int, int]:
    """A varint and where it ends."""
    value = data[position]
    position += 1
    if value < 0x80:
        return value, position
    value &= 0x7F
    shift = 7
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class SinkStream:
    """One Classify call. Invariants: at most one read and one write at a time, and at most
    ``_MAX_DELAYED_REQUESTS`` requests unanswered, so that memory is bounded whatever the client does.
    """

    def __init__(self, service: SinkService, context: Any) -> None:
        self._service = service
        self._context = context
        self._writing = asyncio.Lock()
        self._room = asyncio.Semaphore(_MAX_DELAYED_REQUESTS)
        self._ended: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self._delayed = Background()

    def end(self, code: grpc.StatusCode | None = None, details: str = "") -> None:
        """Ends the call from the service's side."""
        if not self._ended.done():
            self._ended.set_result(Ending(code, details))

    async def run(self) -> None:
        """Serves the call until it ends."""
        reader = asyncio.get_running_loop().create_task(self._read())
        try:
            waits: set[asyncio.Future[Any]] = {reader, self._ended}
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if not self._ended.done():
                await reader
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            await self._delayed.cancel()
        if self._ended.done() and (code := self._ended.result().code) is not None:
            await self._context.abort(code, self._ended.result().details)

    async def _read(self) -> None:
        service = self._service
        while isinstance(data := await self._context.read(), bytes):
            try:
                response, image_count = answer_request(data)
            except MalformedRequest:
                self.end(grpc.StatusCode.INTERNAL, "The request is no ClassifyRequest.")
                return
            if not image_count:
                continue
            if service.instant and not len(self._delayed):
                await self._context.write(response)
                continue
            finish_s = service.queue.accept(asyncio.get_running_loop().time(), image_count, len(data))
            if finish_s is None:
                self.end(grpc.StatusCode.RESOURCE_EXHAUSTED, "The queue is full; try again later.")
                return
            await self._room.acquire()
            self._delayed.start(self._put_later(response, finish_s))
        await self._delayed.finish()

    async def _put(self, response: bytes) -> None:
        async with self._writing:
            await self._context.write(response)

    async def _put_later(self, response: bytes, finish_s: float) -> None:
        try:
            await self._service.wait_until(finish_s)
            await self._put(response)
        finally:
            self._room.release()


class SinkService:
    """The three RPCs of the fast mode, on bytes."""

    def __init__(self, admission: Admission, queue: ServiceQueue) -> None:
        self.streams: set[SinkStream] = set()
        self.queue = queue
        self._admission = admission
        self._open = asyncio.Event()
        self._open.set()

    @property
    def held(self) -> bool:
        return not self._open.is_set()

    @held.setter
    def held(self, held: bool) -> None:
        if held:
            self._open.clear()
        else:
            self._open.set()

    @property
    def instant(self) -> bool:
        """Whether answers need not wait for anything."""
        return self.queue.model.instant and self._open.is_set()

    def release(self) -> None:
        """Gives out what was held."""
        self.held = False

    def handlers(self) -> grpc.GenericRpcHandler:
        """The RPCs, on bytes."""
        return grpc.method_handlers_generic_handler(
            wire.SERVICE,
            {
                "Classify": grpc.stream_stream_rpc_method_handler(self.classify),
                "ListDeployments": grpc.unary_unary_rpc_method_handler(self.list_deployments),
                "ClassifySingle": grpc.unary_unary_rpc_method_handler(self.classify_single),
            },
        )

    async def wait_until(self, finish_s: float) -> None:
        """Returns at that time of the event loop, or later while answers are held."""
        await asyncio.sleep(max(0.0, finish_s - asyncio.get_running_loop().time()))
        await self._open.wait()

    async def classify(self, _requests: object, context: Any) -> None:
        await self._admission.client_of(context)
        stream = SinkStream(self, context)
        self.streams.add(stream)
        try:
            await stream.run()
        finally:
            self.streams.discard(stream)

    async def list_deployments(self, _request: bytes, context: Any) -> bytes:
        """None: the sink has no deployments."""
        await self._admission.client_of(context)
        return b""

    async def classify_single(self, request: bytes, context: Any) -> bytes:
        await self._admission.client_of(context)
        finish_s = self.queue.accept(asyncio.get_running_loop().time(), 1, len(request))
        if finish_s is None:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "The queue is full; try again later.")
        else:
            await self.wait_until(finish_s)
        try:
            return answer_single(request)
        except IndexError:
            await context.abort(grpc.StatusCode.INTERNAL, "The request is no ClassificationInput.")
            raise

    def __repr__(self) -> str:
        return f"SinkService({len(self.streams)} streams, held={self.held})"
