"""From the bytes of one image to what is sent of it: pure functions, run in a worker thread or process.

Neither gRPC nor the generated messages are imported here, so that a worker process starts small.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, cast

from PIL import Image, ImageFile

from athena_async.config import IMAGE_SIDE, RAW_FRAME_BYTES, PreprocessConfig
from athena_async.errors import ClassificationError, ErrorCode
from athena_async.images import decode, formats, resize
from athena_async.images.encode import Pixels, Rendered, encode, wants_rgb
from athena_async.images.formats import Format

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


_LOADING = tuple(threading.Lock() for _ in range(64))
"""Held while a caller's picture is loaded: the same one may be handed in twice, and loading is not for two threads."""


def render_bytes(data: bytes | bytearray, config: PreprocessConfig, encoding: str) -> Rendered:
    """An encoded image as it will be sent.

    Raises:
        ClassificationError: INVALID_IMAGE or UNSUPPORTED_FORMAT.
    """
    if not data:
        raise decode.invalid("the image has 0 bytes")
    head = bytes(data[: formats.HEAD_BYTES])
    found = _identify(head, len(data))
    if not config.resize:
        return _untouched(data, head, found, config)
    if found.plugin:
        return encode(_pixels(data, found, config, encoding), encoding)
    return encode(_opencv_pixels(data, head, found, config), encoding)


def render_picture(image: Image.Image, config: PreprocessConfig, encoding: str) -> Rendered:
    """A PIL image as it will be sent. The image itself is loaded where it was not, and else left alone.

    Raises:
        ClassificationError: INVALID_IMAGE or UNSUPPORTED_FORMAT.
    """
    decode.check_pixels(image.size, config.max_pixels)
    if not config.resize and image.size != resize.SIZE:
        raise _wrong_size(image.size)
    with _LOADING[id(image) // 64 % len(_LOADING)]:
        decode.load(image, image.format or "PIL image")
    return encode(_resized(image, config, encoding), encoding)


def render_array(array: Any, encoding: str) -> Rendered:
    """A (448, 448, 3) uint8 BGR array or cast memoryview as it will be sent: untouched where contiguous."""
    return encode(resize.contiguous(array), encoding)


def _identify(head: bytes, size_bytes: int) -> Format:
    try:
        return formats.identify(head)
    except ClassificationError as error:
        if size_bytes != RAW_FRAME_BYTES:
            raise
        hint = "raw BGR pixels are handed in as a numpy array or memoryview of shape (448, 448, 3)"
        raise ClassificationError(error.code, f"{error.message}; {hint}") from None


def _pixels(data: bytes | bytearray, found: Format, config: PreprocessConfig, encoding: str) -> Pixels:
    image = decode.open_header(data, found, config.max_pixels)
    if found is formats.JPEG:
        return _jpeg_pixels(image, data, config, encoding)
    decode.load(image, found.name)
    return _resized(image, config, encoding)


def _jpeg_pixels(
    image: ImageFile.ImageFile, data: bytes | bytearray, config: PreprocessConfig, encoding: str
) -> Pixels:
    """JPEG is most of what is classified, so OpenCV decodes it where it is there: no copy between libraries.

    A file without end marker goes to Pillow, which tells truncated ones; so does what OpenCV refuses.
    """
    scale = resize.dct_scale(image.size) if config.resampling == "antialias" else 1
    if resize.uses_opencv(config.resizer) and decode.complete_jpeg(image, data):
        pixels = _imdecode(data, scale)
        if pixels is not None and pixels.ndim == 3:
            return resize.with_opencv(pixels, config.resampling)
    if scale > 1:
        width, height = image.size
        image.draft(None, (width // scale, height // scale))
    decode.load(image, "JPEG")
    return _resized(image, config, encoding)


def _resized(image: Image.Image, config: PreprocessConfig, encoding: str) -> Pixels:
    turn = decode.orientation(image)
    plain = decode.to_plain(image)
    if not resize.uses_opencv(config.resizer):
        return resize.with_pillow(plain, config.resampling, turn)
    import cv2
    import numpy as np

    turned = plain if turn is None else plain.transpose(turn)
    # Colours are swapped on the small image, if at all: resizing treats the samples of a pixel alike.
    small = resize.with_opencv(np.asarray(turned), config.resampling)
    if wants_rgb(encoding):
        return resize.in_colour(Image.frombytes(turned.mode, resize.SIZE, small))
    colour = cv2.COLOR_GRAY2BGR if turned.mode == "L" else cv2.COLOR_RGB2BGR
    shape = (IMAGE_SIDE, IMAGE_SIDE) if turned.mode == "L" else (IMAGE_SIDE, IMAGE_SIDE, 3)
    return resize.contiguous(cv2.cvtColor(np.frombuffer(small, np.uint8).reshape(shape), colour))


def _opencv_pixels(data: bytes | bytearray, head: bytes, found: Format, config: PreprocessConfig) -> memoryview:
    """The formats that Pillow does not read. OpenCV tells no size in advance, so the header is read here."""
    if not resize.uses_opencv(config.resizer):
        raise decode.opencv_only(found)
    size = formats.header_size(found, head)
    if size is None:
        raise decode.invalid(f"the {found.name} cannot be decoded: its header is not valid")
    decode.check_pixels(size, config.max_pixels)
    pixels = _imdecode(data, 1)
    if pixels is None:
        raise decode.invalid(f"the {found.name} cannot be decoded: OpenCV refuses it")
    return resize.with_opencv(_three_samples(pixels), config.resampling)


def _imdecode(data: bytes | bytearray, scale: int) -> NDArray[np.uint8] | None:
    """(height, width, 3) uint8 BGR at 1/``scale`` of the size, or None where OpenCV refuses."""
    import cv2
    import numpy as np

    flags = {
        1: cv2.IMREAD_COLOR,
        2: cv2.IMREAD_REDUCED_COLOR_2,
        4: cv2.IMREAD_REDUCED_COLOR_4,
        8: cv2.IMREAD_REDUCED_COLOR_8,
    }
    try:
        pixels: Any = cv2.imdecode(np.frombuffer(data, np.uint8), flags[scale])
    except cv2.error:
        return None
    return cast("NDArray[np.uint8] | None", pixels)


def _three_samples(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """OpenCV returns a grey PFM with one sample a pixel in spite of IMREAD_COLOR."""
    import numpy as np

    return pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2)


def _untouched(data: bytes | bytearray, head: bytes, found: Format, config: PreprocessConfig) -> Rendered:
    if found.wire is None:
        raise ClassificationError(
            ErrorCode.UNSUPPORTED_FORMAT,
            f"the service takes no {found.name} files as they are: leave preprocess.resize on",
        )
    if found.plugin:
        size = decode.open_header(data, found, config.max_pixels).size
    else:
        size = formats.header_size(found, head) or (0, 0)
    if size != resize.SIZE:
        raise _wrong_size(size)
    return Rendered(bytes(data), found.wire)


def _wrong_size(size: tuple[int, int]) -> ClassificationError:
    return decode.invalid(
        f"the image has {size[0]}x{size[1]} pixels, but must have {IMAGE_SIDE}x{IMAGE_SIDE} "
        "where preprocess.resize is off"
    )
