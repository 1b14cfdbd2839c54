"""Every encoding is lossless, and never larger than the pixels."""

from __future__ import annotations

import io
import random

import pytest
from PIL import Image, ImageCms, features

from athena_async.config import RAW_FRAME_BYTES, PreprocessConfig, Resampling, Resizer
from athena_async.errors import ConfigError, MissingExtraError
from athena_async.images.encode import check_encoding, encode, has_webp
from athena_async.images.render import render_bytes, render_picture


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


def _original(photograph: Image.Image, kind: str) -> bytes:
    """A file with everything that an encoder might carry along."""
    exif = Image.Exif()
    exif[274] = 6  # to be turned
    exif[315] = "the photographer"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    file = io.BytesIO()
    if kind == "noise":
        photograph = Image.frombytes("RGB", (448, 448), random.Random(1).randbytes(RAW_FRAME_BYTES))
    elif kind == "same size":
        photograph = photograph.resize((448, 448))
    elif kind == "grey":
        photograph = photograph.convert("L")
    photograph.save(
        file, "PNG" if kind != "jpeg" else "JPEG", exif=exif.tobytes(), icc_profile=profile, compress_level=1
    )
    return file.getvalue()


@pytest.mark.parametrize("kind", ["jpeg", "grey", "same size", "noise"])
@pytest.mark.parametrize("encoding", ["webp", "png"])
@pytest.mark.parametrize("resampling", ["bilinear", "antialias"])
@pytest.mark.parametrize("resizer", ["pillow", "opencv"])
def test_what_pillow_decoded_has_the_same_pixels_in_every_encoding_and_nothing_else(
    photograph: Image.Image, kind: str, encoding: str, resampling: Resampling, resizer: Resizer
) -> None:
    if encoding == "webp" and not has_webp():
        pytest.skip("this Pillow has no WebP codec")
    if resizer == "opencv":
        pytest.importorskip("cv2")
    config = PreprocessConfig(resampling=resampling, resizer=resizer)
    data = _original(photograph, kind)
    raw = render_bytes(data, config, "none")
    rendered = render_bytes(data, config, encoding)
    if kind == "noise":
        assert rendered == raw
        return
    assert len(rendered.data) < RAW_FRAME_BYTES
    with Image.open(io.BytesIO(rendered.data)) as image:
        assert image.convert("RGB").tobytes("raw", "BGR") == bytes(raw.data)
        assert not {"icc_profile", "exif", "xmp"} & set(image.info)
    for leaked in (b"photographer", b"ICCP", b"iCCP", b"EXIF", b"eXIf"):
        assert leaked not in bytes(rendered.data)


@pytest.mark.parametrize("encoding", ["none", "webp", "png", "brotli"])
def test_a_callers_picture_is_left_as_it_was(photograph: Image.Image, encoding: str) -> None:
    if encoding == "webp" and not has_webp():
        pytest.skip("this Pillow has no WebP codec")
    if encoding == "brotli":
        pytest.importorskip("brotli")
    picture = photograph.resize((448, 448))
    picture.info = {"icc_profile": b"kept"}
    before = picture.tobytes()
    render_picture(picture, PreprocessConfig(resizer="pillow"), encoding)
    assert picture.tobytes() == before
    assert picture.info == {"icc_profile": b"kept"}


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
