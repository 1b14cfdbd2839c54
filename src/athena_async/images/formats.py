"""The formats on the allow-list, recognised by their first bytes and never by a file's name.

Each has one opener of Pillow, or none where only OpenCV reads it. Nothing off the list reaches a decoder.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from athena_async.errors import ClassificationError, ErrorCode

HEAD_BYTES = 512
"""How much of a file `identify` and `header_size` look at."""


@dataclass(frozen=True, slots=True)
class Format:
    """One format.

    Attributes:
        name: for messages.
        wire: name of the `wire.ImageFormat` under which the file itself may be sent; None where there is none.
        plugin: module of Pillow that reads it; empty where only OpenCV does.
        opener: name of the class in that module.
        feature: what `PIL.features` must report for it; empty where every Pillow reads it.
    """

    name: str
    wire: str | None
    plugin: str = ""
    opener: str = ""
    feature: str = ""


JPEG = Format("JPEG", "JPEG", "JpegImagePlugin", "JpegImageFile", "jpg")
PNG = Format("PNG", "PNG", "PngImagePlugin", "PngImageFile", "zlib")
GIF = Format("GIF", "GIF", "GifImagePlugin", "GifImageFile")
WEBP = Format("WebP", "WEBP", "WebPImagePlugin", "WebPImageFile", "webp")
BMP = Format("BMP", "BMP", "BmpImagePlugin", "BmpImageFile")
DIB = Format("DIB", "DIB", "BmpImagePlugin", "DibImageFile")
TIFF = Format("TIFF", "TIFF", "TiffImagePlugin", "TiffImageFile")
PBM = Format("PBM", "PBM", "PpmImagePlugin", "PpmImageFile")
PGM = Format("PGM", "PGM", "PpmImagePlugin", "PpmImageFile")
PPM = Format("PPM", "PPM", "PpmImagePlugin", "PpmImageFile")
SUN = Format("Sun raster", "RAS", "SunImagePlugin", "SunImageFile")
JPEG2000 = Format("JPEG 2000", None, "Jpeg2KImagePlugin", "Jpeg2KImageFile", "jpg_2000")
AVIF = Format("AVIF", None, "AvifImagePlugin", "AvifImageFile", "avif")
HDR = Format("Radiance HDR", "HDR")
PFM = Format("PFM", "PFM")
PAM = Format("PAM", "PXM")

_MAGIC: tuple[tuple[bytes, Format], ...] = (
    (b"\xff\xd8\xff", JPEG),
    (b"\x89PNG\r\n\x1a\n", PNG),
    (b"GIF87a", GIF),
    (b"GIF89a", GIF),
    (b"BM", BMP),
    (b"II*\0", TIFF),
    (b"MM\0*", TIFF),
    (b"II+\0", TIFF),
    (b"MM\0+", TIFF),
    (b"\x59\xa6\x6a\x95", SUN),
    (b"\0\0\0\x0cjP  \r\n\x87\n", JPEG2000),
    (b"\xff\x4f\xff\x51", JPEG2000),
    (b"#?RADIANCE", HDR),
    (b"#?RGBE", HDR),
)
_PORTABLE = {"1": PBM, "4": PBM, "2": PGM, "5": PGM, "3": PPM, "6": PPM, "7": PAM, "F": PFM, "f": PFM}
_DIB_HEADER_BYTES = frozenset({12, 40, 52, 56, 64, 108, 124})

# Known by sight, for a message that helps, and read by nothing here.
_FOREIGN: tuple[tuple[bytes, str], ...] = (
    (b"%PDF", "PDF"),
    (b"8BPS", "PSD"),
    (b"\0\0\1\0", "ICO"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\x53\x80\xf6\x34", "Softimage PIC"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"<svg", "SVG"),
    (b"<?xml", "XML or SVG"),
    (b"<!DOCTYPE", "HTML"),
    (b"<html", "HTML"),
    (b"PK\3\4", "ZIP"),
    (b"\x1a\x45\xdf\xa3", "Matroska or WebM video"),
)


def identify(head: bytes) -> Format:
    """The format of a file by its first `HEAD_BYTES`.

    Raises:
        ClassificationError: UNSUPPORTED_FORMAT for what is not on the allow-list.
    """
    for magic, found in _MAGIC:
        if head.startswith(magic):
            return found
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return WEBP
    if re.match(rb"P[1-7Ff]\s", head):
        return _PORTABLE[chr(head[1])]
    if head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis"):
        return AVIF
    if _is_dib(head):
        return DIB
    raise ClassificationError(ErrorCode.UNSUPPORTED_FORMAT, _refusal(head))


def header_size(found: Format, head: bytes) -> tuple[int, int] | None:
    """Width and height by the header, for the formats that Pillow does not read; None without a valid one."""
    if found is HDR:
        match = re.search(rb"\n[-+]Y (\d{1,9}) [-+]X (\d{1,9})\n", head)
        return (int(match[2]), int(match[1])) if match else None
    if found is PAM:
        width, height = re.search(rb"\nWIDTH\s+(\d{1,9})\s", head), re.search(rb"\nHEIGHT\s+(\d{1,9})\s", head)
        return (int(width[1]), int(height[1])) if width and height else None
    match = re.match(rb"P[Ff]\s+(\d{1,9})\s+(\d{1,9})\s", head)
    return (int(match[1]), int(match[2])) if match else None


def _is_dib(head: bytes) -> bool:
    """A bitmap without file header has no magic: its header size and its one plane must do."""
    if len(head) < 16:
        return False
    (header_bytes,) = struct.unpack_from("<I", head)
    planes_at = 8 if header_bytes == 12 else 12
    return header_bytes in _DIB_HEADER_BYTES and struct.unpack_from("<H", head, planes_at) == (1,)


def _refusal(head: bytes) -> str:
    if not head:
        return "the image has 0 bytes"
    if head[4:8] == b"ftyp":
        name = "HEIF" if head[8:12] in (b"heic", b"heix", b"heif", b"mif1", b"msf1", b"hevc") else "ISO media (video)"
    else:
        start = head.lstrip().lower()
        name = next((name for magic, name in _FOREIGN if start.startswith(magic.lower())), "")
    accepted = "JPEG, PNG, WebP, GIF, BMP, TIFF, PBM/PGM/PPM, Sun raster, JPEG 2000, AVIF, HDR, PFM or PAM"
    return f"{name or 'the content'} is not an accepted image format: convert it to {accepted}"
