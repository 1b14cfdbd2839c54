"""Photographs, and a picture whose every pixel is known."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import skimage
from PIL import Image

from athena_async.config import PreprocessConfig
from athena_async.images import resize
from athena_async.images.inputs import to_source
from athena_async.images.preprocess import prepare

PHOTOGRAPHS = ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "hubble_deep_field.jpg", "retina.jpg")

# Red and green above, blue and white below, as R, G, B.
CORNERS = ((200, 10, 20), (30, 180, 40), (50, 60, 220), (250, 240, 230))


@pytest.fixture(params=PHOTOGRAPHS)
def photograph(request: pytest.FixtureRequest) -> Image.Image:
    path = Path(skimage.__file__).parent / "data" / request.param
    if not path.is_file():
        pytest.skip(f"this scikit-image comes without {request.param}")
    with Image.open(path) as image:
        return image.convert("RGB")


@pytest.fixture
def astronaut() -> Image.Image:
    with Image.open(Path(skimage.__file__).parent / "data" / "astronaut.png") as image:
        return image.convert("RGB")


@pytest.fixture
def corners() -> Image.Image:
    """448x448 RGB, one colour per quarter: nothing is resampled, so every rule shows in exact values."""
    image = Image.new("RGB", (448, 448))
    for index, colour in enumerate(CORNERS):
        left, top = 224 * (index % 2), 224 * (index // 2)
        image.paste(colour, (left, top, left + 224, top + 224))
    return image


@pytest.fixture
def encoded() -> Callable[..., bytes]:
    def encode(image: Image.Image, name: str, **options: Any) -> bytes:
        file = io.BytesIO()
        image.save(file, name, **options)
        return file.getvalue()

    return encode


@pytest.fixture(params=["pillow", "opencv"])
def resizer(request: pytest.FixtureRequest) -> str:
    if request.param == "opencv" and not resize.has_opencv():
        pytest.skip("the opencv extra is not installed")
    return str(request.param)


@pytest.fixture
def quarters(resizer: str) -> Callable[[object], tuple[tuple[int, ...], ...]]:
    """Prepares an image and reads one pixel of each quarter, as R, G, B."""

    def read(image: object) -> tuple[tuple[int, ...], ...]:
        pixels = bytes(prepare(to_source(image), PreprocessConfig(resizer=resizer), "none").data)  # type: ignore[arg-type]
        assert len(pixels) == 448 * 448 * 3
        places = [(112, 112), (336, 112), (112, 336), (336, 336)]
        return tuple(tuple(pixels[3 * (448 * y + x) :][:3][::-1]) for x, y in places)

    return read
