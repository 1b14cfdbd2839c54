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
from typing import Final

from athena_async.batching.estimates import SOME_SAMPLES, SURE_SAMPLES, Throughput, WindowMinimum
from athena_async.batching.moves import (
    Move,
    Risks,
    Setting,
    Tour,
    Trial,
    is_sensible,
    neighbour,
    start,
    stride,
    wanted_gain,
)
from athena_async.batching.plan import BatchPlan, ControllerState
from athena_async.batching.request_size import RequestSize
from athena_async.batching.response import Response
from athena_async.batching.target import LatencyTarget
from athena_async.batching.transition import Transition
from athena_async.config import BatchingConfig

__all__ = ["BatchController", "BatchPlan", "ControllerState"]

_BASELINE_WINDOW_S: Final = 10.0
_STALE_S: Final = 10.0
"""A pause after which what was measured is too old to compare with."""

_FEW_SAMPLES: Final = 4
_ENOUGH_SAMPLES: Final = 32
_LARGEST_FIT: Final = 2.0
_CLEARLY_WORSE: Final = 0.9
_SUDDEN: Final = 2.0
"""Times the mean latency: a batch over the target that took longer tells of a server that changed."""
_CHANGED: Final = 0.25
"""Change of the held throughput, as a logarithm, that makes all moves worth trying again."""


class BatchController:
    """Bounds for the batches to one endpoint.

    Invariants:
        * The plan never exceeds ``max_images``, ``max_bytes``, ``max_batches_in_flight``, nor what `RequestSize`
          allows: a size that the server refused as too large, or that the link is not known to carry in time.
        * Batches that the application could not fill change nothing (`ControllerState.application_limited`).
        * Timeouts and RESOURCE_EXHAUSTED only ever reduce the plan.
        * With ``fixed_size`` the number of images and of batches in flight stand still.
        * Either the held setting is in force, and its throughput is measured, or one trial is.

    ``patience_s`` is what one request may take on the link: well below the time after which a peer seems dead.
    """

    def __init__(self, config: BatchingConfig, patience_s: float = 8.0) -> None:
        self._config = config
        self._target = LatencyTarget(config.target_latency_s)
        self._request_size = RequestSize(config.max_bytes, patience_s, slow_start=config.fixed_size is None)
        self._bytes_per_image = 0.0
        self._held = start(config)
        self._held_since = -math.inf
        self._rate = Throughput()
        self._settled_rate = 0.0
        self._trial: Trial | None = None
        self._tour = Tour()
        self._response = Response()
        self._baseline = WindowMinimum(_BASELINE_WINDOW_S)
        self._transition = Transition(self._held)
        self._first_answer_at: float | None = None
        self._counted = 0
        self._counted_at = math.inf
        self._application_limited = False
        self._risks = Risks()
        self._decreases = 0
        self._deaf_until = -math.inf
        self._reduced_from: tuple[Setting, float] | None = None
        self._reason = "start"
        self._plan = BatchPlan(self._held.images, self._request_size.size_bytes, self._held.in_flight)

    def __repr__(self) -> str:
        return f"BatchController(images={self._plan.images}, in_flight={self._plan.in_flight}, {self._reason})"

    def plan(self, now: float) -> BatchPlan:
        """Bounds for a batch that is sent at ``now``."""
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
            in_flight: batches of the endpoint unanswered right after it was sent, itself and those that left
                together with it included.
            queue_depth: images that were left waiting when it was sent.
            now: time of the answer.
        """
        if images < 1 or latency_s <= 0.0:
            return
        in_flight = max(1, in_flight)
        self._baseline.add(latency_s, now)
        plan = self._plan
        limited = queue_depth == 0 and (images < plan.images or in_flight < plan.in_flight)
        self._request_size.answered(size_bytes, latency_s, limited=limited)
        self._bound_bytes()
        self._bytes_per_image += (size_bytes / images - self._bytes_per_image) * (0.2 if self._bytes_per_image else 1.0)
        if not self._counts(limited, now - latency_s, now):
            return
        self._counted += 1
        self._counted_at = now
        if self._config.fixed_size is not None:
            self._rate.add(images, in_flight, latency_s)
            return
        weight, own_s = self._transition.own_latency(in_flight, latency_s, now)
        trial = self._trial
        if trial is not None:
            trial.over += self._target.is_over(latency_s, self._lone_s)
            if weight:
                trial.rate.add(images, in_flight, own_s, weight)
            self._judge(trial, latency_s, now)
        elif weight:
            self._rate.add(images, in_flight, own_s, weight)
            self._hold(latency_s, now)

    def congested(self, now: float) -> None:
        """A batch timed out or was answered RESOURCE_EXHAUSTED: halves what may be in flight.

        Further signals within one latency of a decrease are about batches that were sent before it, and are
        part of the same congestion.
        """
        if self._config.fixed_size is not None or now < self._deaf_until:
            return
        self._request_size.timed_out()
        self._bound_bytes()
        images = min(self._held.images, self._plan.images)
        in_flight = min(self._held.in_flight, self._plan.in_flight)
        if self._trial is not None:
            self._trial = None
            self._pass_on()
        if in_flight > 1:
            self._decrease(Setting(images, in_flight // 2), "congested", now)
        else:
            self._decrease(Setting(max(1, images // 2), 1), "congested", now)

    def refused(self, size_bytes: int, limit_bytes: int | None, now: float) -> None:
        """A request of ``size_bytes`` was refused as too large: no batch will be as large again.

        ``limit_bytes`` is what the server said it takes, None where it did not.
        """
        if self._request_size.refused(size_bytes, limit_bytes):
            self._reason = "refused as too large"
            self._bound_bytes()

    def snapshot(self) -> ControllerState:
        """The present state, for `AthenaClient.stats`."""
        rate = self._trial.rate if self._trial is not None and self._trial.rate.count else self._rate
        per_batch_s = self._plan.images / rate.images_per_s if rate.count else 0.0
        slope = min(1.0, self._response.by_images.value)
        return ControllerState(
            images=self._plan.images,
            size_bytes=self._plan.size_bytes,
            in_flight=self._plan.in_flight,
            per_image_s=per_batch_s * slope / self._plan.images,
            per_batch_s=per_batch_s * (1.0 - slope),
            baseline_s=0.0 if math.isinf(self._baseline.value) else self._baseline.value,
            latency_p95_s=self._target.p95_s(rate),
            images_per_s=rate.images_per_s,
            application_limited=self._application_limited,
            decreases=self._decreases,
            reason=self._reason,
        )

    def _counts(self, limited: bool, sent_at: float, now: float) -> bool:
        """Whether a batch says something about the plan. ``limited``: the application could not fill it."""
        if self._first_answer_at is None:
            self._first_answer_at = now
        if sent_at < self._first_answer_at:
            return False  # sent while the deployment may still have been starting
        if sent_at < self._transition.changed_at:
            return False  # sent under another plan
        self._application_limited = limited
        if limited:
            return False
        if now - self._counted_at > _STALE_S:
            self._forget(now)
            return False
        return True

    # --- holding a setting, and trying another ---

    def _hold(self, latency_s: float, now: float) -> None:
        rate = self._rate
        if rate.count >= _FEW_SAMPLES:
            self._target.learn(latency_s, rate)
        if self._target.is_slow(rate, self._lone_s) or self._target.is_exceeded(latency_s, self._lone_s, now):
            self._shrink(latency_s, now)
            return
        if self._reduced_from is not None and rate.count >= SOME_SAMPLES:
            self._learn_from_decrease()
        if rate.count < (SURE_SAMPLES if self._tour.starting else _FEW_SAMPLES):
            return
        rested = now - self._held_since >= self._tour.hold_for * rate.latency_s
        if rested and not self._target.is_over(latency_s, self._lone_s):
            self._try_next(now)

    def _try_next(self, now: float) -> None:
        rate = self._rate.images_per_s
        if not self._tour.starting and self._settled_rate and abs(math.log(rate / self._settled_rate)) > _CHANGED:
            self._tour.restart()
            self._settled_rate = rate
        for _ in range(len(self._tour)):
            found = self._feasible()
            if found is not None:
                setting, risky = found
                self._trial = Trial(self._tour.next, setting, risky, now)
                self._apply(setting, f"trying {self._tour.next.value}", self._rate.latency_s, now)
                return
            self._pass_on()
        self._held_since = now

    def _judge(self, trial: Trial, latency_s: float, now: float) -> None:
        rate = trial.rate
        if self._target.is_slow(rate, self._lone_s) or trial.over >= SURE_SAMPLES:
            if trial.move.shrinks:
                self._follow_down(trial, latency_s, now)
            else:
                self._reject(trial, now)
            return
        if rate.count < SURE_SAMPLES:
            return
        wanted = wanted_gain(trial.move, self._held, trial.setting, latency_is_free=self._is_free)
        gain = math.log(rate.images_per_s / self._rate.images_per_s) - wanted
        sure = gain * gain > 4.0 * (rate.variance + self._rate.variance)
        enough = rate.count >= (SOME_SAMPLES if self._tour.starting else _ENOUGH_SAMPLES)
        if sure or enough or now - trial.started_at > max(3.0, 8.0 * rate.latency_s):
            if gain <= 0.0:
                self._reject(trial, now)
            elif self._transition.answers >= trial.setting.in_flight:  # the first to be answered are the lucky ones
                self._accept(trial, now)

    def _accept(self, trial: Trial, now: float) -> None:
        self._end(trial)
        self._held, self._rate = trial.setting, trial.rate
        self._held_since = now
        self._settled_rate = self._rate.images_per_s
        self._tour.succeeded()
        self._try_next(now)

    def _reject(self, trial: Trial, now: float) -> None:
        self._end(trial)
        if trial.risky or (self._tour.starting and trial.move is Move.MORE):
            self._risks.failed(trial.move, self._counted)
        self._pass_on(clearly=0.0 < trial.rate.images_per_s < _CLEARLY_WORSE * self._rate.images_per_s)
        self._held_since = now
        self._target.forgive()
        self._apply(self._held, f"held, against {trial.move.value}", trial.rate.latency_s, now)

    def _follow_down(self, trial: Trial, latency_s: float, now: float) -> None:
        """Less in flight, and yet over the target: the server has turned slow, and the held setting with it."""
        self._trial = None
        self._held, self._rate = trial.setting, trial.rate
        self._reduced_from = None
        self._shrink(latency_s, now)
        self._reduced_from = None  # the trial's few answers are from before and after the server changed

    def _end(self, trial: Trial) -> None:
        self._trial = None
        if trial.rate.count >= SURE_SAMPLES:
            self._response.learn(self._base, self._rate.images_per_s, trial.setting, trial.rate.images_per_s, 0.7)

    def _pass_on(self, *, clearly: bool = False) -> None:
        if self._tour.failed(clearly=clearly):
            self._settled_rate = self._rate.images_per_s

    def _feasible(self) -> tuple[Setting, bool] | None:
        """The next move's setting, and whether it may break the target; None where there is nothing to try."""
        if self._tour.is_resting():
            return None
        move, base = self._tour.next, self._base
        if not is_sensible(move, base, latency_is_free=self._is_free):
            return None
        limit = Setting(self._images_limit, self._config.max_batches_in_flight)
        setting = neighbour(base, move, self._stride(move), limit)
        if setting is None:
            return None
        room = self._target.room(self._rate, self._lone_s)
        if move.shrinks or self._response.growth(base, setting) <= room:
            return setting, False
        if move is Move.LARGER:  # a smaller step may still fit
            images = min(limit.images, int(base.images * min(_LARGEST_FIT, self._response.images_for(room))))
            return (Setting(images, base.in_flight), False) if images > 1.04 * base.images else None
        return (setting, True) if self._risks.allows(move, self._counted) else None

    def _stride(self, move: Move) -> float:
        return stride(move, starting=self._tour.starting, is_flat=self._response.is_flat_in_images)

    @property
    def _is_free(self) -> bool:
        return self._target.is_free(self._rate)

    @property
    def _base(self) -> Setting:
        """The held setting as it takes effect: bytes may allow fewer images."""
        return Setting(min(self._held.images, self._images_limit), self._held.in_flight)

    @property
    def _images_limit(self) -> int:
        by_bytes = self._request_size.size_bytes / self._bytes_per_image if self._bytes_per_image else math.inf
        return max(1, int(min(self._config.max_images, by_bytes)))

    # --- reducing ---

    @property
    def _lone_s(self) -> float:
        """What a lone small batch is expected to take."""
        return self._response.lone_s(self._held, self._rate.latency_s)

    def _shrink(self, latency_s: float, now: float) -> None:
        """Reduces the held setting by as much as its latency is over the target."""
        self._learn_from_decrease()
        rate, base = self._rate, self._base
        scale = self._target.scale(rate, latency_s, self._lone_s)
        is_sudden = latency_s > _SUDDEN * rate.latency_s  # what was measured before is no measure for what comes
        self._reduced_from = None if is_sudden else (base, rate.images_per_s)
        self._decrease(self._response.reduced(base, scale), "latency over target", now)

    def _learn_from_decrease(self) -> None:
        if self._reduced_from is not None and self._rate.count >= SURE_SAMPLES:
            self._response.learn(*self._reduced_from, self._held, self._rate.images_per_s, 0.5)
        self._reduced_from = None

    def _decrease(self, setting: Setting, reason: str, now: float) -> None:
        self._deaf_until = now + max(0.1, self._rate.latency_s)
        self._apply(setting, reason, self._rate.latency_s, now)
        self._held = setting
        self._decreases += 1
        self._tour.restart()
        self._measure_anew(now)

    def _forget(self, now: float) -> None:
        """What was measured is too old to compare with. The held setting is kept."""
        self._counted_at = now
        self._trial = None
        self._apply(self._held, "held, after a pause", 0.0, now)
        self._measure_anew(now)

    def _measure_anew(self, now: float) -> None:
        self._rate = Throughput()
        self._target.forgive()
        self._held_since = now

    def _apply(self, setting: Setting, reason: str, latency_s: float, now: float) -> None:
        self._reason = reason
        if setting != (self._plan.images, self._plan.in_flight):
            self._transition.change(setting, latency_s, now)
            self._plan = BatchPlan(setting.images, self._request_size.size_bytes, setting.in_flight)

    def _bound_bytes(self) -> None:
        size_bytes = self._request_size.size_bytes
        if size_bytes != self._plan.size_bytes:
            self._plan = BatchPlan(self._plan.images, size_bytes, self._plan.in_flight)
