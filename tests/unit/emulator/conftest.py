"""The benign photographs, at the size that the service takes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

PHOTOGRAPHS = ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "hubble_deep_field.jpg", "retina.jpg")


@pytest.fixture(scope="session")
def photograph_paths() -> list[Path]:
    spec = importlib.util.find_spec("skimage")
    assert spec is not None
    assert spec.origin is not None
    return [Path(spec.origin).parent / "data" / name for name in PHOTOGRAPHS]


@pytest.fixture(scope="session")
def frames(photograph_paths: list[Path]) -> list[NDArray[np.uint8]]:
    """Each photograph as (448, 448, 3) uint8 BGR."""
    found = []
    for path in photograph_paths:
        with Image.open(path) as image:
            small = image.convert("RGB").resize((448, 448), Image.Resampling.BILINEAR)
        found.append(np.ascontiguousarray(np.asarray(small)[:, :, ::-1]))
    return found
