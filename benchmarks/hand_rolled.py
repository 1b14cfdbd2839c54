"""The least Python that does the job: it marks the ceiling.

Messages are built before the clock starts. Each connection has one write loop and one read loop; answers are parsed
and counted, and nothing is kept of any item: no retry, no deadline, no order, no results.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence

import grpc

from athena_async import wire
from athena_async._proto.athena import models_pb2

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


async def _exchange(channel: grpc.aio.Channel, messages: Sequence[bytes]) -> None:
    call = channel.stream_stream(wire.CLASSIFY)()
    writes = asyncio.ensure_future(_write(call, messages))
    parse = models_pb2.ClassifyResponse.FromString
    answered = 0
    while (response := await call.read()) is not grpc.aio.EOF:
        answered += len(parse(response).outputs)
    await writes
    if answered == 0 and messages:
        raise RuntimeError(f"no answers: {await call.code()} {await call.details()}")


async def _write(call: grpc.aio.StreamStreamCall[bytes, bytes], messages: Sequence[bytes]) -> None:
    for message in messages:
        await call.write(message)
    await call.done_writing()


async def unary(channel: grpc.aio.Channel, message: bytes, count: int) -> list[float]:
    """Calls ClassifySingle ``count`` times, one after another; returns the seconds of each call."""
    call = channel.unary_unary(wire.CLASSIFY_SINGLE)
    taken = []
    for _ in range(count):
        start = time.perf_counter()
        models_pb2.ClassificationOutput.FromString(await call(message))
        taken.append(time.perf_counter() - start)
    return taken
