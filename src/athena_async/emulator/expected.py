"""Scores from a file in the test-case form that clients of the service share.

The file is ``{"classification_labels": [...], "images": [[name, [weights...]], ...]}``; the images are
in the folder ``images`` beside it, or beside it. An input is matched by content, not by name: by its
pixels, that went through some client's decoder and resizer, or by a hash of the original file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from athena_async.config import IMAGE_SIDE
from athena_async.emulator.scoring import cell_means
from athena_async.errors import ConfigError
from athena_async.results import Classification

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_CELLS = 28
# Levels by which the mean of a cell of 16x16 pixels may differ: resizers differ by less, images by far more.
_TOLERANCE = 8.0


class ExpectedOutputs:
    """The weights of known test images."""

    def __init__(
        self,
        signatures: NDArray[np.float64],
        weights: list[tuple[Classification, ...]],
        by_hash: dict[str, tuple[Classification, ...]],
    ) -> None:
        self._signatures = signatures
        self._weights = weights
        self._by_hash = by_hash

    @classmethod
    def read(cls, path: Path) -> ExpectedOutputs:
        """Reads the file and decodes every image that it names.

        Raises:
            ConfigError: the file is not of the form, or an image is missing or unreadable.
        """
        import numpy as np

        signatures, weights, by_hash = [], [], {}
        for image_path, expected in _cases(path):
            data = image_path.read_bytes()
            for signature in _signatures(image_path):
                signatures.append(signature)
                weights.append(expected)
            for algorithm in ("md5", "sha1"):
                by_hash[hashlib.new(algorithm, data, usedforsecurity=False).hexdigest()] = expected
        return cls(np.array(signatures), weights, by_hash)

    def by_pixels(self, pixels: NDArray[np.uint8]) -> tuple[Classification, ...] | None:
        """The weights of the test image that looks the same.

        Args:
            pixels: (448, 448, 3) uint8 BGR.
        """
        import numpy as np

        if not self._weights:
            return None
        distances = np.abs(self._signatures - cell_means(pixels, _CELLS)).max(axis=(1, 2, 3))
        nearest = int(distances.argmin())
        return self._weights[nearest] if distances[nearest] <= _TOLERANCE else None

    def by_hashes(self, digests: Iterable[str]) -> tuple[Classification, ...] | None:
        """The weights of the test image whose file has one of these MD5 or SHA1 digests."""
        found = (self._by_hash.get(digest.lower()) for digest in digests)
        return next((weights for weights in found if weights is not None), None)

    def __repr__(self) -> str:
        return f"ExpectedOutputs({len(self._by_hash) // 2} images)"


def _cases(path: Path) -> list[tuple[Path, tuple[Classification, ...]]]:
    allowed = 'a file of the form {"classification_labels": [...], "images": [[name, [weights]], ...]}'
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        labels = [str(label) for label in content["classification_labels"]]
        rows = [(str(name), [float(weight) for weight in weights]) for name, weights in content["images"]]
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError("expected_outputs", str(path), allowed) from None
    if any(len(weights) != len(labels) for _, weights in rows):
        raise ConfigError("expected_outputs", str(path), "a file with one weight per label for each image")
    return [
        (_image_path(path, name), tuple(Classification(*pair) for pair in zip(labels, weights, strict=True)))
        for name, weights in rows
    ]


def _image_path(path: Path, name: str) -> Path:
    for folder in (path.parent / "images", path.parent):
        if (folder / name).is_file():
            return folder / name
    raise ConfigError("expected_outputs", name, f"an image in {path.parent / 'images'}")


def _signatures(path: Path) -> list[NDArray[np.float64]]:
    """What the image looks like after two-tap and after antialiased resizing: clients use either."""
    import numpy as np
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, SyntaxError, ValueError):
        raise ConfigError("expected_outputs", str(path), "a readable image") from None
    side = (IMAGE_SIDE, IMAGE_SIDE)
    scale = (image.width / IMAGE_SIDE, 0.0, 0.0, 0.0, image.height / IMAGE_SIDE, 0.0)
    versions = (
        image.transform(side, Image.Transform.AFFINE, scale, Image.Resampling.BILINEAR),
        image.resize(side, Image.Resampling.BILINEAR),
    )
    return [cell_means(np.asarray(version)[:, :, ::-1], _CELLS) for version in versions]
