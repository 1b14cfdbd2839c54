"""Whatever comes in: one image's error and nothing else, the same answer twice, nothing lost in encoding."""

from __future__ import annotations

import io
import random
import struct
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, features

from athena_async.config import RAW_FRAME_BYTES, PreprocessConfig
from athena_async.errors import ClassificationError, ErrorCode
from athena_async.images import decode, formats, resize
from athena_async.images.encode import encode
from athena_async.images.inputs import ImageInput, Source, display_name, to_source
from athena_async.images.preprocess import prepare
from athena_async.images.workers import MAX_CHUNK, PreprocessWorkers

OURS = {ErrorCode.INVALID_IMAGE, ErrorCode.UNSUPPORTED_FORMAT}
RESIZERS = ["pillow", "opencv"] if resize.has_opencv() else ["pillow"]

things = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.binary().map(memoryview),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)


def _made(name: str, mode: str = "RGB", **options: Any) -> bytes:
    gradient = Image.merge("RGB", [Image.linear_gradient("L").rotate(angle).resize((70, 50)) for angle in (0, 90, 180)])
    file = io.BytesIO()
    gradient.convert(mode).save(file, name, **options)
    return file.getvalue()


SEEDS = {
    "jpeg": _made("JPEG"),
    "progressive": _made("JPEG", progressive=True),
    "cmyk": _made("JPEG", "CMYK"),
    "png": _made("PNG"),
    "palette": _made("PNG", "P", transparency=3),
    "gif": _made("GIF", "P"),
    "bmp": _made("BMP"),
    "dib": _made("DIB"),
    "tiff": _made("TIFF"),
    "lzw": _made("TIFF", compression="tiff_lzw"),
    "ppm": _made("PPM"),
    "pgm": b"P2\n3 2\n255\n1 2 3 4 5 6\n",
    "sun": b"\x59\xa6\x6a\x95" + struct.pack(">7I", 4, 2, 24, 24, 1, 0, 0) + bytes(24),
    "pfm": b"PF\n4 2\n-1.0\n" + bytes(96),
    "pam": b"P7\nWIDTH 4\nHEIGHT 2\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n" + bytes(24),
    "hdr": b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 2 +X 4\n" + bytes(32),
}
for codec, plugin in (("webp", "WEBP"), ("jpg_2000", "JPEG2000"), ("avif", "AVIF")):
    if features.check(codec):
        SEEDS[codec] = _made(plugin)


def _or_code(call: Callable[..., Any], *args: Any) -> Any:
    """What the call returns, or the code of the one error that it may raise."""
    try:
        return call(*args)
    except ClassificationError as error:
        return error.code


def _prepared_or_refused(data: bytes, resizer: str) -> bytes | ErrorCode:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # plugins of Pillow warn of what they find odd
        found = _or_code(prepare, to_source(data), PreprocessConfig(resizer=resizer), "none")  # type: ignore[arg-type]
    if isinstance(found, ErrorCode):
        assert found in OURS
        return found
    assert len(found.data) == RAW_FRAME_BYTES
    return bytes(found.data)


@given(things)
def test_any_object_is_a_source_or_an_invalid_input(thing: object) -> None:
    found = _or_code(to_source, thing)
    if found is not ErrorCode.INVALID_INPUT:
        assert isinstance(found, Source)
        assert found.estimate_bytes > 0
        assert display_name(found)


@given(things, things, things, things, things)
def test_any_image_input_is_a_source_or_an_error(
    data: Any, md5: Any, sha1: Any, correlation_id: Any, path: Any
) -> None:
    image = ImageInput(data=data, md5=md5, sha1=sha1, correlation_id=correlation_id, path=path)
    found = _or_code(to_source, image)
    assert isinstance(found, Source) or found in {ErrorCode.INVALID_INPUT, ErrorCode.CORRELATION_ID_INVALID}


@given(st.binary(max_size=64))
def test_any_head_is_a_format_or_refused(head: bytes) -> None:
    found = _or_code(formats.identify, head)
    if found is not ErrorCode.UNSUPPORTED_FORMAT:
        assert isinstance(found, formats.Format)
        assert formats.identify(head + b"more") is found


@given(st.binary(max_size=200), st.sampled_from([b"", b"Exif\0\0II*\0", b"MM\0*\0\0\0\x08", b"II*\0\x08\0\0\0"]))
def test_any_exif_has_an_orientation(blob: bytes, mark: bytes) -> None:
    assert 1 <= decode.exif_orientation(mark + blob) <= 8


@pytest.mark.parametrize("resizer", RESIZERS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(sorted(SEEDS)),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    st.floats(0.02, 1),
)
def test_damaged_images_are_prepared_or_refused(
    resizer: str, seed: str, damage: list[tuple[float, int]], kept: float
) -> None:
    data = bytearray(SEEDS[seed])
    for place, value in damage:
        data[int(place * len(data))] = value
    damaged = bytes(data[: max(1, int(kept * len(data)))])
    assert _prepared_or_refused(damaged, resizer) == _prepared_or_refused(damaged, resizer)


@pytest.mark.parametrize("resizer", RESIZERS)
@pytest.mark.parametrize("seed", sorted(SEEDS))
def test_undamaged_seeds_are_images(resizer: str, seed: str) -> None:
    only_opencv = seed in ("pfm", "pam", "hdr")
    found = _prepared_or_refused(SEEDS[seed], resizer)
    assert found is ErrorCode.UNSUPPORTED_FORMAT if only_opencv and resizer == "pillow" else isinstance(found, bytes)


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 255),
    st.integers(0, 448),
    st.integers(0, 2**32),
    st.sampled_from(["webp", "png", "brotli"]),
)
def test_encodings_lose_nothing(level: int, noisy_rows: int, seed: int, encoding: str) -> None:
    if encoding == "webp" and not features.check("webp"):
        return
    brotli = pytest.importorskip("brotli")
    row_bytes = 448 * 3
    pixels = random.Random(seed).randbytes(noisy_rows * row_bytes) + bytes([level]) * ((448 - noisy_rows) * row_bytes)
    rendered = encode(pixels, encoding)
    assert len(rendered.data) <= RAW_FRAME_BYTES
    if rendered.format == "RAW_UINT8_BGR":
        found = brotli.decompress(bytes(rendered.data)) if rendered.brotli else bytes(rendered.data)
    else:
        with Image.open(io.BytesIO(rendered.data)) as image:
            found = image.convert("RGB").tobytes("raw", "BGR")
    assert found == pixels


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 1500), st.integers(1, 1500), st.integers(0, 2**32))
def test_two_taps_are_at_most_a_level_from_opencvs(width: int, height: int, seed: int) -> None:
    cv2 = pytest.importorskip("cv2")
    import numpy as np

    smooth = np.random.default_rng(seed).integers(0, 256, (9, 9, 3)).astype(np.uint8)
    pixels = cv2.resize(smooth, (width, height), interpolation=cv2.INTER_CUBIC)
    ours = np.frombuffer(resize.with_pillow(Image.fromarray(pixels), "bilinear", None).tobytes("raw", "BGR"), np.uint8)
    theirs = cv2.resize(pixels, (448, 448))[..., ::-1]
    assert np.abs(ours.reshape(448, 448, 3).astype(int) - theirs.astype(int)).max() <= 1


@given(st.lists(st.integers(1, 5_000_000), max_size=200), st.sampled_from(["none", "webp"]))
def test_a_chunk_is_never_empty_nor_endless(sizes: list[int], encoding: str) -> None:
    workers = PreprocessWorkers(PreprocessConfig(threads=1))
    template = to_source(b"")
    sources = [Source(template.kind, b"", RAW_FRAME_BYTES + size) for size in sizes]
    length = workers.chunk_length(sources, encoding)
    assert min(1, len(sizes)) <= length <= min(len(sizes), MAX_CHUNK)
