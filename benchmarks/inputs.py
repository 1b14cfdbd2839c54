"""What is classified: benign photographs from the scikit-image package, enlarged or re-encoded, and made-up hashes."""

from __future__ import annotations

import hashlib
import io
import itertools
from functools import cache
from pathlib import Path

from PIL import Image

from athena_async.config import IMAGE_SIDE

PHOTOGRAPHS = ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "hubble_deep_field.jpg", "retina.jpg")


@cache
def _photograph(name: str) -> Image.Image:
    import skimage

    with Image.open(Path(skimage.__file__).parent / "data" / name) as image:
        return image.convert("RGB")


@cache
def jpegs(width: int, height: int, quality: int = 85) -> tuple[bytes, ...]:
    """The photographs as JPEG files of this size in pixels."""
    found = []
    for name in PHOTOGRAPHS:
        buffer = io.BytesIO()
        _photograph(name).resize((width, height), Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=quality)
        found.append(buffer.getvalue())
    return tuple(found)


@cache
def frames() -> tuple[bytes, ...]:
    """The photographs as raw (448, 448, 3) uint8 BGR frames."""
    side = (IMAGE_SIDE, IMAGE_SIDE)
    return tuple(_photograph(name).resize(side).tobytes("raw", "BGR") for name in PHOTOGRAPHS)


def repeated(images: tuple[bytes, ...], count: int) -> list[bytes]:
    """``count`` images, taken in turn. Equal ones share their memory."""
    return list(itertools.islice(itertools.cycle(images), count))


def tiny(count: int) -> list[bytes]:
    """Different byte strings of 50 bytes: what the official client is given in place of hashes."""
    return [b"%050d" % i for i in range(count)]


@cache
def digests(count: int) -> tuple[str, ...]:
    """MD5 digests of nothing in particular, for hash-only inputs."""
    return tuple(hashlib.md5(b"%d" % i).hexdigest() for i in range(count))
