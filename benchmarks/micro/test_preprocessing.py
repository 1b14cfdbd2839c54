"""One photograph from file bytes to what is sent, in one thread."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from athena_async.config import RAW_FRAME_BYTES, PreprocessConfig, Resampling, Resizer
from athena_async.images.encode import encode
from athena_async.images.inputs import to_source
from athena_async.images.preprocess import prepare
from benchmarks import inputs

JPEG = inputs.jpegs(1280, 960)[0]
FRAME = inputs.frames()[0]


@pytest.mark.parametrize(
    ("resampling", "resizer"),
    [("bilinear", "opencv"), ("bilinear", "pillow"), ("antialias", "opencv"), ("antialias", "pillow")],
)
def test_jpeg_1280x960(benchmark: BenchmarkFixture, resampling: Resampling, resizer: Resizer) -> None:
    config, source = PreprocessConfig(resampling=resampling, resizer=resizer), to_source(JPEG)
    assert len(benchmark(prepare, source, config, "none").data) == RAW_FRAME_BYTES


@pytest.mark.parametrize("encoding", ["webp", "png", "brotli"])
def test_encode_frame(benchmark: BenchmarkFixture, encoding: str) -> None:
    assert len(benchmark(encode, FRAME, encoding).data) < RAW_FRAME_BYTES


def test_to_source(benchmark: BenchmarkFixture) -> None:
    assert benchmark(to_source, JPEG).value is JPEG
