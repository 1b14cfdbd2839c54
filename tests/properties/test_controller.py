"""Whatever a controller is told, in whatever order: its bounds hold."""

from __future__ import annotations

import math

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from athena_async.batching.controller import BatchController
from athena_async.config import BatchingConfig

LATENCIES = st.floats(1e-6, 60.0)


class ControllerMachine(RuleBasedStateMachine):
    """Answers, timeouts and refusals at random; time only moves on."""

    @initialize(
        max_images=st.integers(1, 300),
        max_bytes=st.integers(1024, 5_000_000),
        in_flight=st.integers(1, 20),
        target_s=st.floats(0.001, 5.0),
        fixed=st.booleans(),
    )
    def build(self, max_images: int, max_bytes: int, in_flight: int, target_s: float, fixed: bool) -> None:
        self.config = BatchingConfig(
            max_images=max_images, max_bytes=max_bytes, max_batches_in_flight=in_flight, target_latency_s=target_s,
            fixed_size=max_images if fixed else None,
        )  # fmt: skip
        self.controller = BatchController(self.config)
        self.now = 1000.0
        self.smallest_refused = math.inf
        self.first = self.controller.plan(self.now)

    @rule(latency_s=LATENCIES, count=st.integers(1, 40), image_bytes=st.integers(1, 700_000), gap=st.floats(0.1, 1.0))
    def full_batches(self, latency_s: float, count: int, image_bytes: int, gap: float) -> None:
        for _ in range(count):
            plan = self.controller.plan(self.now)
            images = max(1, min(plan.images, plan.size_bytes // image_bytes))
            self.now += latency_s * gap
            self.controller.observe(
                images=images, size_bytes=images * image_bytes, latency_s=latency_s, in_flight=plan.in_flight,
                queue_depth=5, now=self.now,
            )  # fmt: skip

    @rule(latency_s=LATENCIES, images=st.integers(0, 300), in_flight=st.integers(0, 30), depth=st.integers(0, 3))
    def any_batch(self, latency_s: float, images: int, in_flight: int, depth: int) -> None:
        self.now += 0.01
        self.controller.observe(
            images=images, size_bytes=images * 100, latency_s=latency_s, in_flight=in_flight, queue_depth=depth,
            now=self.now,
        )  # fmt: skip

    @rule(latency_s=LATENCIES, size_bytes=st.integers(1, 4_000_000))
    def application_limited(self, latency_s: float, size_bytes: int) -> None:
        before = self.controller.plan(self.now)
        if before.images == 1:
            return
        self.now += latency_s
        self.controller.observe(
            images=before.images - 1,
            size_bytes=size_bytes,
            latency_s=latency_s,
            in_flight=1,
            queue_depth=0,
            now=self.now,
        )
        assert self.controller.plan(self.now) == before

    @rule()
    def congested(self) -> None:
        before = self.controller.plan(self.now)
        self.controller.congested(self.now)
        after = self.controller.plan(self.now)
        assert after.images <= before.images
        assert after.in_flight <= before.in_flight

    @rule(size=st.integers(2, 6_000_000), limit=st.none() | st.integers(1, 6_000_000))
    def refused(self, size: int, limit: int | None) -> None:
        before = self.controller.plan(self.now).size_bytes
        self.controller.refused(size, limit, self.now)
        self.smallest_refused = min(self.smallest_refused, size)
        assert self.controller.plan(self.now).size_bytes <= before

    @rule(pause_s=st.floats(0.0, 100.0))
    def time_passes(self, pause_s: float) -> None:
        self.now += pause_s

    @invariant()
    def bounds_hold(self) -> None:
        plan = self.controller.plan(self.now)
        assert 1 <= plan.images <= self.config.max_images
        assert 1 <= plan.in_flight <= self.config.max_batches_in_flight
        assert 1 <= plan.size_bytes <= self.config.max_bytes
        assert plan.size_bytes < self.smallest_refused

    @invariant()
    def fixed_size_stands_still(self) -> None:
        if self.config.fixed_size is not None:
            plan = self.controller.plan(self.now)
            assert (plan.images, plan.in_flight) == (self.first.images, self.first.in_flight)

    @invariant()
    def state_is_finite(self) -> None:
        state = self.controller.snapshot()
        figures = (state.per_image_s, state.per_batch_s, state.baseline_s, state.latency_p95_s, state.images_per_s)
        assert all(math.isfinite(figure) and figure >= 0.0 for figure in figures)


ControllerMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestController = ControllerMachine.TestCase
