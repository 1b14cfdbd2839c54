"""Every kind of input, every kind of iterable, and good images beside bad ones."""

from __future__ import annotations

import array
import mmap
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from athena_async import AthenaClient, ErrorCode, ImageInput, Outcome
from athena_async.emulator import EmulatorConfig
from tests.integration.client.world import (
    MD5,
    SHA1,
    assert_classified,
    codes,
    distance,
    encoded,
    frame,
    hashes,
    photograph,
    service,
)

pytestmark = pytest.mark.anyio

PHOTO = photograph("astronaut.png")


async def images(source: list[object]) -> AsyncIterator[object]:
    for image in source:
        yield image


def every_kind() -> list[object]:
    data = PHOTO.read_bytes()
    with Image.open(PHOTO) as image:
        image.load()
        return [
            data,
            bytearray(data),
            memoryview(data),
            array.array("B", data),
            str(PHOTO),
            PHOTO,
            image,
            frame("astronaut.png"),
            memoryview(frame("astronaut.png")),
            frame("astronaut.png")[:, ::-1][:, ::-1],
            ImageInput(data=data),
            ImageInput(data=image, affiliate="acme"),
            ImageInput(path=PHOTO, md5=MD5, correlation_id="mine"),
        ]


async def test_every_kind_of_input_is_the_same_picture() -> None:
    given = every_kind()
    async with service() as (client, _):
        results = await client.classify_many(given)
    assert_classified(results, len(given))
    pixels = [{k: v for k, v in r.scores.items() if not k.startswith("Known")} for r in results]
    reference = pixels[0]
    for scores in pixels:
        assert scores.keys() == reference.keys()
        assert all(abs(scores[label] - reference[label]) < 0.02 for label in reference)


async def test_a_memory_map_is_read_in_place(tmp_path: Path) -> None:
    with PHOTO.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        async with service() as (client, _):
            results = await client.classify_many([mapped, PHOTO])
    assert_classified(results, 2)
    assert distance(*results) < 1e-6


async def test_ids_and_affiliates_of_the_caller_reach_the_service() -> None:
    given = [
        ImageInput(md5=MD5, correlation_id="mine", affiliate="other"),
        ImageInput(sha1=[SHA1, SHA1[::-1]], correlation_id="x" * 64),
        ImageInput(md5=MD5, sha1=SHA1),
    ]
    async with service() as (client, emulator):
        results = await client.classify_many(given)
        sent = {record.correlation_id: record.affiliate for record in emulator.audit.records}
    assert [result.correlation_id for result in results[:2]] == ["mine", "x" * 64]
    assert sent == {"mine": "other", "x" * 64: "acme", results[2].correlation_id: "acme"}
    assert [set(result.scores) for result in results] == [
        {"KnownCSAM-MD5"},
        {"KnownCSAM-SHA1"},
        {"KnownCSAM-MD5", "KnownCSAM-SHA1"},
    ]


async def test_an_affiliate_that_is_not_permitted_fails_alone() -> None:
    given = [ImageInput(md5=MD5), ImageInput(md5=MD5, affiliate="stranger"), ImageInput(md5=MD5)]
    async with service(EmulatorConfig(affiliates=("acme",))) as (client, _):
        results = await client.classify_many(given)
    assert codes(results) == [None, ErrorCode.AFFILIATE_NOT_PERMITTED, None]
    assert "stranger" in str(results[1].error)
    assert not results[1].error.retryable  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["list", "tuple", "generator", "iterator", "dict values", "async generator"])
async def test_every_kind_of_iterable_keeps_its_order(kind: str) -> None:
    given: list[object] = [ImageInput(md5=f"{n:032x}", correlation_id=f"id-{n}") for n in range(300)]
    source: object = {
        "list": given,
        "tuple": tuple(given),
        "generator": (image for image in given),
        "iterator": iter(given),
        "dict values": dict(enumerate(given)).values(),
        "async generator": images(given),
    }[kind]
    async with service() as (client, _):
        results = await client.classify_many(source)  # type: ignore[arg-type]
    assert_classified(results, 300)
    assert [result.correlation_id for result in results] == [f"id-{n}" for n in range(300)]


@pytest.mark.parametrize("nothing", [[], images([])], ids=["list", "async generator"])
async def test_nothing_in_nothing_out(nothing: object) -> None:
    async with service() as (client, _):
        assert await client.classify_many(nothing) == []  # type: ignore[arg-type]
        assert [result async for result in client.stream([])] == []


@pytest.mark.parametrize("one", [b"bytes", bytearray(b"b"), memoryview(b"m"), "path.png", PHOTO, 5, None])
async def test_one_image_in_place_of_many_is_a_programming_error(client: AthenaClient, one: object) -> None:
    with pytest.raises(TypeError, match="put it in a list"):
        await client.classify_many(one)  # type: ignore[arg-type]


BAD: list[tuple[object, ErrorCode]] = [
    (b"", ErrorCode.INVALID_IMAGE),
    (b"no image", ErrorCode.UNSUPPORTED_FORMAT),
    (b"%PDF-1.4", ErrorCode.UNSUPPORTED_FORMAT),
    (encoded("astronaut.png", "JPEG")[:3000], ErrorCode.INVALID_IMAGE),
    ("/nowhere/at/all.png", ErrorCode.INVALID_INPUT),
    ("/", ErrorCode.INVALID_INPUT),
    (None, ErrorCode.INVALID_INPUT),
    (42, ErrorCode.INVALID_INPUT),
    (np.zeros((10, 10, 3), np.uint8), ErrorCode.INVALID_INPUT),
    (np.zeros((448, 448, 3), np.float32), ErrorCode.INVALID_INPUT),
    (ImageInput(), ErrorCode.INVALID_INPUT),
    (ImageInput(md5="no hash"), ErrorCode.INVALID_INPUT),
    (ImageInput(md5=MD5, correlation_id="x" * 65), ErrorCode.CORRELATION_ID_INVALID),
    (ImageInput(md5=MD5, correlation_id=""), ErrorCode.CORRELATION_ID_INVALID),
    (ImageInput(data=b"x", path="y"), ErrorCode.INVALID_INPUT),
]


async def test_bad_images_between_good_ones_fail_alone() -> None:
    good = PHOTO.read_bytes()
    given = [image for bad, _ in BAD for image in (good, bad)] + [good]
    async with service() as (client, emulator):
        results = await client.classify_many(given)
        by_stream = {r.index: r async for r in client.stream(given)}
        assert emulator.audit.total == 2 * (len(BAD) + 1), "nothing that is known to be bad may be sent"
    expected = [code for _, bad in BAD for code in (None, bad)] + [None]
    for found in (results, [by_stream[index] for index in range(len(given))]):
        assert codes(found) == expected
        assert [result.index for result in found] == list(range(len(given)))
        assert all(
            r.outcome is Outcome.FAILED and r.attempts == 0 and r.classifications == () for r in found if not r.ok
        )
        assert all(result.error.message for result in found if result.error)


def dying() -> Iterator[object]:
    yield from hashes(3)
    raise LookupError("the source is gone")


async def test_a_source_that_fails_is_the_callers(client: AthenaClient) -> None:
    with pytest.raises(LookupError, match="the source is gone"):
        await client.classify_many(dying())
    results = client.stream(dying())
    seen = [(await anext(results)).index for _ in range(3)]
    assert sorted(seen) == [0, 1, 2], "results of what was taken before come first"
    with pytest.raises(LookupError, match="the source is gone"):
        await anext(results)


async def test_the_same_id_twice_in_one_call_fails_the_second_alone(client: AthenaClient) -> None:
    twice = ImageInput(md5=MD5, correlation_id="twice")
    results = await client.classify_many([*hashes(2), twice, twice, *hashes(2)])
    assert codes(results) == [None, None, None, ErrorCode.CORRELATION_ID_INVALID, None, None]
    assert "'twice' is in flight already" in str(results[3].error)
    assert results[3].outcome is Outcome.FAILED
    assert results[3].attempts == 0
    (again,) = await client.classify_many([twice])
    assert again.ok, "an id that was answered is free again"
