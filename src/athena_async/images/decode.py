"""From an encoded image to 8-bit pixels, by the written rules of docs/images.md.

Where OpenCV's IMREAD_COLOR decides what a kind of image looks like, the rule is its result: alpha is
dropped, palettes are looked up, 16 bits become their high byte, colour profiles are ignored, EXIF
orientation is applied, the first frame is taken.
"""

from __future__ import annotations

import importlib
import io
import struct
from typing import Any

from PIL import Image, ImageFile, features

from athena_async.errors import ClassificationError, ErrorCode
from athena_async.images.formats import Format

_EXIF_MARK = b"Exif\0\0"
_ORIENTATION_TAG = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# From each mode of Pillow, by way of what, to L or RGB without alpha.
_STEPS: dict[str, tuple[str, ...]] = {
    "L": (),
    "RGB": (),
    "1": ("L",),
    "LA": ("L",),
    "La": ("LA", "L"),
    "PA": ("RGBA", "RGB"),
    "RGBA": ("RGB",),
    "RGBa": ("RGBA", "RGB"),
    "RGBX": ("RGB",),
    "CMYK": ("RGB",),
    "YCbCr": ("RGB",),
    "LAB": ("RGB",),
    "HSV": ("RGB",),
}
_ORIENTED_BY_EXIF = frozenset({"JPEG", "MPO", "PNG", "WEBP"})


def open_header(data: Any, found: Format, max_pixels: int) -> ImageFile.ImageFile:
    """Reads the header only: what is returned knows its size and mode, and has decoded nothing.

    The format's own opener is called in place of `PIL.Image.open`, which would try others, turn a JPEG
    into an MPO, and check sizes against a limit that is global to the program.

    Raises:
        ClassificationError: UNSUPPORTED_FORMAT without the codec; INVALID_IMAGE for a header that cannot
            be read or more than ``max_pixels`` pixels.
    """
    if found.feature and not features.check(found.feature):
        raise _unsupported(f"this build of Pillow has no {found.name} codec; `athena-async doctor` lists what it has")
    opener = getattr(importlib.import_module(f"PIL.{found.plugin}"), found.opener)
    try:
        image: ImageFile.ImageFile = opener(io.BytesIO(data), "")
        if getattr(image, "default_image", False) and getattr(image, "n_frames", 1) > 2:
            image.seek(1)  # what stands in for an animation where that is not supported is none of its frames
    except Exception as error:  # noqa: BLE001 - a plugin raises whatever its parsing runs into
        raise unreadable(found.name, error) from None
    check_pixels(image.size, max_pixels)
    return image


def check_pixels(size: tuple[int, int], max_pixels: int) -> None:
    """Refuses an image by its size, before anything is decoded.

    Raises:
        ClassificationError: INVALID_IMAGE.
    """
    width, height = size
    if width < 1 or height < 1:
        raise invalid(f"the image has a size of {width}x{height}")
    if width * height > max_pixels:
        raise invalid(f"{width}x{height} pixels are over the cap of {max_pixels:,} (preprocess.max_pixels)")


def load(image: Image.Image, name: str) -> None:
    """Decodes.

    Raises:
        ClassificationError: INVALID_IMAGE for what is truncated or corrupt.
    """
    try:
        image.load()
    except Exception as error:  # noqa: BLE001 - decoders raise whatever they run into
        raise unreadable(name, error) from None


def to_plain(image: Image.Image) -> Image.Image:
    """A loaded image of any mode as mode L or RGB, alpha dropped.

    Raises:
        ClassificationError: UNSUPPORTED_FORMAT for pixels without an agreed range (32-bit, floating point).
    """
    mode = image.mode
    if mode == "P":
        return _from_palette(image)
    if mode == "RGBA" and _is_eight_bit_tiff(image):
        return _premultiplied(image)
    if mode.startswith("I;16") or (mode == "I" and image.format in ("PPM", "PNG")):
        return _high_byte(image)
    if mode not in _STEPS:
        raise _unsupported(f"pixels of mode {mode} have no agreed range: convert the image to 8 or 16 bits a sample")
    for step in _STEPS[mode]:
        image = image.convert(step)
    return image


def orientation(image: Image.Image) -> Image.Transpose | None:
    """How the EXIF data asks for the image to be turned, where OpenCV heeds it."""
    exif = image.info.get("exif")
    if image.format not in _ORIENTED_BY_EXIF or not isinstance(exif, bytes):
        return None
    if image.format == "WEBP" and exif.startswith(_EXIF_MARK):
        return None  # no part of the chunk by WebP's specification, and OpenCV reads on from there
    return _TRANSPOSE.get(exif_orientation(exif))


def exif_orientation(exif: bytes) -> int:
    """The orientation of the first directory, 1 to 8; 1 for anything malformed.

    Read by hand: only this tag is wanted, of bytes that nobody vouches for.
    Source: TIFF 6.0, section 2; Exif 2.32, 4.6.4.
    """
    body = exif.removeprefix(_EXIF_MARK)
    order = {b"II": "<", b"MM": ">"}.get(body[:2])
    if order is None:
        return 1
    try:
        return _orientation_entry(body, order)
    except struct.error:
        return 1  # the directory points outside of the data: as good as none


def _orientation_entry(body: bytes, order: str) -> int:
    (directory_at,) = struct.unpack_from(order + "I", body, 4)
    (entry_count,) = struct.unpack_from(order + "H", body, directory_at)
    for index in range(min(entry_count, 512)):
        tag, _, _, value = struct.unpack_from(order + "HHIH", body, directory_at + 2 + 12 * index)
        if tag == _ORIENTATION_TAG:
            return int(value) if 1 <= value <= 8 else 1
    return 1


def complete_jpeg(image: ImageFile.ImageFile, data: bytes | bytearray) -> bool:
    """Whether an end marker follows the first scan of a JPEG whose header was read.

    libjpeg fills what a truncated file lacks with grey and only warns, so this is asked before a decoder
    that would return such a picture.
    """
    return image.fp is not None and data.rfind(b"\xff\xd9", image.fp.tell()) >= 0


def invalid(message: str) -> ClassificationError:
    return ClassificationError(ErrorCode.INVALID_IMAGE, message)


def unreadable(name: str, error: BaseException) -> ClassificationError:
    """The decoder's own words are left out where they could quote the file."""
    if isinstance(error, ClassificationError):
        return error
    if isinstance(error, MemoryError):
        return invalid(f"decoding the {name} needs more memory than there is")
    reason = str(error) if isinstance(error, OSError) and "truncated" in str(error) else type(error).__name__
    return invalid(f"the {name} cannot be decoded: {reason}")


def _unsupported(message: str) -> ClassificationError:
    return ClassificationError(ErrorCode.UNSUPPORTED_FORMAT, message)


def opencv_only(found: Format) -> ClassificationError:
    return _unsupported(
        f"{found.name} is read by OpenCV alone: pip install 'athena-async[opencv]' "
        "and leave preprocess.resizer at 'auto' or 'opencv'"
    )


def _from_palette(image: Image.Image) -> Image.Image:
    if "transparency" not in image.info:
        return image.convert("RGB")
    background, transparent = image.info.get("background"), image.info["transparency"]
    opaque = image.convert("RGBA").convert("RGB")
    if image.format == "GIF" and isinstance(background, int) and isinstance(transparent, int):
        _paint(opaque, image, transparent, background)
    return opaque


def _paint(target: Image.Image, indexed: Image.Image, transparent: int, background: int) -> None:
    """Transparent pixels of a GIF show its background colour, which a first frame lies on."""
    palette = indexed.getpalette("RGB") or []
    colour = tuple(palette[3 * background : 3 * background + 3])
    if len(colour) == 3:
        mask = Image.frombytes("L", indexed.size, indexed.tobytes()).point(
            [255 if index == transparent else 0 for index in range(256)]
        )
        target.paste(colour, (0, 0), mask)


def _is_eight_bit_tiff(image: Image.Image) -> bool:
    tags: Any = getattr(image, "tag_v2", None)
    return image.format == "TIFF" and tags is not None and max(tags.get(258, (8,))) == 8


def _premultiplied(image: Image.Image) -> Image.Image:
    """OpenCV reads an 8-bit TIFF with alpha by TIFFReadRGBA, which lays it on black."""
    black = Image.new("RGB", image.size)
    black.paste(image.convert("RGB"), (0, 0), image.getchannel("A"))
    return black


def _high_byte(image: Image.Image) -> Image.Image:
    """The high byte of 16-bit grey: OpenCV shifts, Pillow's own conversion would clip at 255."""
    stride, offset = (4, 1) if image.mode == "I" else (2, 0 if image.mode == "I;16B" else 1)
    return Image.frombytes("L", image.size, image.tobytes()[offset::stride])
