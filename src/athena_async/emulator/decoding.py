"""From the bytes of an input to 448x448 BGR pixels, or to the service's kind of error."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from athena_async.config import IMAGE_SIDE, RAW_FRAME_BYTES
from athena_async.errors import ErrorCode
from athena_async.wire import Encoding, ImageFormat

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    Pixels = NDArray[np.uint8]

_FORMAT_NUMBERS = frozenset(int(member) for member in ImageFormat)
_NETPBM = frozenset(
    {
        ImageFormat.PBM,
        ImageFormat.PGM,
        ImageFormat.PPM,
        ImageFormat.PXM,
        ImageFormat.PNM,
        ImageFormat.PFM,
    }
)
_BITMAP = frozenset({ImageFormat.BMP, ImageFormat.DIB})
# What Pillow calls a format, and what the wire may call it. The families are those of OpenCV's readers.
_PILLOW_FORMATS = {
    "GIF": frozenset({ImageFormat.GIF}),
    "JPEG": frozenset({ImageFormat.JPEG}),
    "MPO": frozenset({ImageFormat.JPEG}),
    "BMP": _BITMAP,
    "DIB": _BITMAP,
    "PNG": frozenset({ImageFormat.PNG}),
    "WEBP": frozenset({ImageFormat.WEBP}),
    "PPM": _NETPBM,
    "SUN": frozenset({ImageFormat.SR, ImageFormat.RAS}),
    "TIFF": frozenset({ImageFormat.TIFF}),
}
# What Pillow does not read, by how it begins; Radiance files go by two names.
_RADIANCE = frozenset({ImageFormat.HDR, ImageFormat.PIC})
_OPENCV_FORMATS = {b"#?RADIANCE": _RADIANCE, b"#?RGBE": _RADIANCE, b"PF\n": _NETPBM}


class Refusal(Exception):
    """An input that is answered with an error. The message is what the service's answer says."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def unreadable(reason: str) -> Refusal:
    """The service's answer to an image that cannot be classified."""
    return Refusal(ErrorCode.UNSPECIFIED, f"Image Classification Error: {reason}")


def too_large(size_bytes: int, limit_bytes: int) -> Refusal:
    return Refusal(ErrorCode.IMAGE_TOO_LARGE, f"The image has {size_bytes} bytes or more; the limit is {limit_bytes}.")


def decompress(data: bytes, encoding: int, limit_bytes: int) -> bytes:
    """Undoes the encoding. The result, like the data itself, never exceeds ``limit_bytes``.

    Raises:
        Refusal: too large, badly compressed, or of an encoding that does not exist.
    """
    if len(data) > limit_bytes:
        raise too_large(len(data), limit_bytes)
    if encoding in (Encoding.UNSPECIFIED, Encoding.UNCOMPRESSED):
        return data
    if encoding != Encoding.BROTLI:
        raise unreadable(f"unknown encoding {encoding}")
    import brotli

    decompressor = brotli.Decompressor()
    try:
        out: bytes = decompressor.process(data, output_buffer_limit=limit_bytes + 1)
    except brotli.error:
        raise unreadable("the data is not Brotli") from None
    if len(out) > limit_bytes:
        raise too_large(len(out), limit_bytes)
    if not decompressor.is_finished():
        raise unreadable("the Brotli data is truncated")
    return out


def decode(data: bytes, image_format: int, *, strict: bool = True) -> Pixels:
    """Decodes an image of 448x448 pixels.

    Args:
        data: not compressed any more.
        image_format: number of the wire.
        strict: the data must be of the format that it is said to be.

    Returns:
        (448, 448, 3) uint8 BGR, orientation applied.

    Raises:
        Refusal: wrong size, wrong format or unreadable.
    """
    if image_format == ImageFormat.RAW_UINT8_BGR or (
        not strict and image_format == ImageFormat.UNSPECIFIED and len(data) == RAW_FRAME_BYTES
    ):
        return _raw(data)
    if strict and image_format == ImageFormat.UNSPECIFIED:
        raise unreadable("no image format is given")
    if strict and image_format not in _FORMAT_NUMBERS:
        raise unreadable(f"unknown image format {image_format}")
    magic = next((magic for magic in _OPENCV_FORMATS if data.startswith(magic)), None)
    if magic is not None:
        _check_format(_OPENCV_FORMATS[magic], image_format, strict)
        return _decode_with_opencv(data)
    return _decode_with_pillow(data, image_format, strict)


def _raw(data: bytes) -> Pixels:
    import numpy as np

    if len(data) != RAW_FRAME_BYTES:
        raise unreadable(f"a raw image has {RAW_FRAME_BYTES} bytes, this one {len(data)}")
    return np.frombuffer(data, np.uint8).reshape(IMAGE_SIDE, IMAGE_SIDE, 3)


def _decode_with_pillow(data: bytes, image_format: int, strict: bool) -> Pixels:
    import numpy as np
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(data), formats=tuple({"MPO", *_PILLOW_FORMATS} - {"MPO"})) as image:
            _check_format(_PILLOW_FORMATS.get(image.format or "", frozenset()), image_format, strict)
            _check_size(*image.size)
            upright = ImageOps.exif_transpose(image)
            pixels = np.asarray(_as_rgb(upright))
    except Refusal:
        raise
    except Exception as error:  # noqa: BLE001 - on hostile bytes decoders raise anything
        raise unreadable(f"the image cannot be decoded ({type(error).__name__})") from None
    return np.ascontiguousarray(pixels[:, :, ::-1])


def _as_rgb(image: Image.Image) -> Image.Image:
    """Alpha is dropped and depth cut to 8 bits, as OpenCV's colour reader does."""
    import numpy as np
    from PIL import Image

    if image.mode == "F":
        return Image.fromarray(np.rint(np.asarray(image)).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image, dtype=np.int64) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")


def _decode_with_opencv(data: bytes) -> Pixels:
    import numpy as np

    try:
        import cv2
    except ImportError:
        raise unreadable("this emulator has no reader for the format (it needs the opencv extra)") from None
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        decoded = None
    if decoded is None:
        raise unreadable("the image cannot be decoded")
    _check_size(decoded.shape[1], decoded.shape[0])
    return np.ascontiguousarray(decoded, dtype=np.uint8)


def _check_format(formats: frozenset[ImageFormat], image_format: int, strict: bool) -> None:
    if strict and image_format not in formats:
        raise unreadable(f"the data is not of the format {ImageFormat(image_format).name}")


def _check_size(width: int, height: int) -> None:
    if (width, height) != (IMAGE_SIDE, IMAGE_SIDE):
        raise unreadable(f"the image must be {IMAGE_SIDE}x{IMAGE_SIDE} pixels, this one is {width}x{height}")
