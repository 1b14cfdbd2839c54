"""Lossless compression of 448x448 BGR pixels for the wire, never larger than the pixels themselves."""

from __future__ import annotations

import importlib.util
import io
from typing import NamedTuple

from PIL import Image, features

from athena_async.config import IMAGE_SIDE, RAW_FRAME_BYTES
from athena_async.errors import ConfigError, MissingExtraError

RAW = "RAW_UINT8_BGR"


class Rendered(NamedTuple):
    """What is sent of an image, in the words of the wire but without its messages.

    Attributes:
        data: the bytes.
        format: name of the `wire.ImageFormat`.
        brotli: whether they are compressed once more by Brotli.
    """

    data: bytes | memoryview
    format: str = RAW
    brotli: bool = False


Pixels = bytes | memoryview | Image.Image
"""Of 448x448: bytes in B, G, R order, or an image of mode RGB that nobody else holds, turned around only if needed."""

_FILES = frozenset({"webp", "png"})


def wants_rgb(encoding: str) -> bool:
    """Whether an encoder takes a Pillow image, so that bytes in another order would have to be turned back."""
    return encoding in _FILES


def encode(pixels: Pixels, encoding: str) -> Rendered:
    """Encodes pixels without loss, or leaves them raw where that is no smaller.

    Args:
        encoding: ``none``, ``webp`` (lossless, its fastest), ``png`` (level 1) or ``brotli`` (quality 2).
    """
    if encoding in _FILES:
        smaller = _file(pixels, encoding)
        return smaller if len(smaller.data) < RAW_FRAME_BYTES else Rendered(_bgr(pixels))
    raw = Rendered(_bgr(pixels))
    if encoding == "none":
        return raw
    smaller = _brotli(raw.data)
    return smaller if len(smaller.data) < RAW_FRAME_BYTES else raw


def check_encoding(encoding: str) -> None:
    """Whether what an encoding needs is installed.

    Raises:
        MissingExtraError: Brotli is not.
        ConfigError: this Pillow has no WebP codec.
    """
    if encoding == "brotli" and importlib.util.find_spec("brotli") is None:
        raise MissingExtraError("preprocess.encoding='brotli'", "brotli")
    if encoding == "webp" and not has_webp():
        raise ConfigError("preprocess.encoding", encoding, "another one, since this Pillow has no WebP codec")


def has_webp() -> bool:
    """Whether ``auto`` may choose WebP."""
    return bool(features.check("webp"))


def _bgr(pixels: Pixels) -> bytes | memoryview:
    return pixels.tobytes("raw", "BGR") if isinstance(pixels, Image.Image) else pixels


def _file(pixels: Pixels, encoding: str) -> Rendered:
    if isinstance(pixels, Image.Image):
        image = pixels
        image.info = {}  # the profile and the texts of the original, which the encoders would write along
    else:
        image = Image.frombytes("RGB", (IMAGE_SIDE, IMAGE_SIDE), pixels, "raw", "BGR")
    file = io.BytesIO()
    if encoding == "webp":
        image.save(file, "WEBP", lossless=True, method=0, quality=0)
        return Rendered(file.getvalue(), "WEBP")
    image.save(file, "PNG", compress_level=1)
    return Rendered(file.getvalue(), "PNG")


def _brotli(pixels: bytes | memoryview) -> Rendered:
    import brotli

    return Rendered(brotli.compress(pixels, quality=2), brotli=True)
