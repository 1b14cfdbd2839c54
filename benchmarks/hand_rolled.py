"""The least Python that does the job: it marks the ceiling.

Messages are built before the clock starts. Each connection has one write loop and one read loop; answers are parsed
and counted, and nothing is kept of any item: no retry, no deadline, no order, no results.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from athena_async import wire
from athena_async._proto.athena import models_pb2
from athena_async.config import IMAGE_SIDE

_Messages = Sequence[bytes] | Sequence["asyncio.Future[bytes]"]

DEPLOYMENT = "hand-rolled"
_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 64 * 1024 * 1024))


def requests(payloads: Sequence[wire.Payload], batch: int) -> list[bytes]:
    """Serialized requests of ``batch`` inputs each, with correlation ids of 32 characters."""
    head = wire.request_head(DEPLOYMENT)
    frames = [wire.frame_input("bench", f"{i:032d}", payload) for i, payload in enumerate(payloads)]
    return [wire.join_request(head, frames[i : i + batch]) for i in range(0, len(frames), batch)]


@contextlib.asynccontextmanager
async def connections(endpoint: str, count: int) -> AsyncIterator[list[grpc.aio.Channel]]:
    """Channels with a TCP connection each, connected."""
    channels = [grpc.aio.insecure_channel(endpoint, options=_OPTIONS) for _ in range(count)]
    try:
        await asyncio.gather(*(channel.channel_ready() for channel in channels))
        yield channels
    finally:
        await asyncio.gather(*(channel.close() for channel in channels))


async def stream(channels: Sequence[grpc.aio.Channel], messages: Sequence[bytes]) -> float:
    """Sends the messages over all channels and takes the answers to them; returns the seconds that it took."""
    start = time.perf_counter()
    shares = [messages[i :: len(channels)] for i in range(len(channels))]
    await asyncio.gather(*(_exchange(*pair) for pair in zip(channels, shares, strict=True)))
    return time.perf_counter() - start


async def _exchange(channel: grpc.aio.Channel, messages: _Messages) -> None:
    call = channel.stream_stream(wire.CLASSIFY)()
    writes = asyncio.ensure_future(_write(call, messages))
    parse = models_pb2.ClassifyResponse.FromString
    answered = 0
    while (response := await call.read()) is not grpc.aio.EOF:
        answered += len(parse(response).outputs)
    await writes
    if answered == 0 and messages:
        raise RuntimeError(f"no answers: {await call.code()} {await call.details()}")


async def _write(call: grpc.aio.StreamStreamCall[bytes, bytes], messages: _Messages) -> None:
    for message in messages:
        await call.write(message if isinstance(message, bytes) else await message)
    await call.done_writing()


async def unary(channel: grpc.aio.Channel, message: bytes, count: int) -> list[float]:
    """Calls ClassifySingle ``count`` times, one after another; returns the seconds of each call."""
    call = channel.unary_unary(wire.CLASSIFY_SINGLE)
    return [await _call_s(call, message) for _ in range(count)]


async def unary_prepared(channel: grpc.aio.Channel, image: bytes, count: int) -> list[float]:
    """The same, but that a thread decodes and resizes the image before each call, outside the measured time."""
    call = channel.unary_unary(wire.CLASSIFY_SINGLE)
    return [await _call_s(call, await asyncio.to_thread(_prepare_single, image)) for _ in range(count)]


async def _call_s(call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes], message: bytes) -> float:
    start = time.perf_counter()
    models_pb2.ClassificationOutput.FromString(await call(message))
    return time.perf_counter() - start


async def hashes(channels: Sequence[grpc.aio.Channel], digests: Sequence[str], batch: int) -> float:
    """The least that gives each item an answer: messages are built and answers kept while the clock runs."""
    start = time.perf_counter()
    scores: dict[str, dict[str, float]] = {}
    size = len(digests) // len(channels)
    shares = [range(i * size, (i + 1) * size) for i in range(len(channels))]
    await asyncio.gather(
        *(
            _exchange_hashes(channel, digests, share, batch, scores)
            for channel, share in zip(channels, shares, strict=True)
        )
    )
    if len(scores) != size * len(channels):
        raise RuntimeError(f"{len(scores)} answers to {len(digests)} items")
    return time.perf_counter() - start


async def _exchange_hashes(
    channel: grpc.aio.Channel, digests: Sequence[str], share: range, batch: int, scores: dict[str, dict[str, float]]
) -> None:
    call = channel.stream_stream(wire.CLASSIFY)()

    async def write() -> None:
        for begin in range(share.start, share.stop, batch):
            request = models_pb2.ClassifyRequest(deployment_id=DEPLOYMENT)
            for i in range(begin, min(begin + batch, share.stop)):
                given = request.inputs.add(affiliate="bench", correlation_id=f"{i:032d}")
                given.hashes.add(value=digests[i], type=models_pb2.HASH_TYPE_MD5)
            await call.write(request.SerializeToString())
        await call.done_writing()

    writes = asyncio.ensure_future(write())
    while (response := await call.read()) is not grpc.aio.EOF:
        for output in models_pb2.ClassifyResponse.FromString(response).outputs:
            scores[output.correlation_id] = {c.label: c.weight for c in output.classifications}
    await writes


async def photographs(channels: Sequence[grpc.aio.Channel], images: Sequence[bytes], batch: int, threads: int) -> float:
    """Decodes and resizes with OpenCV in threads, and streams the frames as they come; returns the seconds."""
    loop = asyncio.get_running_loop()
    start = time.perf_counter()
    groups = [images[i : i + batch] for i in range(0, len(images), batch)]
    with ThreadPoolExecutor(threads) as pool:
        shares = [
            [loop.run_in_executor(pool, _prepare, group) for group in groups[i :: len(channels)]]
            for i in range(len(channels))
        ]
        await asyncio.gather(*(_exchange(*pair) for pair in zip(channels, shares, strict=True)))
    return time.perf_counter() - start


def _prepare(images: Sequence[bytes]) -> bytes:
    """A request with the frames of some photographs."""
    return requests([_payload(image) for image in images], len(images))[0]


def _prepare_single(image: bytes) -> bytes:
    """A request of ClassifySingle."""
    return wire.single_request(wire.frame_input("bench", "0" * 32, _payload(image)))


def _payload(image: bytes) -> wire.Payload:
    """Decoded and resized by OpenCV."""
    import cv2
    import numpy as np

    decoded: Any = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
    resized: Any = cv2.resize(decoded, (IMAGE_SIDE, IMAGE_SIDE), interpolation=cv2.INTER_LINEAR)
    return wire.Payload(memoryview(resized).cast("B"), wire.ImageFormat.RAW_UINT8_BGR)


async def windowed(channel: grpc.aio.Channel, message: bytes, window: int) -> AsyncIterator[tuple[float, float]]:
    """Sends a message over and over, ``window`` of them unanswered; yields when each was sent and answered.

    It ends when the iterator is closed. One answer for each message is expected, in order.
    """
    call = channel.stream_stream(wire.CLASSIFY)()
    sent: deque[float] = deque()
    room = asyncio.Semaphore(window)

    async def write() -> None:
        while await room.acquire():
            sent.append(time.perf_counter())
            await call.write(message)

    writes = asyncio.ensure_future(write())
    try:
        while (await call.read()) is not grpc.aio.EOF:
            yield sent.popleft(), time.perf_counter()
            room.release()
    finally:
        writes.cancel()
        call.cancel()
