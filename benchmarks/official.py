"""The official client, ``resolver-athena-client``, with its best settings for each scenario.

Its stream never ends by itself: once all images are sent, it repeats empty requests. So the clock stops with the
last answer, and the stream is cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import typing
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

import grpc
import typing_extensions

if not hasattr(typing, "override"):  # the package asks for Python 3.12's name
    typing.override = typing_extensions.override  # type: ignore[attr-defined]

from resolver_athena_client.client.athena_client import AthenaClient
from resolver_athena_client.client.athena_options import AthenaOptions
from resolver_athena_client.client.models import ImageData

logging.getLogger("resolver_athena_client").setLevel(logging.CRITICAL)

_CHANNEL_OPTIONS = (
    # What its own create_channel_with_credentials sets for throughput; that function speaks TLS only.
    ("grpc.http2.write_buffer_size", 1024 * 1024),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.use_local_subchannel_pool", 1),
)


class Settings(typing.NamedTuple):
    """The options that matter for speed; the defaults are the client's own."""

    batch: int = 10
    workers: int = 5
    resize: bool = True
    compress: bool = True
    brotli_quality: int = 11

    def options(self) -> AthenaOptions:
        return AthenaOptions(
            deployment_id="official",
            affiliate="bench",
            max_batch_size=self.batch,
            num_workers=self.workers,
            resize_images=self.resize,
            compress_images=self.compress,
            compression_quality=self.brotli_quality,
        )


DEFAULTS = Settings()


async def stream(endpoint: str, images: Sequence[bytes], settings: Settings) -> float:
    """Classifies the images over one stream; returns the seconds from the first image to the last answer."""
    left = len(images)
    async with connected(endpoint, settings) as client:
        start = time.perf_counter()
        async with contextlib.aclosing(answers(client, images)) as counts:
            async for count in counts:
                left -= count
                if left <= 0:
                    break
            return time.perf_counter() - start


@contextlib.asynccontextmanager
async def connected(endpoint: str, settings: Settings) -> AsyncIterator[AthenaClient]:
    """A client whose connection is up."""
    async with AthenaClient(await _connect(endpoint), settings.options()) as client:
        yield client


async def answers(client: AthenaClient, images: Iterable[bytes]) -> AsyncIterator[int]:
    """Classifies images over one stream; yields how many each response answers. To be closed by the caller."""
    responses = client.classify_images(_source(ImageData(image) for image in images))
    try:
        async for response in responses:
            yield len(response.outputs)
    finally:
        await responses.aclose()  # type: ignore[attr-defined]


async def latencies(client: AthenaClient, images: Iterable[bytes]) -> AsyncIterator[list[float]]:
    """As `answers`, but yields the seconds from each image's being taken to its answer, in that order."""
    taken: deque[float] = deque()

    def source() -> Iterator[bytes]:
        for image in images:
            taken.append(time.perf_counter())
            yield image

    async with contextlib.aclosing(answers(client, source())) as counts:
        async for count in counts:
            now = time.perf_counter()
            yield [now - taken.popleft() for _ in range(count)]


async def one_at_a_time(endpoint: str, image: bytes, settings: Settings, count: int) -> list[float]:
    """Hands over an image each time the last one was answered; returns the seconds of each."""
    begun: list[float] = []
    taken: list[float] = []
    answer = asyncio.Event()

    async def source() -> AsyncIterator[ImageData]:
        for _ in range(count):
            answer.clear()
            begun.append(time.perf_counter())
            yield ImageData(image)
            await answer.wait()

    async with connected(endpoint, settings) as client:
        responses = client.classify_images(source())
        async for response in responses:
            if response.outputs:
                taken.append(time.perf_counter() - begun[-1])
                answer.set()
            if len(taken) == count:
                break
        await responses.aclose()  # type: ignore[attr-defined]
    return taken


async def _connect(endpoint: str) -> grpc.aio.Channel:
    channel = grpc.aio.insecure_channel(endpoint, options=_CHANNEL_OPTIONS)
    await channel.channel_ready()
    return channel


async def _source(images: Iterable[ImageData]) -> AsyncIterator[ImageData]:
    for image in images:
        yield image
