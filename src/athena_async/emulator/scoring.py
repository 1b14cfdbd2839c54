"""From pixels to weights: no model, but statistics of colour and texture that tell images apart.

The weights mean nothing. They are made so that the same pixels always score the same, one level of
difference moves them by less than a hundredth, while another image, a mirrored or turned one, or one
whose colour channels are swapped, gives plainly other weights.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from athena_async.config import IMAGE_SIDE
from athena_async.results import ENTROPY_LABEL, PCSAM_LABEL, UNKNOWN_PREFIX, Classification

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BENIGN_CLASSES = ("Lakeside", "Mountains", "Trees", "Seashore", "Ducks", "Goose")
LIVE_CLASSES = ("classA", "classB", "classC", "adult", "indicative", "distraction")

_CELLS = 8
_PATTERN_GAIN = 28.0
_LEAST_SPREAD = 0.01
_MEASURE_GAINS = (1.0, 4.0, 4.0, 3.0, 3.0)


def score(pixels: NDArray[np.uint8], classes: tuple[str, ...] = BENIGN_CLASSES) -> tuple[Classification, ...]:
    """Weights of an image.

    Args:
        pixels: (448, 448, 3) uint8 BGR.

    Returns:
        One weight per class, with sum 1; then Entropy, that of the weights in nats (at most ln 6);
        then PCSAM, the sum of the first three.
    """
    import numpy as np

    logits = _logits(pixels, len(classes))
    powers = np.exp(logits - logits.max())
    weights = [float(weight) for weight in powers / powers.sum()]
    return (
        *(Classification(UNKNOWN_PREFIX + name, weight) for name, weight in zip(classes, weights, strict=True)),
        Classification(ENTROPY_LABEL, -sum(weight * math.log(weight) for weight in weights if weight > 0.0)),
        Classification(PCSAM_LABEL, sum(weights[:3])),
    )


def cell_means(pixels: NDArray[np.uint8], cells: int) -> NDArray[np.float64]:
    """Mean of each channel in each of ``cells`` x ``cells`` squares; ``cells`` divides 448.

    Returns:
        (cells, cells, 3) float64, 0 to 255.
    """
    import numpy as np

    side = IMAGE_SIDE // cells
    rows = np.add.reduceat(pixels.astype(np.uint32), range(0, IMAGE_SIDE, side), axis=0)
    return np.asarray(np.add.reduceat(rows, range(0, IMAGE_SIDE, side), axis=1) / (side * side))


def _logits(pixels: NDArray[np.uint8], class_count: int) -> NDArray[np.float64]:
    """A fixed projection of brightness and colour in 8x8 cells, mean colour, and edges along x and y.

    Brightness and both colour differences are measured in units of their own spread over the image, so
    that a dim or grey image tells as much as a bright one. The sine of unrelated frequencies gives each
    class a pattern that is symmetric under no mirroring or turn; exchanging red and blue turns the
    sign of one colour difference.
    """
    import numpy as np

    blue, green, red = np.moveaxis(cell_means(pixels, _CELLS) / 255.0, 2, 0)
    planes = np.stack([(red + green + blue) / 3.0, red - blue, red + blue - 2.0 * green])
    means = planes.mean(axis=(1, 2))
    spread = np.maximum(planes.std(axis=(1, 2)), _LEAST_SPREAD)
    plane, y, x = np.indices(planes.shape)
    number = np.arange(class_count)
    phase = number.reshape(-1, 1, 1, 1)
    pattern = np.sin(1.9898 * (x + 1) * (phase + 1) + 2.233 * (y + 1) * (phase + 2) + 3.719 * plane + 4.1414 * phase)
    cells = (planes - means[:, None, None]) / spread[:, None, None]
    luminance = pixels[::4, ::4].mean(axis=2) / 255.0
    edges = [np.abs(np.diff(luminance, axis=axis)).mean() for axis in (0, 1)]
    measures = np.array([*means, *edges]) * _MEASURE_GAINS
    leaning = np.sin(2.71 * np.outer(number + 1, np.arange(len(measures)) + 1) + number[:, None])
    return np.asarray(_PATTERN_GAIN * (pattern * cells).mean(axis=(1, 2, 3)) + leaning @ measures)
