"""Decoding in worker processes, end to end: what ends a decoder costs one image."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from athena_async import ErrorCode, Outcome, PreprocessConfig
from tests.integration.client.world import codes, distance, encoded, frame, photograph, service

pytestmark = pytest.mark.anyio

PHOTO = photograph("astronaut.png")
ISOLATED = PreprocessConfig(isolation="process", threads=1, worker_memory_bytes=320 * 2**20, worker_cpu_s=5.0)


def greedy() -> bytes:
    """A small file within the cap of pixels that takes more memory to decode than a worker may have."""
    file = io.BytesIO()
    Image.new("1", (11_000, 9_000)).save(file, "TIFF", compression="group4")
    return file.getvalue()


async def test_images_that_end_their_decoder_fail_alone() -> None:
    truncated = encoded("astronaut.png", "JPEG")[:3000]
    given = [PHOTO, truncated, PHOTO.read_bytes(), greedy(), frame("astronaut.png"), PHOTO]
    async with service(preprocess=ISOLATED) as (client, emulator):
        results = await client.classify_many(given)
        assert emulator.audit.total == 4
    assert codes(results) == [None, ErrorCode.INVALID_IMAGE, None, ErrorCode.INVALID_IMAGE, None, None]
    assert {result.outcome for result in results if not result.ok} == {Outcome.FAILED}
    assert max(distance(results[0], results[n]) for n in (2, 5)) < 1e-6
    assert results[3].error is not None
    assert "memory" in str(results[3].error) or "worker process" in str(results[3].error)


async def test_scores_are_those_of_threads() -> None:
    async with service() as (client, _):
        by_thread = await client.classify(PHOTO)
    async with service(preprocess=ISOLATED) as (client, _):
        streamed, single = await client.classify(PHOTO), await client.classify_single(PHOTO)
    assert distance(by_thread, streamed) < 1e-6
    assert distance(by_thread, single) < 1e-6
