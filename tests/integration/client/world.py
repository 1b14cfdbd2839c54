"""Photographs, and a client on an emulator's socket: what the tests of the public interface share."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import anyio
from PIL import Image

from athena_async import AthenaClient, ClassificationResult, ClientConfig, ErrorCode, ImageInput, Outcome
from athena_async.emulator import Emulator, EmulatorConfig

MD5 = "0123456789abcdef" * 2
SHA1 = "0123456789" * 4
SAME = 0.02
"""Weights of the same picture, decoded and resized by other means, differ by less."""


def photograph(name: str) -> Path:
    """A file of the scikit-image wheel."""
    spec = find_spec("skimage")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "data" / name


def encoded(name: str, format: str, mode: str = "RGB", **options: Any) -> bytes:
    """A photograph as a file of another format."""
    file = io.BytesIO()
    with Image.open(photograph(name)) as image:
        image.convert(mode).save(file, format, **options)
    return file.getvalue()


def frame(name: str) -> Any:
    """A photograph as the official client makes it: decoded and resized by OpenCV, (448, 448, 3) uint8 BGR."""
    import cv2

    return cv2.resize(cv2.imread(str(photograph(name))), (448, 448), interpolation=cv2.INTER_LINEAR)


def hashes(count: int) -> list[ImageInput]:
    """Inputs that cost nothing to prepare."""
    return [ImageInput(md5=f"{number:032x}") for number in range(count)]


def endless(pulled: list[int]) -> Iterator[ImageInput]:
    """Inputs without end; ``pulled`` gets the number of each that was asked for."""
    number = 0
    while True:
        pulled.append(number)
        yield ImageInput(md5=f"{number:032x}")
        number += 1


def config(emulator: Emulator, **overrides: Any) -> ClientConfig:
    return ClientConfig(
        **({"endpoints": (emulator.address,), "affiliate": "acme", "tls": False, "timeout_s": 10.0} | overrides)
    )


@asynccontextmanager
async def service(
    emulated: EmulatorConfig | None = None, **overrides: Any
) -> AsyncIterator[tuple[AthenaClient, Emulator]]:
    """A client and the emulator that answers it; ``overrides`` are fields of the client's configuration."""
    async with (
        Emulator(emulated or EmulatorConfig()) as emulator,
        AthenaClient(config(emulator, **overrides)) as client,
    ):
        yield client, emulator


async def until(holds: Any) -> None:
    """Waits for a state that both sides of a socket must take part in."""
    with anyio.fail_after(10):
        while not holds():
            await anyio.sleep(0.005)


def assert_classified(results: list[ClassificationResult], count: int) -> None:
    """One result each, in input order, all of them good."""
    assert [result.index for result in results] == list(range(count))
    assert [result.error for result in results] == [None] * count
    assert all(result.ok and result.classifications and result.attempts == 1 for result in results)


def codes(results: list[ClassificationResult]) -> list[ErrorCode | None]:
    """The code of each result's error, None for those classified; an error never claims more than is known."""
    for result in results:
        assert result.ok == (result.outcome is Outcome.CLASSIFIED) == (result.error is None)
    return [result.error.code if result.error else None for result in results]


def distance(one: ClassificationResult, other: ClassificationResult) -> float:
    """The largest difference of any weight that the pixels decide."""
    assert set(one.scores) == set(other.scores), (one, other)
    return max(abs(weight - other.scores[label]) for label, weight in one.scores.items())
