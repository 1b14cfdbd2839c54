"""To 448x448 pixels in BGR order, by Pillow alone or by OpenCV.

``bilinear`` is what the official client computes: two taps at half-pixel centres, no antialiasing, the
aspect ratio not kept. OpenCV's INTER_LINEAR is that very computation; Pillow's affine transform is at
most one level away from it.

``antialias`` averages over what a target pixel covers, and starts from a JPEG decoded at 1/2, 1/4 or
1/8 of its size by the decoder's DCT scaling where that leaves at least 448 pixels.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import TYPE_CHECKING, Any

from PIL import Image

from athena_async.config import IMAGE_SIDE, Resampling, Resizer
from athena_async.errors import MissingExtraError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIZE = (IMAGE_SIDE, IMAGE_SIDE)


@cache
def has_opencv() -> bool:
    """Whether the ``opencv`` extra is installed; nothing is imported."""
    return importlib.util.find_spec("cv2") is not None and importlib.util.find_spec("numpy") is not None


def uses_opencv(resizer: Resizer) -> bool:
    """What a configured resizer comes down to here.

    Raises:
        MissingExtraError: ``opencv`` is asked for and not installed.
    """
    if resizer == "opencv" and not has_opencv():
        raise MissingExtraError("preprocess.resizer='opencv'", "opencv")
    return resizer != "pillow" and has_opencv()


def dct_scale(size: tuple[int, int]) -> int:
    """The largest of 8, 4, 2 and 1 by which a JPEG can be scaled down and keep 448 pixels each way."""
    return next((scale for scale in (8, 4, 2) if min(size) >= scale * IMAGE_SIDE), 1)


def with_pillow(image: Image.Image, resampling: Resampling, turn: Image.Transpose | None) -> bytes:
    """Resizes and turns an image of mode L or RGB.

    The turn comes last, on the small image: the target is square and half-pixel centres are symmetric,
    so the order makes no difference.

    Returns:
        448 * 448 * 3 bytes, rows of B, G, R.
    """
    small = _two_taps(image) if resampling == "bilinear" else image.resize(SIZE, Image.Resampling.BILINEAR)
    if turn is not None:
        small = small.transpose(turn)
    return small.convert("RGB").tobytes("raw", "BGR")


def with_opencv(pixels: NDArray[np.uint8], resampling: Resampling) -> memoryview:
    """Resizes (height, width, 3) uint8 BGR.

    Returns:
        448 * 448 * 3 bytes, rows of B, G, R, without a copy.
    """
    import cv2

    height, width = pixels.shape[:2]
    if (width, height) != SIZE:
        shrinks_much = resampling == "antialias" and max(width, height) >= 2 * IMAGE_SIDE
        way = cv2.INTER_AREA if shrinks_much else cv2.INTER_LINEAR
        return contiguous(cv2.resize(pixels, SIZE, interpolation=way))
    return contiguous(pixels)


def contiguous(pixels: Any) -> memoryview:
    """An array or a cast memoryview as flat bytes; copied only where it is not contiguous."""
    view = memoryview(pixels)
    return view.cast("B") if view.c_contiguous else memoryview(view.tobytes())


def _two_taps(image: Image.Image) -> Image.Image:
    width, height = image.size
    if width <= IMAGE_SIDE and height <= IMAGE_SIDE:
        return image.resize(SIZE, Image.Resampling.BILINEAR)  # has two taps too where it enlarges, and is faster
    return image.transform(
        SIZE,
        Image.Transform.AFFINE,
        (width / IMAGE_SIDE, 0, 0, 0, height / IMAGE_SIDE, 0),
        Image.Resampling.BILINEAR,
    )
