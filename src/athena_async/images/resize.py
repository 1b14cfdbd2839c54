"""To 448x448 pixels in BGR order, by Pillow alone or by OpenCV.

``bilinear`` is what the official client computes: two taps at half-pixel centres, no antialiasing, the
aspect ratio not kept. OpenCV's INTER_LINEAR is that very computation; Pillow's affine transform is at
most one level away from it, and so is a lattice of finer steps on Pillow-SIMD, which is faster there.

``antialias`` averages over what a target pixel covers, and starts from a JPEG decoded at 1/2, 1/4 or
1/8 of its size by the decoder's DCT scaling where that leaves at least 448 pixels.
"""

from __future__ import annotations

import importlib.util
import math
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import PIL
from PIL import Image

from athena_async.config import IMAGE_SIDE, Resampling, Resizer
from athena_async.errors import MissingExtraError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIZE = (IMAGE_SIDE, IMAGE_SIDE)

_LATTICE_MAX_PIXELS = 5_000_000
"""What a lattice may compute and still be faster: at 0.7 ns a pixel, where the affine transform takes 3.5 ms in all."""
_LATTICE_MAX_SIDE = 4096
"""Pillow takes a box in single precision: up to here its edges are off by less than 1/4000 of a pixel."""
_BAND_ROWS = 112
"""A divisor of 448."""


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


def with_pillow(image: Image.Image, resampling: Resampling, turn: Image.Transpose | None) -> Image.Image:
    """Resizes and turns an image of mode L or RGB.

    The turn comes last, on the small image: the target is square and half-pixel centres are symmetric,
    so the order makes no difference.

    Returns:
        448x448, mode RGB; a new image even where nothing is to be done.
    """
    small = _two_taps(image) if resampling == "bilinear" else image.resize(SIZE, Image.Resampling.BILINEAR)
    if turn is not None:
        small = small.transpose(turn)
    return in_colour(small)


def in_colour(image: Image.Image) -> Image.Image:
    """An image of mode L or RGB in mode RGB; `PIL.Image.Image.convert` copies even where there is nothing to do."""
    return image if image.mode == "RGB" else image.convert("RGB")


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


class _Lattice(NamedTuple):
    """Evenly spaced positions along one side, no more than a pixel apart: each ``stride``-th is a wanted one.

    Attributes:
        start, end: the box, in pixels, whose equal ``parts`` have the positions as their centres.
    """

    stride: int
    parts: int
    start: float
    end: float


def is_simd(version: str) -> bool:
    """Whether a version of Pillow is Pillow-SIMD's."""
    return "post" in version


def on_lattice(image: Image.Image) -> Image.Image:
    """Two taps by Pillow's filtering resize, which has two taps as long as it does not make smaller.

    The image is enlarged to a lattice that holds the wanted positions, rows before columns, and these are
    picked. Rounded twice, so at most one level from the exact value. In bands, so that what is in between
    stays in the cache, and in memory that malloc has at hand: fresh pages would cost more than is gained.

    Args:
        image: mode L or RGB, with no side over `_LATTICE_MAX_SIDE`.
    """
    small = Image.new(image.mode, SIZE)
    for first in range(0, IMAGE_SIDE, _BAND_ROWS):
        small.paste(_band(image, first), (0, first))
    return small


def _band(image: Image.Image, first: int) -> Image.Image:
    width, height = image.size
    rows, columns = _lattice(height, first, _BAND_ROWS), _lattice(width, 0, IMAGE_SIDE)
    tall = image.resize((width, rows.parts), Image.Resampling.BILINEAR, box=(0, rows.start, width, rows.end))
    flat = _every(tall, (width, _BAND_ROWS), 1, rows.stride)
    wide = flat.resize(
        (columns.parts, _BAND_ROWS), Image.Resampling.BILINEAR, box=(columns.start, 0, columns.end, _BAND_ROWS)
    )
    return _every(wide, (IMAGE_SIDE, _BAND_ROWS), columns.stride, 1)


def _two_taps(image: Image.Image) -> Image.Image:
    width, height = image.size
    if width <= IMAGE_SIDE and height <= IMAGE_SIDE:
        return image.resize(SIZE, Image.Resampling.BILINEAR)  # has two taps too where it enlarges, and is faster
    if _lattice_is_faster(image):
        return on_lattice(image)
    return image.transform(
        SIZE,
        Image.Transform.AFFINE,
        (width / IMAGE_SIDE, 0, 0, 0, height / IMAGE_SIDE, 0),
        Image.Resampling.BILINEAR,
    )


def _lattice_is_faster(image: Image.Image) -> bool:
    """On Pillow-SIMD, whose resize is some five times as fast as Pillow's; its resize of L is not."""
    if not is_simd(PIL.__version__) or image.mode != "RGB" or max(image.size) > _LATTICE_MAX_SIDE:
        return False
    width, height = image.size
    tall, wide = width * math.ceil(height / IMAGE_SIDE), IMAGE_SIDE * math.ceil(width / IMAGE_SIDE)
    return (tall + wide) * IMAGE_SIDE <= _LATTICE_MAX_PIXELS


def _lattice(length: int, first: int, count: int) -> _Lattice:
    """Along a side of ``length`` pixels, for ``count`` of the 448 target positions."""
    step = length / IMAGE_SIDE
    stride = math.ceil(step)
    part, parts = step / stride, (count - 1) * stride + 1
    start = (first + 0.5) * step - part / 2
    return _Lattice(stride, parts, max(start, 0.0), min(start + parts * part, length))


def _every(image: Image.Image, size: tuple[int, int], across: int, down: int) -> Image.Image:
    """The first of each ``across`` by ``down`` pixels."""
    ways = (across, 0, (1 - across) / 2, 0, down, (1 - down) / 2)
    return image.transform(size, Image.Transform.AFFINE, ways, Image.Resampling.NEAREST)
