"""The written rule of each kind of image, in pixels: exact where nothing is resampled, OpenCV's where it decides."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image, TiffImagePlugin, features

from athena_async.config import PreprocessConfig
from athena_async.errors import ClassificationError, ErrorCode
from athena_async.images import decode, formats, resize
from athena_async.images.inputs import to_source
from athena_async.images.preprocess import prepare

RED, GREEN, BLUE, WHITE = CORNERS = ((200, 10, 20), (30, 180, 40), (50, 60, 220), (250, 240, 230))

Quarters = Callable[[object], tuple[tuple[int, ...], ...]]
Encoded = Callable[..., bytes]


def grey(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """Rec. 601 luma as Pillow rounds it."""
    value = (colour[0] * 19595 + colour[1] * 38470 + colour[2] * 7471 + 0x8000) >> 16
    return (value, value, value)


def near(found: tuple[tuple[int, ...], ...], expected: tuple[tuple[int, ...], ...]) -> bool:
    """Within what JPEG at its best quality loses on flat colour."""
    return (
        max(abs(a - b) for one, other in zip(found, expected, strict=True) for a, b in zip(one, other, strict=True))
        <= 3
    )


def exif(orientation: int) -> bytes:
    entries = Image.Exif()
    entries[0x0112] = orientation
    return entries.tobytes()


@pytest.mark.parametrize("name", ["PNG", "BMP", "DIB", "TIFF", "PPM", "GIF"])
def test_lossless_formats_keep_every_pixel(
    quarters: Quarters, encoded: Encoded, corners: Image.Image, name: str
) -> None:
    image = corners.quantize(4) if name == "GIF" else corners
    assert quarters(encoded(image, name)) == CORNERS


def test_lossless_webp_keeps_every_pixel(quarters: Quarters, encoded: Encoded, corners: Image.Image) -> None:
    if not features.check("webp"):
        pytest.skip("this Pillow has no WebP codec")
    assert quarters(encoded(corners, "WEBP", lossless=True)) == CORNERS


@pytest.mark.parametrize("name", ["PNG", "TIFF", "PPM", "BMP"])
def test_grey_is_repeated(quarters: Quarters, encoded: Encoded, corners: Image.Image, name: str) -> None:
    assert quarters(encoded(corners.convert("L"), name)) == tuple(map(grey, CORNERS))


@pytest.mark.parametrize("name", ["PNG", "TIFF", "PPM", "BMP"])
def test_one_bit_is_black_and_white(quarters: Quarters, encoded: Encoded, corners: Image.Image, name: str) -> None:
    mask = corners.convert("L").point([255 if level > 100 else 0 for level in range(256)]).convert("1")
    assert quarters(encoded(mask, name)) == tuple((255,) * 3 if grey(c)[0] > 100 else (0,) * 3 for c in CORNERS)


@pytest.mark.parametrize("name", ["PNG", "GIF", "TIFF", "BMP"])
def test_palettes_are_looked_up(quarters: Quarters, encoded: Encoded, corners: Image.Image, name: str) -> None:
    assert quarters(encoded(corners.quantize(16), name)) == CORNERS


@pytest.mark.parametrize("transparency", [0, bytes([0, 128, 255, 7])])
def test_palette_transparency_is_dropped(
    quarters: Quarters, encoded: Encoded, corners: Image.Image, transparency: object
) -> None:
    assert quarters(encoded(corners.quantize(4), "PNG", transparency=transparency)) == CORNERS


def test_transparent_pixels_of_a_gif_show_its_background(
    quarters: Quarters, encoded: Encoded, corners: Image.Image
) -> None:
    indexed = corners.quantize(4)
    red, blue = indexed.getpixel((0, 0)), indexed.getpixel((0, 447))
    data = encoded(indexed, "GIF", transparency=red, background=blue, optimize=False)
    assert quarters(data) == (BLUE, GREEN, BLUE, WHITE)


@pytest.mark.parametrize("name", ["PNG", "WEBP"])
def test_alpha_is_dropped_not_composited(quarters: Quarters, encoded: Encoded, corners: Image.Image, name: str) -> None:
    if name == "WEBP" and not features.check("webp"):
        pytest.skip("this Pillow has no WebP codec")
    image = corners.copy()
    image.putalpha(Image.linear_gradient("L").resize(image.size).point([max(1, level) for level in range(256)]))
    assert quarters(encoded(image, name, **({"lossless": True, "exact": True} if name == "WEBP" else {}))) == CORNERS


def test_alpha_of_an_eight_bit_tiff_lies_on_black(quarters: Quarters, encoded: Encoded, corners: Image.Image) -> None:
    image = corners.copy()
    image.putalpha(51)
    dark = tuple(tuple(round(level * 0.2) for level in colour) for colour in CORNERS)
    assert quarters(encoded(image, "TIFF")) == dark


def test_grey_with_alpha_drops_it(quarters: Quarters, encoded: Encoded, corners: Image.Image) -> None:
    image = corners.convert("LA")
    image.putalpha(10)
    assert quarters(encoded(image, "PNG")) == tuple(map(grey, CORNERS))


@pytest.mark.parametrize("name", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_grey_keeps_its_high_byte(quarters: Quarters, encoded: Encoded, name: str) -> None:
    levels = [0x00FF, 0x7F80, 0x8000, 0xFFFF]
    rows = [struct.pack("<448H", *([left] * 224 + [right] * 224)) * 224 for left, right in (levels[:2], levels[2:])]
    image = Image.frombytes("I;16", (448, 448), b"".join(rows))
    assert quarters(encoded(image, name)) == tuple((level >> 8,) * 3 for level in levels)


def test_sixteen_bit_grey_in_either_byte_order(quarters: Quarters) -> None:
    assert quarters(Image.frombytes("I;16B", (448, 448), b"\x7f\x80" * 448 * 448)) == ((0x7F,) * 3,) * 4
    assert quarters(Image.frombytes("I;16", (448, 448), b"\x80\x7f" * 448 * 448)) == ((0x7F,) * 3,) * 4


def test_sixteen_bit_colour_keeps_its_high_byte(quarters: Quarters) -> None:
    assert (
        quarters(_png(448, 448, bit_depth=16, colour_type=2, pixel=b"\x12\xff\x80\x00\xfe\xff"))
        == ((0x12, 0x80, 0xFE),) * 4
    )


def test_cmyk_has_no_black_on_white(quarters: Quarters, encoded: Encoded, corners: Image.Image) -> None:
    found = quarters(encoded(corners.convert("CMYK"), "JPEG", quality=100, subsampling=0))
    assert near(found, CORNERS)


def test_the_first_frame_is_taken(quarters: Quarters, encoded: Encoded, corners: Image.Image) -> None:
    black = Image.new("RGB", (448, 448))
    for name, options in (("GIF", {}), ("TIFF", {}), ("WEBP", {"lossless": True}), ("PNG", {})):
        if name == "WEBP" and not features.check("webp"):
            continue
        first, second = (corners.quantize(4), black.quantize(4)) if name == "GIF" else (corners, black)
        assert quarters(encoded(first, name, save_all=True, append_images=[second], **options)) == CORNERS


def test_the_stand_in_of_an_animated_png_is_no_frame(
    quarters: Quarters, encoded: Encoded, corners: Image.Image
) -> None:
    black = Image.new("RGB", (448, 448))
    data = encoded(black, "PNG", save_all=True, default_image=True, append_images=[corners, black])
    assert quarters(data) == CORNERS


def test_the_stand_in_of_a_single_frame_is_the_picture(
    quarters: Quarters, encoded: Encoded, corners: Image.Image
) -> None:
    black = Image.new("RGB", (448, 448))
    assert quarters(encoded(corners, "PNG", save_all=True, default_image=True, append_images=[black])) == CORNERS


def test_a_multi_picture_file_is_its_first_picture(quarters: Quarters, encoded: Encoded, corners: Image.Image) -> None:
    data = encoded(corners, "MPO", save_all=True, append_images=[Image.new("RGB", (448, 448))], quality=100)
    found = quarters(data)
    assert near(found, CORNERS)


# Where red, green, blue and white of the corners come to lie, by orientation.
TURNED = {
    1: (RED, GREEN, BLUE, WHITE),
    2: (GREEN, RED, WHITE, BLUE),
    3: (WHITE, BLUE, GREEN, RED),
    4: (BLUE, WHITE, RED, GREEN),
    5: (RED, BLUE, GREEN, WHITE),
    6: (BLUE, RED, WHITE, GREEN),
    7: (WHITE, GREEN, BLUE, RED),
    8: (GREEN, WHITE, RED, BLUE),
}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(
    quarters: Quarters, encoded: Encoded, corners: Image.Image, orientation: int
) -> None:
    assert quarters(encoded(corners, "PNG", exif=exif(orientation))) == TURNED[orientation]
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[0x0112] = orientation
    assert quarters(encoded(corners, "TIFF", tiffinfo=tags)) == TURNED[orientation]
    jpeg = quarters(encoded(corners, "JPEG", quality=100, subsampling=0, exif=exif(orientation)))
    assert near(jpeg, TURNED[orientation])


@pytest.mark.skipif(not features.check("webp"), reason="this Pillow has no WebP codec")
@pytest.mark.parametrize(("mark", "expected"), [(b"", TURNED[6]), (b"Exif\0\0", CORNERS)])
def test_exif_of_webp_has_no_mark_before_it(
    quarters: Quarters, encoded: Encoded, corners: Image.Image, mark: bytes, expected: tuple[tuple[int, ...], ...]
) -> None:
    data = encoded(corners, "WEBP", lossless=True, exif=exif(6))
    if mark:
        at = data.index(b"EXIF") + 4
        (size,) = struct.unpack_from("<I", data, at)
        body = mark + data[at + 4 : at + 4 + size]
        data = data[:at] + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)
        data = data[:4] + struct.pack("<I", len(data) - 8) + data[8:]
    assert quarters(data) == expected


def test_orientation_in_xmp_is_not_heeded(quarters: Quarters, encoded: Encoded, corners: Image.Image) -> None:
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    found = quarters(encoded(corners, "JPEG", quality=100, subsampling=0, xmp=xmp))
    assert near(found, CORNERS)


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"Exif\0\0",
        b"XX*\0\x08\0\0\0",
        b"II*\0\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\xff\xff",
        b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIH", 0x0112, 3, 1, 9) + b"\0\0",
        b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIH", 0x0111, 3, 1, 6) + b"\0\0",
    ],
)
def test_malformed_exif_turns_nothing(blob: bytes) -> None:
    assert decode.exif_orientation(blob) == 1


@pytest.mark.parametrize(("order", "mark"), [("<", b"II*\0\x08\0\0\0"), (">", b"MM\0*\0\0\0\x08")])
def test_exif_in_either_byte_order(order: str, mark: bytes) -> None:
    entry = struct.pack(order + "H", 1) + struct.pack(order + "HHIHH", 0x0112, 3, 1, 6, 0)
    assert decode.exif_orientation(b"Exif\0\0" + mark + entry) == 6


def test_pixels_without_a_range_are_refused(encoded: Encoded, corners: Image.Image) -> None:
    for mode in ("F", "I"):
        with pytest.raises(ClassificationError, match=f"mode {mode}") as caught:
            prepare(to_source(encoded(corners.convert("L").convert(mode), "TIFF")), PreprocessConfig(), "none")
        assert caught.value.code is ErrorCode.UNSUPPORTED_FORMAT


def test_pil_images_of_every_mode(quarters: Quarters, corners: Image.Image) -> None:
    assert quarters(corners) == CORNERS
    assert quarters(corners.convert("RGBA")) == CORNERS
    assert quarters(corners.convert("RGBA").convert("RGBa")) == CORNERS
    assert quarters(corners.quantize(4)) == CORNERS
    assert quarters(corners.convert("L")) == tuple(map(grey, CORNERS))
    assert quarters(corners.convert("L").convert("LA").convert("La")) == tuple(map(grey, CORNERS))
    assert quarters(corners.convert("CMYK")) == CORNERS


def test_a_pil_image_is_left_as_it_was(corners: Image.Image, encoded: Encoded, resizer: str) -> None:
    with Image.open(io.BytesIO(encoded(corners.quantize(4), "PNG", transparency=1, exif=exif(6)))) as image:
        before = (image.mode, image.size, dict(image.info))
        prepare(to_source(image), PreprocessConfig(resizer=resizer), "none")  # type: ignore[arg-type]
        assert (image.mode, image.size, dict(image.info)) == before


def _png(
    width: int,
    height: int,
    *,
    bit_depth: int = 8,
    colour_type: int = 2,
    pixel: bytes = b"\0\0\0",
    rows: int | None = None,
) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bit_depth, colour_type, 0, 0, 0)
    data = zlib.compress((b"\0" + pixel * width) * (height if rows is None else rows), 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(20_000, 20_000), (200_000_000, 1), (1, 100_000_001)])
def test_too_many_pixels_are_refused_by_the_header(size: tuple[int, int]) -> None:
    bomb = _png(*size, pixel=b"", rows=0)
    with pytest.raises(ClassificationError, match="max_pixels") as caught:
        prepare(to_source(bomb), PreprocessConfig(), "none")
    assert caught.value.code is ErrorCode.INVALID_IMAGE


def test_the_cap_is_the_configured_one_up_to_the_last_pixel() -> None:
    config = PreprocessConfig(max_pixels=448 * 448)
    prepare(to_source(_png(448, 448)), config, "none")
    with pytest.raises(ClassificationError, match="max_pixels"):
        prepare(to_source(_png(449, 448)), config, "none")


def test_a_cap_above_pillows_own_is_ours_alone() -> None:
    """Pillow's global limit warns from 89 million pixels on, and warnings are errors here."""
    config = PreprocessConfig(max_pixels=400_000_000)
    header = decode.open_header(_png(1, 1), formats.PNG, config.max_pixels)
    assert header.size == (1, 1)
    assert decode.open_header(_png(14_000, 14_000, rows=0), formats.PNG, config.max_pixels).size == (14_000, 14_000)


def test_a_truncated_jpeg_is_no_image(astronaut: Image.Image, encoded: Encoded, resizer: str) -> None:
    data = encoded(astronaut, "JPEG", exif=exif(1))
    for kept in (0.3, 0.6, 0.9):
        with pytest.raises(ClassificationError, match="truncated") as caught:
            prepare(to_source(data[: int(len(data) * kept)]), PreprocessConfig(resizer=resizer), "none")  # type: ignore[arg-type]
        assert caught.value.code is ErrorCode.INVALID_IMAGE


def test_the_end_marker_of_a_thumbnail_is_not_the_files(astronaut: Image.Image, encoded: Encoded) -> None:
    thumbnail = encoded(astronaut.resize((32, 32)), "JPEG")
    data = encoded(astronaut, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0" + thumbnail)
    cut = data[: len(data) // 2]
    assert b"\xff\xd9" in cut
    header = decode.open_header(cut, formats.JPEG, 10**9)
    assert not decode.complete_jpeg(header, cut)
    assert decode.complete_jpeg(decode.open_header(data, formats.JPEG, 10**9), data)


def test_messages_quote_nothing_of_the_file() -> None:
    with pytest.raises(ClassificationError) as caught:
        prepare(to_source(b"\x89PNG\r\n\x1a\n" + b"CANARY" * 50), PreprocessConfig(), "none")
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize("found", [formats.HDR, formats.PFM, formats.PAM])
def test_what_only_opencv_reads_names_the_extra(found: formats.Format) -> None:
    heads = {"HDR": b"#?RADIANCE\n", "PFM": b"PF\n4 3\n-1\n", "PXM": b"P7\nWIDTH 4\nHEIGHT 3\n"}
    with pytest.raises(ClassificationError, match=r"athena-async\[opencv\]") as caught:
        prepare(to_source(heads[found.wire or ""]), PreprocessConfig(resizer="pillow"), "none")
    assert caught.value.code is ErrorCode.UNSUPPORTED_FORMAT


@pytest.mark.skipif(not resize.has_opencv(), reason="the opencv extra is not installed")
@pytest.mark.parametrize("suffix", [".hdr", ".pic", ".pfm", ".pam", ".ras", ".sr"])
def test_formats_of_opencv_are_opencvs_pixels(suffix: str, astronaut: Image.Image) -> None:
    import cv2
    import numpy as np

    pixels: Any = np.asarray(astronaut)[:200, :300, ::-1]
    if suffix in (".hdr", ".pic", ".pfm"):
        pixels = pixels.astype(np.float32) / (1 if suffix == ".pfm" else 255)
    data = cv2.imencode(suffix, np.ascontiguousarray(pixels))[1].tobytes()
    expected = cv2.resize(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), (448, 448))
    found = prepare(to_source(data), PreprocessConfig(resizer="opencv"), "none").data
    assert np.array_equal(np.frombuffer(found, np.uint8).reshape(448, 448, 3), expected)


@pytest.mark.skipif(not resize.has_opencv(), reason="the opencv extra is not installed")
def test_a_grey_pfm_and_a_bad_one(astronaut: Image.Image) -> None:
    import cv2
    import numpy as np

    config = PreprocessConfig(resizer="opencv")
    data = cv2.imencode(".pfm", np.full((9, 7), 77, np.float32))[1].tobytes()
    assert set(bytes(prepare(to_source(data), config, "none").data)) == {77}
    for broken, match in ((b"PF\nno size", "header"), (data[:12], "OpenCV"), (b"PF\n90000 90000\n-1\n", "max_pixels")):
        with pytest.raises(ClassificationError, match=match):
            prepare(to_source(broken), config, "none")
