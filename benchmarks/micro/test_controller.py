"""The adaptive batcher's decisions: what one costs, at every batch."""

from __future__ import annotations

import itertools

from pytest_benchmark.fixture import BenchmarkFixture

from athena_async.batching.controller import BatchController
from athena_async.config import BatchingConfig


def test_plan(benchmark: BenchmarkFixture) -> None:
    controller = BatchController(BatchingConfig())
    ticks = itertools.count()
    assert benchmark(lambda: controller.plan(next(ticks) * 0.01)).images > 0


def test_plan_and_answer(benchmark: BenchmarkFixture) -> None:
    controller = BatchController(BatchingConfig())
    ticks = itertools.count()

    def batch() -> None:
        now = next(ticks) * 0.01
        plan = controller.plan(now)
        controller.observe(
            images=plan.images, size_bytes=plan.images * 100, latency_s=0.02, in_flight=2, queue_depth=1000, now=now
        )

    for _ in range(10):  # enough to know a rate by
        batch()
    benchmark(batch)
    assert controller.snapshot().images_per_s > 0
