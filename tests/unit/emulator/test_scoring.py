"""Scores tell images apart, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from athena_async.emulator.scoring import BENIGN_CLASSES, LIVE_CLASSES, cell_means, score

Frame = NDArray[np.uint8]


def weights(frame: Frame) -> NDArray[np.float64]:
    return np.array([found.weight for found in score(np.ascontiguousarray(frame))[:6]])


def distance(left: Frame, right: Frame) -> float:
    return float(np.abs(weights(left) - weights(right)).max())


def test_labels_and_sum(frames: list[Frame]) -> None:
    found = score(frames[0])
    assert [c.label for c in found] == [f"UnknownCSAM-{name}" for name in (*BENIGN_CLASSES, "Entropy", "PCSAM")]
    assert sum(c.weight for c in found[:6]) == pytest.approx(1.0)
    assert found[7].weight == pytest.approx(sum(c.weight for c in found[:3]))
    assert 0.0 < found[6].weight <= np.log(6) + 1e-9


def test_the_live_model_has_its_own_labels(frames: list[Frame]) -> None:
    assert score(frames[0], LIVE_CLASSES)[0].label == "UnknownCSAM-classA"


def test_the_same_pixels_score_the_same(frames: list[Frame]) -> None:
    assert score(frames[1]) == score(frames[1].copy())


def test_every_two_photographs_are_told_apart(frames: list[Frame]) -> None:
    pairs = [(a, b) for a in range(len(frames)) for b in range(a)]
    assert min(distance(frames[a], frames[b]) for a, b in pairs) > 0.05


@pytest.mark.parametrize(
    "spoil",
    [
        lambda frame: frame[:, :, ::-1],
        lambda frame: frame[:, ::-1],
        lambda frame: frame[::-1],
        lambda frame: frame[::-1, ::-1],
        np.rot90,
        lambda frame: np.rot90(frame, 3),
        lambda frame: frame.transpose(1, 0, 2),
        lambda frame: np.roll(frame, 112, axis=1),
    ],
    ids=["channels", "mirrored", "upside-down", "half-turn", "left-turn", "right-turn", "transposed", "shifted"],
)
def test_spoilt_pixels_score_otherwise(frames: list[Frame], spoil: Callable[[Frame], Frame]) -> None:
    assert min(distance(frame, spoil(frame)) for frame in frames) > 0.015


def test_a_level_of_difference_hardly_matters(frames: list[Frame]) -> None:
    noise = np.random.default_rng(1).integers(-1, 2, frames[0].shape)
    for frame in frames:
        noisy = np.clip(frame.astype(int) + noise, 0, 255).astype(np.uint8)
        brighter = np.clip(frame.astype(int) + 1, 0, 255).astype(np.uint8)
        assert distance(frame, noisy) < 0.005
        assert distance(frame, brighter) < 0.01


@pytest.mark.parametrize("level", [0, 255])
def test_flat_images_score_too(level: int) -> None:
    assert weights(np.full((448, 448, 3), level, np.uint8)).sum() == pytest.approx(1.0)


def test_cell_means_are_means() -> None:
    frame = np.random.default_rng(2).integers(0, 256, (448, 448, 3), dtype=np.uint8)
    expected = frame.reshape(8, 56, 8, 56, 3).mean(axis=(1, 3))
    assert cell_means(frame, 8) == pytest.approx(expected)
