"""A server that answers every image at once, in a process of its own: ``python -m benchmarks.sink``.

It must cost as little as it can, since it shares the machine with the client that is measured. So it takes and
gives raw bytes, and where the inputs of a request look alike, as a client's mostly do, it finds their correlation
ids by slices with a stride: a tenth of the time that the emulator's own sink needs, to which other requests go.
A hash-only input is answered as the service does, with one label; an input with an image with the model's eight.
"""

from __future__ import annotations

from functools import lru_cache

import grpc

from athena_async import wire
from athena_async._proto.athena import models_pb2
from athena_async.emulator.sink import answer_request, answer_single, correlation_id
from benchmarks import children

_KNOWN_LABELS = ("KnownCSAM-MD5",)
_MODEL_LABELS = tuple(
    f"UnknownCSAM-{name}"
    for name in ("classA", "classB", "classC", "adult", "indicative", "distraction", "Entropy", "PCSAM")
)
_HASH_ONLY_BYTES = 1024
"""Inputs up to this size are taken for hash-only."""

_DEPLOYMENT, _INPUTS, _CORRELATION_ID = 0x0A, 0x12, 0x12
"""Tags of the fields of that name; the last is one of ClassificationInput."""


def answer(request: bytes) -> bytes:
    """The ClassifyResponse to a serialized ClassifyRequest; empty for a keep-alive."""
    ids = same_shape_ids(request)
    if not ids:
        return answer_request(request)[0]
    head, tail = _around(len(ids[0]), len(request) / len(ids) > _HASH_ONLY_BYTES)
    return head + (tail + head).join(ids) + tail


def same_shape_ids(request: bytes) -> list[bytes]:
    """The correlation ids where all inputs look alike; none where they do not.

    Inputs of one length stand at equal distances, so that a slice with a stride shows whether the bytes that
    tell field and length are the same in all of them.
    """
    at = 2 + request[1] if request[:1] == bytes((_DEPLOYMENT,)) else 0
    if at >= len(request) or request[at] != _INPUTS:
        return []
    length, start = _varint(request, at + 1)
    stride = start + length - at
    count, rest = divmod(len(request) - at, stride)
    found = correlation_id(request, start, start + length)
    if not found:
        return []
    id_at = request.index(bytes((_CORRELATION_ID, len(found))) + found, start) + 2
    heads = [*range(at, start), id_at - 2, id_at - 1]
    if rest or any(request[head::stride].count(request[head]) != count for head in heads):
        return []
    return [request[i : i + len(found)] for i in range(id_at, len(request), stride)]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A varint and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


@lru_cache
def _labels(image: bool) -> bytes:
    labels, weight = (_MODEL_LABELS, 0.125) if image else (_KNOWN_LABELS, 0.0)
    rows = [models_pb2.Classification(label=label, weight=weight) for label in labels]
    return models_pb2.ClassificationOutput(classifications=rows).SerializeToString()


@lru_cache
def _around(id_length: int, image: bool) -> tuple[bytes, bytes]:
    """What stands before and after an id of this length in a ClassifyResponse."""
    output = models_pb2.ClassificationOutput(correlation_id="x" * id_length)
    output.MergeFromString(_labels(image))
    whole = models_pb2.ClassifyResponse(outputs=[output]).SerializeToString()
    head, tail = whole.split(b"x" * id_length)
    return head, tail


async def _classify(_requests: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
    while (request := await context.read()) is not grpc.aio.EOF:
        if response := answer(request):
            await context.write(response)


async def _classify_single(request: bytes, _context: object) -> bytes:
    return answer_single(request)


async def _list_deployments(_request: bytes, _context: object) -> bytes:
    return b""


async def serve(announce: children.Announce) -> None:
    """Serves on a free loopback port, told through ``announce``, until cancelled."""
    handlers = {
        "Classify": grpc.stream_stream_rpc_method_handler(_classify),
        "ClassifySingle": grpc.unary_unary_rpc_method_handler(_classify_single),
        "ListDeployments": grpc.unary_unary_rpc_method_handler(_list_deployments),
    }
    await children.serve_handlers(wire.SERVICE, handlers, announce)


if __name__ == "__main__":
    children.run(serve)
