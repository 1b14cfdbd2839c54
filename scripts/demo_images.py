"""The demo's images: real photographs in every common format, many sizes, and two broken files.

All derive from the benign photographs inside the scikit-image wheel. They are made once, into a cache.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

PHOTOGRAPHS = ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "hubble_deep_field.jpg", "retina.jpg")
BROKEN = frozenset({"truncated.jpg", "notes.png"})
"""Names of the two files that are no readable image."""

_RECIPE = 1
"""Changes with the recipes below, so that a cache of older ones is made anew."""

_ORIENTATION_TAG = 0x0112

Save = Callable[[Image.Image, Path], None]


def ensure_demo_images(cache: Path, before: Callable[[], object] = lambda: None) -> Path:
    """Makes the images unless they are there, and returns their folder.

    A folder is whole or not there: it gets its name when its last file is written.

    Args:
        cache: where the folder stands.
        before: called when the images are still to be made.
    """
    folder = cache / f"demo-images-{_RECIPE}"
    if folder.is_dir():
        return folder
    before()
    unfinished = cache / f"demo-images-{_RECIPE}.{os.getpid()}.tmp"
    unfinished.mkdir(parents=True)
    try:
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            for _ in threads.map(lambda name: _derive(name, unfinished), PHOTOGRAPHS):
                pass
        _write_broken(unfinished)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _derive(name: str, folder: Path) -> None:
    with Image.open(photograph(name)) as opened:
        photo = opened.convert("RGB")
    stem = name.partition(".")[0]
    for variant, width, save in _variants():
        save(_at_width(photo, width), folder / f"{stem}-{variant}")


def photograph(name: str) -> Path:
    """Path of a photograph in the installed scikit-image, without importing it."""
    package = find_spec("skimage")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("demo: scikit-image is not installed; `make demo` installs it")
    return Path(package.submodule_search_locations[0]) / "data" / name


def _at_width(photo: Image.Image, width: int) -> Image.Image:
    return photo.resize((width, round(photo.height * width / photo.width)), Image.Resampling.BICUBIC)


def _variants() -> Iterator[tuple[str, int, Save]]:
    """End of the file's name, width in pixels, and how to save."""
    for width in (320, 640, 1024, 1600, 2560):
        yield f"{width}.jpg", width, _as("JPEG", quality=85)
    yield "rough.jpg", 640, _as("JPEG", quality=40)
    yield "progressive.jpg", 1024, _as("JPEG", quality=85, progressive=True)
    yield "grey.jpg", 800, _as("JPEG", mode="L", quality=85)
    yield "cmyk.jpg", 800, _as("JPEG", mode="CMYK", quality=85)
    for orientation in (3, 6, 8):
        yield f"turned-{orientation}.jpg", 800, _turned(orientation)
    for width in (160, 448, 640, 1280):
        yield f"{width}.png", width, _as("PNG", compress_level=1)
    yield "palette.png", 640, _as("PNG", mode="P")
    yield "grey.png", 640, _as("PNG", mode="L")
    yield "alpha.png", 640, _as("PNG", mode="RGBA", compress_level=1)
    yield "16-bit.png", 640, _sixteen_bit
    yield "320.webp", 320, _as("WEBP", quality=80)
    yield "1280.webp", 1280, _as("WEBP", quality=80)
    yield "lossless.webp", 640, _as("WEBP", lossless=True, method=0)
    yield "320.gif", 320, _as("GIF")
    yield "640.gif", 640, _as("GIF")
    yield "animated.gif", 320, _animated
    yield "320.bmp", 320, _as("BMP")
    yield "1600.bmp", 1600, _as("BMP")
    yield "lzw.tif", 640, _as("TIFF", compression="tiff_lzw")
    yield "deflate.tif", 1024, _as("TIFF", compression="tiff_adobe_deflate")
    yield "plain.tif", 1280, _as("TIFF")
    yield "640.ppm", 640, _as("PPM")
    yield "1600.ppm", 1600, _as("PPM")
    yield "640.pgm", 640, _as("PPM", mode="L")


def _as(format_name: str, mode: str = "RGB", **options: object) -> Save:
    def save(photo: Image.Image, path: Path) -> None:
        photo.convert(mode).save(path, format_name, **options)

    return save


def _turned(orientation: int) -> Save:
    """The photograph lies on its side or head, and EXIF says how to put it upright."""
    turn = {
        3: Image.Transpose.ROTATE_180,
        6: Image.Transpose.ROTATE_90,
        8: Image.Transpose.ROTATE_270,
    }[orientation]

    def save(photo: Image.Image, path: Path) -> None:
        exif = Image.Exif()
        exif[_ORIENTATION_TAG] = orientation
        photo.transpose(turn).save(path, "JPEG", quality=85, exif=exif)

    return save


def _sixteen_bit(photo: Image.Image, path: Path) -> None:
    import numpy as np

    grey = np.asarray(photo.convert("L"), dtype=np.uint16)
    Image.fromarray(grey * 257).save(path, "PNG", compress_level=1)


def _animated(photo: Image.Image, path: Path) -> None:
    others = [photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT), photo.transpose(Image.Transpose.FLIP_TOP_BOTTOM)]
    photo.save(path, "GIF", save_all=True, append_images=others, duration=200)


def _write_broken(folder: Path) -> None:
    """A JPEG that ends half-way, and a text under an image's name."""
    whole = (folder / "astronaut-1024.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "notes.png").write_text("This is a text, whatever its name says.\n")
