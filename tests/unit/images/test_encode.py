"""Every encoding is lossless, and never larger than the pixels."""

from __future__ import annotations

import io
import random

import pytest
from PIL import Image, features

from athena_async.config import RAW_FRAME_BYTES
from athena_async.errors import ConfigError, MissingExtraError
from athena_async.images.encode import check_encoding, encode, has_webp


@pytest.fixture
def pixels(photograph: Image.Image) -> bytes:
    return photograph.resize((448, 448)).tobytes("raw", "BGR")


@pytest.mark.parametrize(("encoding", "wire"), [("webp", "WEBP"), ("png", "PNG")])
@pytest.mark.parametrize("kind", [bytes, memoryview])
def test_encoded_images_decode_to_the_same_pixels(pixels: bytes, encoding: str, wire: str, kind: type) -> None:
    if encoding == "webp" and not has_webp():
        pytest.skip("this Pillow has no WebP codec")
    rendered = encode(kind(pixels), encoding)
    assert (rendered.format, rendered.brotli) == (wire, False)
    assert len(rendered.data) < RAW_FRAME_BYTES
    with Image.open(io.BytesIO(rendered.data)) as image:
        assert image.convert("RGB").tobytes("raw", "BGR") == pixels


def test_brotli_is_raw_underneath(pixels: bytes) -> None:
    brotli = pytest.importorskip("brotli")
    rendered = encode(memoryview(pixels), "brotli")
    assert (rendered.format, rendered.brotli) == ("RAW_UINT8_BGR", True)
    assert len(rendered.data) < RAW_FRAME_BYTES
    assert brotli.decompress(bytes(rendered.data)) == pixels


def test_none_is_the_very_buffer(pixels: bytes) -> None:
    assert encode(pixels, "none").data is pixels


@pytest.mark.parametrize("encoding", ["webp", "png", "brotli"])
def test_noise_is_sent_raw(encoding: str) -> None:
    noise = random.Random(1).randbytes(RAW_FRAME_BYTES)
    rendered = encode(noise, encoding)
    assert rendered.data is noise
    assert (rendered.format, rendered.brotli) == ("RAW_UINT8_BGR", False)


def test_what_is_installed_passes_the_check() -> None:
    for encoding in ("none", "auto", "png"):
        check_encoding(encoding)
    if features.check("webp"):
        check_encoding("webp")
    else:
        with pytest.raises(ConfigError, match="webp"):
            check_encoding("webp")
    try:
        import brotli  # noqa: F401
    except ImportError:
        with pytest.raises(MissingExtraError, match="brotli"):
            check_encoding("brotli")
    else:
        check_encoding("brotli")
