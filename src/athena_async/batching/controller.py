"""How many images a batch may have, and how many batches an endpoint may have unanswered.

A plain value: it is told what was answered, and asked for bounds; `athena_async.batching.batcher` does the
sending. It looks for the greatest throughput whose 95th percentile of latency is inside the target by
climbing: it holds a setting, tries a neighbour for a while, compares the throughputs, and stays or goes back.

Why not one of the known rules alone: an additive increase until latency reaches the target (Clipper) queues
where queueing gains nothing and overshoots a knee; a gradient against the least latency seen (Netflix)
mistakes a drifting baseline for a queue; a straight line for latency (BentoML) has no knee. Comparing
neighbours in turn needs no model of the server, and a setting that is measured anew around each trial has
no old baseline to be misled by. docs/adr/0007-adaptive-batching.md has the figures.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Final

from athena_async.batching.estimates import LatencyGuard, LineFit, TailRatio, Throughput, WindowMinimum
from athena_async.batching.moves import Move, Setting, neighbour
from athena_async.config import BatchingConfig

START_IMAGES: Final = 16
START_IN_FLIGHT: Final = 2
COMFORTABLE_IN_FLIGHT: Final = 4
"""Batches in flight that ties go to while latency costs nothing."""

_FREE_LATENCY: Final = 0.1
"""Part of the target below which latency costs nothing: there, ties go to larger batches."""
_MARGIN: Final = 0.95
"""Part of the target that the estimated 95th percentile is kept under."""
_BASELINE_WINDOW_S: Final = 10.0
_STALE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """Bounds on what is sent next.

    Attributes:
        images: most images of the next batch.
        size_bytes: most bytes of the next batch, but for a single image that is larger.
        in_flight: batches that the endpoint may have unanswered.
    """

    images: int
    size_bytes: int
    in_flight: int


@dataclass(frozen=True, slots=True)
class ControllerState:
    """A controller as `AthenaClient.stats` shows it.

    Attributes:
        images, size_bytes, in_flight: the plan.
        per_image_s, per_batch_s: fit of an endpoint's time for a batch of n, ``per_image_s * n + per_batch_s``;
            with several batches in flight this is the time between two answers.
        baseline_s: least latency of the last 10 to 20 s; 0.0 before any.
        latency_p95_s: estimate at the present plan; 0.0 before any.
        images_per_s: throughput at the present plan; 0.0 before any.
        application_limited: the last batch had room left, so nothing was learnt from it.
        decreases: how often latency or the server made it reduce the plan.
        reason: of the last change.
    """

    images: int
    size_bytes: int
    in_flight: int
    per_image_s: float
    per_batch_s: float
    baseline_s: float
    latency_p95_s: float
    images_per_s: float
    application_limited: bool
    decreases: int
    reason: str


@dataclass(slots=True)
class _Trial:
    """A neighbour of the held setting on probation."""

    move: Move
    setting: Setting
    rate: Throughput
    risky: bool
    started_at: float


_FACTORS: Final = (2.0, 1.5, 1.25)
_TRIAL_SAMPLES: Final = {2.0: 12, 1.5: 20, 1.25: 32}
_MIN_SAMPLES: Final = 4


class BatchController:
    """Bounds for the batches to one endpoint.

    Invariants:
        * The plan never exceeds ``max_images``, ``max_bytes``, ``max_batches_in_flight``, nor the size of any
          request that the server refused as too large.
        * Batches that the application could not fill change nothing (`ControllerState.application_limited`).
        * Timeouts and RESOURCE_EXHAUSTED only ever reduce the plan.
        * With ``fixed_size`` the number of images and of batches in flight stand still.
    """

    def __init__(self, config: BatchingConfig) -> None:
        self._config = config
        self._target_s = config.target_latency_s
        self._size_bytes = config.max_bytes
        self._largest_answered_bytes = 0
        self._bytes_per_image = 0.0
        self._held = self._start(config)
        self._rate = Throughput()
        self._trial: _Trial | None = None
        self._fit = LineFit()
        self._tail = TailRatio()
        self._guard = LatencyGuard(self._target_s)
        self._baseline = WindowMinimum(_BASELINE_WINDOW_S)
        self._moves = deque(Move)
        self._failed = 0
        self._sweep = 0
        self._hold_for = 0.0
        self._held_samples = 0
        self._counted = 0
        self._risky_after = 0
        self._risky_pause = 256
        self._settled_rate = 0.0
        self._changed_at = -math.inf
        self._turned_over_at: float | None = None
        self._first_answer_at: float | None = None
        self._last_counted_at = -math.inf
        self._application_limited = False
        self._decreases = 0
        self._decreased_at = -math.inf
        self._reason = "start"
        self._plan = self._planned(self._held)

    def __repr__(self) -> str:
        return f"BatchController(images={self._plan.images}, in_flight={self._plan.in_flight}, {self._reason})"

    @staticmethod
    def _start(config: BatchingConfig) -> Setting:
        if config.fixed_size is not None:
            return Setting(config.fixed_size, config.max_batches_in_flight)
        return Setting(min(START_IMAGES, config.max_images), min(START_IN_FLIGHT, config.max_batches_in_flight))

    def plan(self, now: float) -> BatchPlan:
        """Bounds for a batch that is sent now."""
        return self._plan

    def due(self, *, ready_images: int, ready_bytes: int, oldest_wait_s: float, in_flight: int) -> bool:
        """Whether a batch should leave now.

        At once when nothing is in flight: a lone image never waits for company. When it is full. Otherwise
        after ``linger_s``. Never beyond the plan's batches in flight.

        Args:
            ready_images, ready_bytes: what waits to be sent.
            oldest_wait_s: how long the first of it has waited.
            in_flight: batches of the endpoint that are unanswered.
        """
        if not ready_images:
            return False
        if not in_flight:
            return True
        plan = self._plan
        if in_flight >= plan.in_flight:
            return False
        full = ready_images >= plan.images or ready_bytes >= plan.size_bytes
        return full or oldest_wait_s >= self._config.linger_s

    def observe(
        self, *, images: int, size_bytes: int, latency_s: float, in_flight: int, queue_depth: int, now: float
    ) -> None:
        """A batch was answered in full.

        Args:
            images, size_bytes: what it held.
            latency_s: from its sending to its last answer.
            in_flight: batches of the endpoint unanswered right after it was sent, itself included.
            queue_depth: images that were left waiting when it was sent.
            now: time of the answer.
        """
        if images < 1 or latency_s <= 0.0:
            return
        self._baseline.add(latency_s, now)
        self._largest_answered_bytes = max(self._largest_answered_bytes, size_bytes)
        self._bytes_per_image += (size_bytes / images - self._bytes_per_image) * (0.2 if self._bytes_per_image else 1.0)
        if not self._counts(images, in_flight, queue_depth, now - latency_s, now):
            return
        if now - self._last_counted_at > _STALE_S:
            self._start_over()
        self._last_counted_at = now
        self._counted += 1
        if self._config.fixed_size is not None:
            self._rate.add(images, in_flight, latency_s)
        elif self._guard.exceeded(latency_s, now):
            self._too_slow(now)
        elif self._is_turned_over(in_flight, now - latency_s, now):
            self._fit.add(images, latency_s / in_flight)
            self._judge(images, in_flight, latency_s, now)

    def congested(self, now: float) -> None:
        """A batch timed out or was answered RESOURCE_EXHAUSTED: halves what may be in flight.

        Signals about batches that were sent before the last decrease are part of the same congestion, so
        all within one latency of it count as one.
        """
        if self._config.fixed_size is None and now - self._decreased_at > max(self._rate.latency_s, 0.1):
            self._drop_trial()
            images, in_flight = self._held
            halved = Setting(images, in_flight // 2) if in_flight > 1 else Setting(max(1, images // 2), 1)
            self._decrease(halved, "congested", now)

    def refused(self, size_bytes: int, limit_bytes: int | None, now: float) -> None:
        """A request of ``size_bytes`` was refused as too large: no batch will be as large again.

        ``limit_bytes`` is what the server said it takes, None where it did not. The next bound is then the
        largest size that was answered, or half of what was refused.
        """
        bound = limit_bytes if limit_bytes is not None else max(self._largest_answered_bytes, size_bytes // 2)
        if bound >= size_bytes:  # counted otherwise than here, or answered before a limit was lowered
            bound = size_bytes // 2
        if bound < self._size_bytes:
            self._size_bytes = max(1, bound)
            self._reason = "refused as too large"
            self._plan = self._planned(Setting(self._plan.images, self._plan.in_flight))

    def snapshot(self) -> ControllerState:
        """The present state, for `AthenaClient.stats`."""
        a, b = self._fit.line()
        rate = self._trial.rate if self._trial is not None and self._trial.rate.count else self._rate
        return ControllerState(
            images=self._plan.images,
            size_bytes=self._plan.size_bytes,
            in_flight=self._plan.in_flight,
            per_image_s=a,
            per_batch_s=b,
            baseline_s=0.0 if math.isinf(self._baseline.value) else self._baseline.value,
            latency_p95_s=rate.latency_s * self._tail.value,
            images_per_s=rate.images_per_s,
            application_limited=self._application_limited,
            decreases=self._decreases,
            reason=self._reason,
        )

    # --- which samples count ---

    def _counts(self, images: int, in_flight: int, queue_depth: int, sent_at: float, now: float) -> bool:
        if self._first_answer_at is None:
            self._first_answer_at = now
        if sent_at < self._first_answer_at:
            return False  # sent while the deployment may still have been starting
        if sent_at < self._changed_at:
            return False  # sent under another plan
        plan = self._plan
        self._application_limited = queue_depth == 0 and (images < plan.images or in_flight < plan.in_flight)
        return not self._application_limited

    def _is_turned_over(self, in_flight: int, sent_at: float, now: float) -> bool:
        """Whether only batches of the present plan were ahead of this one at the server."""
        if self._turned_over_at is None:
            self._turned_over_at = now
        return in_flight == 1 or sent_at >= self._turned_over_at

    # --- climbing ---

    def _judge(self, images: int, in_flight: int, latency_s: float, now: float) -> None:
        trial = self._trial
        if trial is None:
            self._hold(images, in_flight, latency_s, now)
            return
        rate = trial.rate
        rate.add(images, in_flight, latency_s)
        if rate.count < _MIN_SAMPLES:
            return
        if rate.count >= 2 * _MIN_SAMPLES and rate.latency_s * self._tail.value > _MARGIN * self._target_s:
            self._reject(now)
            return
        gain = math.log(rate.images_per_s / self._rate.images_per_s) - self._wanted(trial.move)
        sure = gain * gain > 4.0 * (rate.variance + self._rate.variance)
        long = rate.count >= _TRIAL_SAMPLES[self._factor] or now - trial.started_at > max(3.0, 8.0 * rate.latency_s)
        if sure or long:
            self._accept(now) if gain > 0.0 else self._reject(now)

    def _hold(self, images: int, in_flight: int, latency_s: float, now: float) -> None:
        rate = self._rate
        rate.add(images, in_flight, latency_s)
        self._held_samples += 1
        if rate.count < _MIN_SAMPLES:
            return
        self._tail.add(latency_s / rate.latency_s)
        p95_s = rate.latency_s * self._tail.value
        if rate.count >= 2 * _MIN_SAMPLES and p95_s > _MARGIN * self._target_s:
            self._shrink(0.9 * _MARGIN * self._target_s / p95_s, "latency near target", now)
        elif self._held_samples >= max(_MIN_SAMPLES, self._hold_for):
            self._try_next(now)

    @property
    def _factor(self) -> float:
        return _FACTORS[min(self._sweep, len(_FACTORS) - 1)] if self._sweep < 3 else _FACTORS[self._sweep % 3]

    def _try_next(self, now: float) -> None:
        if self._sweep >= 3 and abs(math.log(self._rate.images_per_s / self._settled_rate)) > 0.25:
            self._sweep, self._failed, self._hold_for = 1, 0, 0.0  # the server changed
        for _ in range(len(self._moves)):
            found = self._feasible(self._moves[0])
            if found is not None:
                setting, risky = found
                self._trial = _Trial(self._moves[0], setting, Throughput(), risky, now)
                self._apply(setting, f"trying {self._moves[0].value}", now)
                return
            self._fail_move()
        self._held_samples = 0

    def _fail_move(self) -> None:
        self._moves.rotate(-1)
        self._failed += 1
        if self._failed < len(self._moves):
            return
        self._failed = 0
        self._sweep += 1
        if self._sweep >= len(_FACTORS):
            self._hold_for = min(256.0, max(16.0, 2.0 * self._hold_for))
            self._settled_rate = self._rate.images_per_s

    def _accept(self, now: float) -> None:
        trial = self._trial
        assert trial is not None
        self._trial = None
        self._held, self._rate = trial.setting, trial.rate
        self._failed = 0
        self._hold_for = 0.0
        self._held_samples = 0
        self._settled_rate = self._rate.images_per_s
        self._reason = trial.move.value
        self._try_next(now)

    def _reject(self, now: float) -> None:
        trial = self._trial
        assert trial is not None
        self._trial = None
        if trial.risky:
            self._risky_after = self._counted + self._risky_pause
            self._risky_pause = min(4096, 2 * self._risky_pause)
        self._fail_move()
        self._held_samples = 0
        self._guard.reset()
        self._apply(self._held, f"held, against {trial.move.value}", now)

    def _wanted(self, move: Move) -> float:
        """Logarithm of the throughput, relative to the held one, that a trial must exceed."""
        if self._is_free:
            return -0.015 if move.grows else 0.01
        if move.grows:
            return 0.02
        return -0.005 if move.shrinks else 0.01

    @property
    def _is_free(self) -> bool:
        return self._rate.latency_s * self._tail.value < _FREE_LATENCY * self._target_s

    def _feasible(self, move: Move) -> tuple[Setting, bool] | None:
        """The neighbour to try, and whether it may break the target; None where there is none."""
        base = Setting(min(self._held.images, self._images_limit), self._held.in_flight)
        limit = Setting(self._images_limit, self._config.max_batches_in_flight)
        if self._is_free and not move.grows and not (move is Move.FEWER and base.in_flight > COMFORTABLE_IN_FLIGHT):
            return None
        setting = neighbour(base, move, self._factor, limit)
        if setting is None:
            return None
        if move.shrinks or self._predicted_p95_s(base, setting) <= _MARGIN * self._target_s:
            return setting, False
        if move is Move.LARGER:
            return self._largest_within_target(base)
        return (setting, True) if self._counted >= self._risky_after else None

    def _largest_within_target(self, base: Setting) -> tuple[Setting, bool] | None:
        a, b = self._fit.line()
        room = _MARGIN * self._target_s / (self._rate.latency_s * self._tail.value)
        images = int(((a * base.images + b) * room - b) / a) if a else base.images
        return (Setting(images, base.in_flight), False) if images > 1.04 * base.images else None

    def _predicted_p95_s(self, base: Setting, setting: Setting) -> float:
        """As if the server worked on one batch at a time, which is the worst case."""
        a, b = self._fit.line()
        growth = (a * setting.images + b) * setting.in_flight / ((a * base.images + b) * base.in_flight)
        return growth * self._rate.latency_s * self._tail.value

    @property
    def _images_limit(self) -> int:
        by_bytes = self._size_bytes / self._bytes_per_image if self._bytes_per_image else math.inf
        return max(1, int(min(self._config.max_images, by_bytes)))

    # --- reducing ---

    def _too_slow(self, now: float) -> None:
        if self._trial is not None:
            self._reject(now)
        else:
            self._shrink(0.7, "latency over target", now)

    def _shrink(self, scale: float, reason: str, now: float) -> None:
        """Reduces what latency depends on most: batches in flight where the cost is per batch, else images."""
        images, in_flight = self._held
        images = min(images, self._images_limit)
        a, b = self._fit.line()
        if in_flight > 1 and (b >= a * images or images == 1):
            self._decrease(Setting(images, max(1, min(in_flight - 1, round(in_flight * scale)))), reason, now)
            return
        wanted = ((a * images + b) * scale - b) / a if a else images * scale
        self._decrease(Setting(max(1, min(images - 1, max(images // 2, int(wanted)))), in_flight), reason, now)

    def _decrease(self, setting: Setting, reason: str, now: float) -> None:
        self._held = setting
        self._rate = Throughput()
        self._guard.reset()
        self._held_samples = 0
        self._hold_for = max(16.0, self._hold_for)
        self._decreases += 1
        self._decreased_at = now
        self._apply(setting, reason, now)

    def _drop_trial(self) -> None:
        if self._trial is not None:
            self._trial = None
            self._fail_move()

    def _start_over(self) -> None:
        """What was measured is too old to compare with; the setting itself is kept."""
        self._drop_trial()
        self._held = Setting(self._plan.images, self._plan.in_flight)
        self._rate = Throughput()
        self._guard.reset()
        self._held_samples = 0

    # --- the plan ---

    def _apply(self, setting: Setting, reason: str, now: float) -> None:
        self._reason = reason
        if setting != (self._plan.images, self._plan.in_flight):
            self._plan = self._planned(setting)
            self._changed_at = now
            self._turned_over_at = None

    def _planned(self, setting: Setting) -> BatchPlan:
        return BatchPlan(setting.images, self._size_bytes, setting.in_flight)
