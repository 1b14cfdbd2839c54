"""Photographs in every format: the pixels that arrive are the right ones, which their scores show."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image, features

from athena_async import AthenaClient, ClassificationResult, ErrorCode, PreprocessConfig
from athena_async.emulator import EmulatorConfig
from tests.integration.client.world import SAME, codes, distance, encoded, frame, photograph, service

pytestmark = pytest.mark.anyio

NAMES = ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "hubble_deep_field.jpg", "retina.jpg")

FORMATS: dict[str, tuple[str, str, dict[str, Any], float]] = {
    "JPEG": ("JPEG", "RGB", {"quality": 95}, SAME),
    "progressive JPEG": ("JPEG", "RGB", {"quality": 95, "progressive": True}, SAME),
    "PNG": ("PNG", "RGB", {}, 1e-6),
    "WebP": ("WEBP", "RGB", {"quality": 95}, 2 * SAME),
    "lossless WebP": ("WEBP", "RGB", {"lossless": True}, 1e-6),
    "GIF": ("GIF", "RGB", {}, 5 * SAME),
    "BMP": ("BMP", "RGB", {}, 1e-6),
    "DIB": ("DIB", "RGB", {}, 1e-6),
    "TIFF": ("TIFF", "RGB", {}, 1e-6),
    "LZW TIFF": ("TIFF", "RGB", {"compression": "tiff_lzw"}, 1e-6),
    "PPM": ("PPM", "RGB", {}, 1e-6),
    "JPEG 2000": ("JPEG2000", "RGB", {}, 1e-6),
    "AVIF": ("AVIF", "RGB", {"quality": 95}, 2 * SAME),
}


async def test_scores_are_those_of_the_official_clients_pixels(client: AthenaClient) -> None:
    files = await client.classify_many(photograph(name) for name in NAMES)
    frames = await client.classify_many(frame(name) for name in NAMES)
    pixels = [strip(result) for result in files]
    for name, ours, theirs in zip(NAMES, pixels, frames, strict=True):
        assert distance(ours, theirs) < SAME, name


async def test_another_photograph_has_other_scores(client: AthenaClient) -> None:
    results = [strip(result) for result in await client.classify_many(photograph(name) for name in NAMES)]
    pairs = [(one, other) for one in range(len(NAMES)) for other in range(one)]
    assert min(distance(results[one], results[other]) for one, other in pairs) > 3 * SAME
    mirrored = frame(NAMES[0])[:, ::-1]
    swapped = frame(NAMES[0])[:, :, ::-1]
    for wrong in await client.classify_many([mirrored, swapped]):
        assert distance(wrong, results[0]) > 3 * SAME


async def test_every_format_gives_the_same_scores(client: AthenaClient) -> None:
    wanted = {name: row for name, row in FORMATS.items() if name != "AVIF" or features.check("avif")}
    files = [encoded("astronaut.png", format, mode, **options) for format, mode, options, _ in wanted.values()]
    reference, *results = await client.classify_many([photograph("astronaut.png"), *files])
    for (name, (*_, tolerance)), result in zip(wanted.items(), results, strict=True):
        assert distance(result, reference) < tolerance, name


async def test_grey_and_bilevel_pictures_are_read_as_what_they_show(client: AthenaClient) -> None:
    grey = encoded("astronaut.png", "PPM", "L")
    bilevel = encoded("astronaut.png", "PPM", "1")
    with Image.open(io.BytesIO(grey)) as one, Image.open(io.BytesIO(bilevel)) as other:
        same = [one.convert("RGB"), other.convert("RGB")]
    results = [strip(result) for result in await client.classify_many([grey, bilevel, *same])]
    assert distance(results[0], results[2]) < 1e-6
    assert distance(results[1], results[3]) < 1e-6


async def test_the_camera_that_was_held_sideways_is_turned_back(client: AthenaClient) -> None:
    with Image.open(photograph("coffee.png")) as image:
        turned, exif = image.convert("RGB").transpose(Image.Transpose.ROTATE_90), Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    turned.save(file, "JPEG", quality=95, exif=exif)
    sideways, upright = await client.classify_many([file.getvalue(), photograph("coffee.png")])
    assert distance(sideways, upright) < SAME


@pytest.mark.parametrize("resizer", ["pillow", "opencv"])
@pytest.mark.parametrize("encoding", ["none", "webp", "png", "brotli"])
async def test_every_encoding_carries_the_same_pixels(resizer: Any, encoding: Any) -> None:
    prepared = PreprocessConfig(encoding=encoding, resizer=resizer)
    async with service(preprocess=prepared) as (client, emulator):
        results = await client.classify_many([*map(photograph, NAMES[:2]), *map(frame, NAMES[:2])])
        sizes = [record.size_bytes for record in emulator.audit.records]
    assert [result.error for result in results] == [None] * 4
    tolerance = 1e-6 if resizer == "opencv" else SAME
    assert distance(strip(results[0]), results[2]) < tolerance
    assert distance(strip(results[1]), results[3]) < tolerance
    assert all((size == 448 * 448 * 3) == (encoding == "none") for size in sizes)


async def test_encodings_agree_with_one_another() -> None:
    found = []
    for encoding in ("none", "webp", "png", "brotli"):
        async with service(preprocess=PreprocessConfig(encoding=encoding)) as (client, _):  # type: ignore[arg-type]
            found.append(await client.classify(photograph("rocket.jpg")))
    assert max(distance(found[0], other) for other in found[1:]) < 1e-6


async def test_without_resizing_files_of_the_right_size_leave_untouched() -> None:
    with Image.open(photograph("chelsea.png")) as image:
        small = image.convert("RGB").resize((448, 448))
    files = []
    for format in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"):
        file = io.BytesIO()
        small.save(file, format)
        files.append(file.getvalue())
    untouched = PreprocessConfig(resize=False, encoding="none")
    async with service(EmulatorConfig(), preprocess=untouched) as (client, emulator):
        results = await client.classify_many([*files, photograph("chelsea.png")])
        sent = {record.correlation_id: record.size_bytes for record in emulator.audit.records}
    assert codes(results) == [None] * 7 + [ErrorCode.INVALID_IMAGE]
    assert [sent[result.correlation_id] for result in results[:7]] == [len(file) for file in files]
    lossless = [results[1], results[4], results[5], results[6]]
    assert max(distance(one, lossless[0]) for one in lossless) < 1e-6
    assert "448" in str(results[7].error)


def strip(result: ClassificationResult) -> ClassificationResult:
    """The result without what its hashes are known for: only pixels count."""
    kept = tuple(row for row in result.classifications if not row.label.startswith("KnownCSAM"))
    return ClassificationResult(result.correlation_id, result.index, result.outcome, kept)
