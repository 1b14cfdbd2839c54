"""Images from strangers: a bad one fails alone, soon, and takes nothing with it.

The long run is over every image of Pillow's own test suite, which `scripts/fetch_image_corpus` fetches.
"""

from __future__ import annotations

import io
import struct
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, features

from athena_async.config import RAW_FRAME_BYTES, PreprocessConfig
from athena_async.errors import ClassificationError, ErrorCode
from athena_async.images import resize
from athena_async.images.inputs import to_source
from athena_async.images.isolation import IsolatedPreparation
from athena_async.images.preprocess import prepare

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # plugins of Pillow warn of what they find odd

CORPUS = Path(__file__).resolve().parents[2] / ".cache" / "image-corpus"
LONGEST_S = 10.0
RESIZERS = ["pillow", "opencv"] if resize.has_opencv() else ["pillow"]
ALLOWED = {ErrorCode.INVALID_IMAGE, ErrorCode.UNSUPPORTED_FORMAT}


def outcome(data: object, resizer: str = "pillow", **fields: Any) -> ErrorCode | None:
    """None where the image was prepared, and else the code; fails on anything else or when it takes too long."""
    config = PreprocessConfig(resizer=resizer, **fields)  # type: ignore[arg-type]
    began = time.monotonic()
    refusal, prepared_bytes = None, 0
    try:
        prepared_bytes = len(prepare(to_source(data), config, "none").data)
    except ClassificationError as error:
        refusal = error
    assert time.monotonic() - began < LONGEST_S
    if refusal is None:
        assert prepared_bytes == RAW_FRAME_BYTES
        return None
    assert refusal.code in ALLOWED
    assert len(refusal.message) < 500
    return refusal.code


def photograph(name: str, size: tuple[int, int] = (160, 120), **options: Any) -> bytes:
    picture = Image.effect_noise(size, 50).convert("RGB")
    if name == "GIF":
        picture = picture.quantize(64)
    file = io.BytesIO()
    picture.save(file, name, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes, size: tuple[int, int] = (16, 16)) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress((b"\0" + bytes(3 * size[0])) * size[1] if size[1] < 1000 else b""))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + rows + chunk(b"IEND", b"")


FORMATS = ["JPEG", "PNG", "GIF", "BMP", "DIB", "TIFF", "PPM", *(["WEBP"] if features.check("webp") else [])]


@pytest.mark.parametrize("resizer", RESIZERS)
@pytest.mark.parametrize("name", FORMATS)
def test_truncated_anywhere(name: str, resizer: str) -> None:
    data = photograph(name)
    assert outcome(data, resizer) is None
    offsets = sorted({*range(1, min(200, len(data)), 7), *range(200, len(data), max(1, len(data) // 60))})
    found = Counter(outcome(data[:offset], resizer) for offset in offsets)
    assert found[None] <= len(offsets) // 50  # only what no pixel depends on may be missing


def test_truncated_jpegs_have_the_same_outcome_with_either_decoder() -> None:
    if len(RESIZERS) < 2:
        pytest.skip("the opencv extra is not installed")
    for progressive in (False, True):
        data = photograph("JPEG", progressive=progressive)
        for offset in range(len(data) // 50, len(data), len(data) // 50):
            assert outcome(data[:offset], "opencv") == outcome(data[:offset], "pillow")


@pytest.mark.parametrize("resizer", RESIZERS)
@pytest.mark.parametrize(
    "start",
    [
        b"\xff\xd8\xff\xe0",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"RIFF\xff\xff\0\0WEBPVP8 ",
        b"BM",
        b"II*\0",
        b"MM\0*",
        b"P6 9 9 255\n",
        b"\x59\xa6\x6a\x95",
        b"\0\0\0\x0cjP  \r\n\x87\n",
        b"\0\0\0\x20ftypavif",
        b"#?RADIANCE\n\n-Y 9 +X 9\n",
        b"PF\n9 9\n-1\n",
        b"P7\nWIDTH 9\nHEIGHT 9\nDEPTH 3\nMAXVAL 255\nENDHDR\n",
        b"",
    ],
)
def test_random_bytes_after_every_start(start: bytes, resizer: str) -> None:
    import random

    source = random.Random(1)
    for size in (0, 1, 30, 500, 5000):
        for _ in range(8):
            outcome(start + source.randbytes(size) or b"x", resizer)


@pytest.mark.parametrize("resizer", RESIZERS)
def test_bombs_are_refused_by_their_headers(resizer: str) -> None:
    huge = 60_000
    jpeg = bytearray(photograph("JPEG"))
    frame_at = jpeg.index(b"\xff\xc0")
    jpeg[frame_at + 5 : frame_at + 9] = struct.pack(">HH", huge, huge)
    gif = b"GIF89a" + struct.pack("<HH", huge, huge) + photograph("GIF")[10:]
    bmp = bytearray(photograph("BMP"))
    bmp[18:26] = struct.pack("<ii", huge, huge)
    portable = b"P6\n%d %d\n255\n" % (huge, huge)
    sun = b"\x59\xa6\x6a\x95" + struct.pack(">7I", huge, huge, 24, 0, 1, 0, 0)
    for bomb in (bytes(jpeg), gif, bytes(bmp), portable, sun, png(size=(huge, huge))):
        assert outcome(bomb, resizer) is ErrorCode.INVALID_IMAGE
    opencvs = (b"PF\n60000 60000\n-1\n", b"#?RADIANCE\n\n-Y 60000 +X 60000\n", b"P7\nWIDTH 60000\nHEIGHT 60000\n")
    for bomb in opencvs:
        assert outcome(bomb, resizer) is (
            ErrorCode.INVALID_IMAGE if resizer == "opencv" else ErrorCode.UNSUPPORTED_FORMAT
        )


def test_a_frame_larger_than_its_screen_is_no_way_around_the_cap() -> None:
    gif = bytearray(photograph("GIF"))
    descriptor_at = gif.index(b"\x2c\0\0\0\0")
    gif[descriptor_at + 5 : descriptor_at + 9] = struct.pack("<HH", 65_000, 65_000)
    assert outcome(bytes(gif)) is not None
    assert outcome(bytes(gif), max_pixels=448 * 448) is not None


def test_texts_that_unpack_to_gigabytes_are_refused() -> None:
    packed = zlib.compress(bytes(200_000_000), 9)
    for kind, head in ((b"zTXt", b"key\0\0"), (b"iTXt", b"key\0\1\0\0\0"), (b"iCCP", b"key\0\0")):
        assert outcome(png(chunk(kind, head + packed))) in (None, ErrorCode.INVALID_IMAGE)


def test_many_chunks_and_segments_end_soon() -> None:
    assert outcome(png(*[chunk(b"tEXt", b"key\0" + bytes(20))] * 50_000)) in (None, ErrorCode.INVALID_IMAGE)
    jpeg = photograph("JPEG")
    comments = (b"\xff\xfe" + struct.pack(">H", 65_535) + bytes(65_533)) * 200
    assert outcome(jpeg[:2] + comments + jpeg[2:]) is None


def test_a_directory_that_points_at_itself_ends() -> None:
    entry = struct.pack("<HHII", 0x8769, 4, 1, 8)
    assert outcome(b"II*\0\x08\0\0\0" + struct.pack("<H", 1) + entry + struct.pack("<I", 8)) is not None
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 1) + entry + struct.pack("<I", 8)
    assert outcome(photograph("JPEG", exif=exif)) is None


@pytest.fixture
def corpus() -> list[Path]:
    paths = sorted(path for path in CORPUS.glob("*") if path.is_file() and not path.name.startswith("."))
    if not paths:
        pytest.skip("the corpus is absent: .venv/bin/python scripts/fetch_image_corpus")
    return paths


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("resizer", RESIZERS)
def test_every_image_of_pillows_own_suite(corpus: list[Path], resizer: str) -> None:
    began = time.monotonic()
    found = Counter(outcome(path, resizer) if path.stat().st_size else None for path in corpus)
    took_s = time.monotonic() - began
    print(f"P14 ({resizer}): {len(corpus)} images, {found[None]} prepared, 0 crashes, {took_s:.1f} s in all")
    assert found[None] > len(corpus) // 2


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_image_of_pillows_own_suite_in_worker_processes(corpus: list[Path]) -> None:
    config = PreprocessConfig(isolation="process")
    isolated = IsolatedPreparation(config)
    found: Counter[ErrorCode | None] = Counter()
    slowest_s = 0.0
    try:
        for path in corpus:
            began = time.monotonic()
            try:
                isolated(to_source(path), "none")
                found[None] += 1
            except ClassificationError as error:
                found[error.code] += 1
            slowest_s = max(slowest_s, time.monotonic() - began)
    finally:
        isolated.close()
    print(
        f"P14 (process): {len(corpus)} images, {found[None]} prepared, {isolated.lost_count} workers lost, "
        f"{slowest_s:.2f} s at most"
    )
    assert slowest_s < LONGEST_S + 2
    assert set(found) <= ALLOWED | {None}
    assert isolated.lost_count == 0
