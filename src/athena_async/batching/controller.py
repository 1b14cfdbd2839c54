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

from athena_async.batching.estimates import Elasticity, LatencyGuard, TailRatio, Throughput, WindowMinimum
from athena_async.batching.moves import Move, Setting, neighbour
from athena_async.config import BatchingConfig

START_IMAGES: Final = 16
START_IN_FLIGHT: Final = 1
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
    over: int = 0


_START_FACTOR: Final = 2.0
_LEAP_FACTOR: Final = 4.0
_FACTOR: Final = 1.3
_START_MOVES: Final = (Move.MORE, Move.LARGER)
_START_SAMPLES: Final = 8
_TRIAL_SAMPLES: Final = 32
_SURE_SAMPLES: Final = 2
_MIN_SAMPLES: Final = 4
_FIRST_HOLD: Final = 8.0
_LAST_HOLD: Final = 64.0
_CLEARLY_WORSE: Final = 0.9
_AFTER_DECREASE: Final = 0.9
_FLAT: Final = 0.3
_FLOOR_FACTOR: Final = 1.5


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
        self._by_images = Elasticity(0.5, most=2.0)
        self._by_in_flight = Elasticity(1.0, most=1.0)
        self._before: tuple[Setting, float] | None = None
        self._tail = TailRatio()
        self._guard = LatencyGuard(self._target_s)
        self._baseline = WindowMinimum(_BASELINE_WINDOW_S)
        self._starting = True
        self._moves = deque(_START_MOVES)
        self._resting: dict[Move, int] = {}
        self._rest_for: dict[Move, int] = {}
        self._failed = 0
        self._hold_for = 0.0
        self._held_since = -math.inf
        self._counted = 0
        self._risky_after = 0
        self._risky_pause = 256
        self._settled_rate = 0.0
        self._changed_at = -math.inf
        self._old = self._held
        self._old_latency_s = 0.0
        self._answers = 0
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
            self._start_over(now)
        self._last_counted_at = now
        self._counted += 1
        if self._config.fixed_size is not None:
            self._rate.add(images, in_flight, latency_s)
            return
        weight, own_s = self._own(in_flight, latency_s, now)
        trial = self._trial
        if trial is not None:
            trial.over += latency_s > self._target_s
            if weight:
                trial.rate.add(images, in_flight, own_s, weight)
            self._judge(trial, now)
        elif weight:
            self._rate.add(images, in_flight, own_s, weight)
            self._hold(latency_s, now)

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
        rate = self._trial.rate if self._trial is not None and self._trial.rate.count else self._rate
        per_batch_s = self._plan.images / rate.images_per_s if rate.count else 0.0
        slope = min(1.0, self._by_images.value)
        return ControllerState(
            images=self._plan.images,
            size_bytes=self._plan.size_bytes,
            in_flight=self._plan.in_flight,
            per_image_s=per_batch_s * slope / self._plan.images,
            per_batch_s=per_batch_s * (1.0 - slope),
            baseline_s=0.0 if math.isinf(self._baseline.value) else self._baseline.value,
            latency_p95_s=rate.recent_s * self._tail.value,
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

    def _own(self, in_flight: int, latency_s: float, now: float) -> tuple[float, float]:
        """The latency as it were if all batches ahead of this one at the server were of the present plan too.

        Where the plan's images changed, the first batches waited for ones of the old size: their share is
        taken off, and the rest weighs less. Where there are more in flight than before, the queue is still
        building up, and the first round of answers weighs nothing.

        Returns:
            weight from 0 to 1, and the latency.
        """
        self._answers += 1
        plan, old, old_s = self._plan, self._old, self._old_latency_s
        if plan.in_flight > old.in_flight or (
            old.images != plan.images and (old.in_flight != plan.in_flight or not old_s)
        ):
            if self._turned_over_at is None:
                self._turned_over_at = now
            turned_over = in_flight == 1 or now - latency_s >= self._turned_over_at
            return (1.0 if turned_over else 0.0), latency_s
        ahead = in_flight - self._answers
        if ahead <= 0 or old.images == plan.images:
            return 1.0, latency_s
        weight = self._answers / in_flight
        return weight, max(0.1 * latency_s, latency_s - ahead / old.in_flight * old_s) / weight

    # --- climbing ---

    def _hold(self, latency_s: float, now: float) -> None:
        rate = self._rate
        if rate.count >= _MIN_SAMPLES:
            self._tail.add(latency_s / rate.latency_s)
        if self._is_slow(rate) or self._guard.exceeded(latency_s, now):
            self._shrink(rate, now)
            return
        if self._before is not None and rate.count >= 2 * _MIN_SAMPLES:
            self._learn_from_decrease()
        if self._has_held(now):
            self._try_next(now)

    def _learn_from_decrease(self) -> None:
        if self._before is not None and self._rate.count:
            self._learn(*self._before, self._held, self._rate.images_per_s, 0.5)
        self._before = None

    def _has_held(self, now: float) -> bool:
        if self._rate.count < (_SURE_SAMPLES if self._starting else _MIN_SAMPLES):
            return False
        return now - self._held_since >= self._hold_for * self._rate.latency_s

    def _is_slow(self, rate: Throughput) -> bool:
        if rate.count >= 2 * _MIN_SAMPLES:
            return rate.recent_s * self._tail.value > _MARGIN * self._reachable_s
        return rate.count >= _SURE_SAMPLES and rate.latency_s > self._reachable_s

    @property
    def _reachable_s(self) -> float:
        """The target, or more where even a lone small batch would take longer: then there is nothing to gain
        from reducing, and throughput would go down to nothing for it."""
        rate = self._rate
        lone_s = rate.latency_s * max(0.0, 1.0 - self._by_images.value) * self._held.in_flight**-self._by_in_flight.value
        return max(self._target_s, _FLOOR_FACTOR * lone_s)

    def _learn(self, old: Setting, old_rate: float, new: Setting, new_rate: float, weight: float) -> None:
        """Takes from two throughputs how an endpoint's latency goes with images, or with batches in flight."""
        growth = old_rate / new_rate
        if old.in_flight == new.in_flight and old.images != new.images:
            ratio = new.images / old.images
            self._by_images.learn(ratio, ratio * growth, weight)
        elif old.images == new.images and old.in_flight != new.in_flight:
            ratio = new.in_flight / old.in_flight
            self._by_in_flight.learn(ratio, ratio * growth, weight)

    def _judge(self, trial: _Trial, now: float) -> None:
        rate = trial.rate
        if self._is_slow(rate) or trial.over >= _SURE_SAMPLES:
            self._reject(now)
            return
        if rate.count < _SURE_SAMPLES:
            return
        gain = math.log(rate.images_per_s / self._rate.images_per_s) - self._wanted(trial)
        sure = gain * gain > 4.0 * (rate.variance + self._rate.variance)
        enough = _START_SAMPLES if self._starting else _TRIAL_SAMPLES
        if sure or rate.count >= enough or now - trial.started_at > max(3.0, 8.0 * rate.latency_s):
            if gain <= 0.0:
                self._reject(now)
            elif self._answers >= trial.setting.in_flight:  # the first to be answered are the lucky ones
                self._accept(now)

    def _try_next(self, now: float) -> None:
        if not self._starting and abs(math.log(self._rate.images_per_s / self._settled_rate)) > 0.25:
            self._failed, self._hold_for = 0, _FIRST_HOLD
            self._resting.clear()
            self._rest_for.clear()
            self._settled_rate = self._rate.images_per_s
        for _ in range(len(self._moves)):
            found = self._feasible(self._moves[0])
            if found is not None:
                setting, risky = found
                self._trial = _Trial(self._moves[0], setting, Throughput(), risky, now)
                self._apply(setting, f"trying {self._moves[0].value}", self._rate.latency_s, now)
                return
            self._fail_move()
        self._held_since = now

    def _fail_move(self) -> None:
        self._moves.rotate(-1)
        self._failed += 1
        if self._failed < len(self._moves):
            return
        self._failed = 0
        self._settled_rate = self._rate.images_per_s
        if self._starting:
            self._starting = False
            self._moves = deque(Move)
            self._hold_for = _FIRST_HOLD
        else:
            self._hold_for = min(_LAST_HOLD, 2.0 * self._hold_for)

    def _accept(self, now: float) -> None:
        trial = self._end_trial()
        self._held, self._rate = trial.setting, trial.rate
        self._failed = 0
        self._hold_for = 0.0 if self._starting else _FIRST_HOLD
        self._held_since = now
        self._settled_rate = self._rate.images_per_s
        self._reason = trial.move.value
        self._resting.clear()
        self._try_next(now)

    def _end_trial(self) -> _Trial:
        trial = self._trial
        assert trial is not None
        self._trial = None
        if trial.rate.count >= _SURE_SAMPLES:
            base = Setting(min(self._held.images, self._images_limit), self._held.in_flight)
            self._learn(base, self._rate.images_per_s, trial.setting, trial.rate.images_per_s, 0.7)
        return trial

    def _reject(self, now: float) -> None:
        trial = self._end_trial()
        if trial.risky or (self._starting and trial.move is Move.MORE):
            self._risky_after = self._counted + self._risky_pause
            self._risky_pause = min(4096, 2 * self._risky_pause)
        if (
            not self._starting
            and trial.rate.count
            and trial.rate.images_per_s < _CLEARLY_WORSE * self._rate.images_per_s
        ):
            self._rest_for[trial.move] = min(16, 2 * self._rest_for.get(trial.move, 1))
            self._resting[trial.move] = self._rest_for[trial.move]
        self._fail_move()
        self._held_since = now
        self._guard.reset()
        self._apply(self._held, f"held, against {trial.move.value}", trial.rate.latency_s, now)

    def _wanted(self, trial: _Trial) -> float:
        """Logarithm of the throughput, relative to the held one, that a trial must exceed."""
        move = trial.move
        if self._is_free and move.grows and (move is Move.LARGER or trial.setting.in_flight <= COMFORTABLE_IN_FLIGHT):
            return -0.015
        if move is Move.MORE:
            return 0.05 * math.log(trial.setting.in_flight / self._held.in_flight)
        if move is Move.LARGER:
            return 0.03 * math.log(trial.setting.images / self._held.images)
        return -0.005 if move.shrinks else 0.01

    @property
    def _is_free(self) -> bool:
        return self._rate.recent_s * self._tail.value < _FREE_LATENCY * self._target_s

    def _feasible(self, move: Move) -> tuple[Setting, bool] | None:
        """The neighbour to try, and whether it may break the target; None where there is none."""
        if self._resting.get(move, 0):
            self._resting[move] -= 1
            return None
        base = Setting(min(self._held.images, self._images_limit), self._held.in_flight)
        limit = Setting(self._images_limit, self._config.max_batches_in_flight)
        if self._is_free and not move.grows and not (move is Move.FEWER and base.in_flight > COMFORTABLE_IN_FLIGHT):
            return None
        setting = neighbour(base, move, self._factor(move), limit)
        if setting is None:
            return None
        if move.shrinks or self._predicted_p95_s(base, setting) <= _MARGIN * self._target_s:
            return setting, False
        if move is Move.LARGER:
            return self._largest_within_target(base)
        return (setting, True) if self._counted >= self._risky_after else None

    def _factor(self, move: Move) -> float:
        if not self._starting:
            return _FACTOR
        return _LEAP_FACTOR if move is Move.LARGER and self._by_images.value < _FLAT else _START_FACTOR

    def _largest_within_target(self, base: Setting) -> tuple[Setting, bool] | None:
        room = _MARGIN * self._target_s / (self._rate.recent_s * self._tail.value)
        if room <= 1.0:
            return None
        images = min(self._images_limit, int(base.images * min(2.0, room ** (1.0 / max(0.1, self._by_images.value)))))
        return (Setting(images, base.in_flight), False) if images > 1.04 * base.images else None

    def _predicted_p95_s(self, base: Setting, setting: Setting) -> float:
        growth = (setting.images / base.images) ** self._by_images.value
        growth *= (setting.in_flight / base.in_flight) ** self._by_in_flight.value
        return growth * self._rate.recent_s * self._tail.value

    @property
    def _images_limit(self) -> int:
        by_bytes = self._size_bytes / self._bytes_per_image if self._bytes_per_image else math.inf
        return max(1, int(min(self._config.max_images, by_bytes)))

    # --- reducing ---

    def _shrink(self, rate: Throughput, now: float) -> None:
        """Reduces what costs least throughput for the latency it saves: what latency grows with most steeply."""
        self._learn_from_decrease()
        images, in_flight = self._held
        images = min(images, self._images_limit)
        over = rate.recent_s * self._tail.value / (_MARGIN * self._target_s)
        scale = _AFTER_DECREASE / min(2.0, max(1.0, over))
        by_images, by_in_flight = self._by_images.value, self._by_in_flight.value
        self._before = (Setting(images, in_flight), rate.images_per_s) if rate.count >= _SURE_SAMPLES else None
        if in_flight > 1 and (by_in_flight >= by_images or by_images < _FLAT or images == 1):
            wanted = in_flight * scale ** (1.0 / max(0.25, by_in_flight))
            found = Setting(images, max(1, in_flight // 2, min(in_flight - 1, round(wanted))))
        else:
            wanted = images * scale ** (1.0 / max(0.25, by_images))
            found = Setting(max(1, images // 2, min(images - 1, int(wanted))), in_flight)
        self._decrease(found, "latency over target", now)

    def _decrease(self, setting: Setting, reason: str, now: float) -> None:
        self._apply(setting, reason, self._rate.latency_s, now)
        self._held = setting
        self._rate = Throughput()
        self._guard.reset()
        self._held_since = now
        self._hold_for = 0.0 if self._starting else max(_FIRST_HOLD, self._hold_for)
        self._decreases += 1
        self._decreased_at = now

    def _drop_trial(self) -> None:
        if self._trial is not None:
            self._trial = None
            self._fail_move()

    def _start_over(self, now: float) -> None:
        """What was measured is too old to compare with; the setting itself is kept."""
        self._drop_trial()
        self._held = Setting(self._plan.images, self._plan.in_flight)
        self._rate = Throughput()
        self._guard.reset()
        self._held_since = now

    # --- the plan ---

    def _apply(self, setting: Setting, reason: str, latency_s: float, now: float) -> None:
        """Puts a setting in force. ``latency_s`` is the mean latency under the one before; 0.0 where unknown."""
        self._reason = reason
        if setting != (self._plan.images, self._plan.in_flight):
            self._old = Setting(self._plan.images, self._plan.in_flight)
            self._old_latency_s = latency_s
            self._answers = 0
            self._plan = self._planned(setting)
            self._changed_at = now
            self._turned_over_at = None

    def _planned(self, setting: Setting) -> BatchPlan:
        return BatchPlan(setting.images, self._size_bytes, setting.in_flight)
