"""Formats are recognised by content, and only those on the list."""

from __future__ import annotations

import io
import struct

import pytest
from PIL import Image, features

from athena_async.errors import ClassificationError, ErrorCode
from athena_async.images import formats
from athena_async.wire import ImageFormat


def made_by_pillow(name: str, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, (9, 7)).save(file, name)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "mode", "expected"),
    [
        ("JPEG", "RGB", formats.JPEG),
        ("MPO", "RGB", formats.JPEG),
        ("PNG", "RGB", formats.PNG),
        ("GIF", "P", formats.GIF),
        ("WEBP", "RGB", formats.WEBP),
        ("BMP", "RGB", formats.BMP),
        ("DIB", "RGB", formats.DIB),
        ("TIFF", "RGB", formats.TIFF),
        ("PPM", "1", formats.PBM),
        ("PPM", "L", formats.PGM),
        ("PPM", "RGB", formats.PPM),
        ("JPEG2000", "RGB", formats.JPEG2000),
        ("AVIF", "RGB", formats.AVIF),
    ],
)
def test_what_pillow_writes_is_recognised(name: str, mode: str, expected: formats.Format) -> None:
    if expected.feature and not features.check(expected.feature):
        pytest.skip(f"this Pillow has no {expected.name} codec")
    assert formats.identify(made_by_pillow(name, mode)[: formats.HEAD_BYTES]) is expected


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 3 +X 4\n", formats.HDR),
        (b"#?RGBE\nFORMAT=32-bit_rle_rgbe\n\n-Y 3 +X 4\n", formats.HDR),
        (b"PF\n4 3\n-1.0\n", formats.PFM),
        (b"Pf\n4 3\n-1.0\n", formats.PFM),
        (b"P7\nWIDTH 4\nHEIGHT 3\nDEPTH 3\n", formats.PAM),
    ],
)
def test_what_opencv_reads_is_recognised_and_measured(head: bytes, expected: formats.Format) -> None:
    assert formats.identify(head) is expected
    assert formats.header_size(expected, head) == (4, 3)


@pytest.mark.parametrize("found", [formats.HDR, formats.PFM, formats.PAM])
def test_a_header_without_size_has_none(found: formats.Format) -> None:
    assert formats.header_size(found, b"PF\nno numbers") is None


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"%PDF-1.7", "PDF"),
        (b"8BPS\0\1", "PSD"),
        (b"\0\0\1\0\1\0", "ICO"),
        (b"\0\0\0\x20ftypheic", "HEIF"),
        (b"\0\0\0\x20ftypisom", "video"),
        (b"  <svg xmlns", "SVG"),
        (b"<!doctype html>", "HTML"),
        (b"\xff\x0a\0", "JPEG XL"),
        (b"\x53\x80\xf6\x34", "Softimage PIC"),
        (b"nothing known", "the content"),
        (b"", "0 bytes"),
        (b"P8\n", "the content"),
        (b"RIFF\0\0\0\0WAVE", "the content"),
        (struct.pack("<IiiHH", 40, 5, 5, 2, 24), "the content"),
    ],
)
def test_the_rest_is_refused_by_name(head: bytes, name: str) -> None:
    with pytest.raises(ClassificationError, match=name) as caught:
        formats.identify(head)
    assert caught.value.code is ErrorCode.UNSUPPORTED_FORMAT


def test_every_wire_name_is_one_of_the_service() -> None:
    found = [value for value in vars(formats).values() if isinstance(value, formats.Format)]
    assert len(found) == 16
    assert all(entry.wire is None or entry.wire in ImageFormat.__members__ for entry in found)
