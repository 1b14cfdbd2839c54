"""A deterministic simulation of batching against servers of different kinds (scenario S6, and its plots).

    python -m benchmarks.simulate_batching            # table: adaptive against the best fixed batch size
    python -m benchmarks.simulate_batching --plots    # the controller's course under each profile, as PNG

The model: batches pass a link of limited bandwidth one after the other, wait first-in first-out for one
of the server's workers, are served for ``fixed_s + images * per_image_s`` (times drift, noise and the knee),
and their answer returns after the way back. The client always has images waiting. Everything is computed
from events in virtual time with a seed, so two runs are equal to the last bit.

The peer has the search that a careful operator would do, and more: every batch size on a ladder, each
with every limit of batches in flight from 1 to the maximum, on the same server and seed; the best is the
greatest throughput whose p95 latency is inside the target over the whole run. The controller starts from
its defaults in the same run; nothing is taken off for its way up unless the table says so.
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from athena_async.batching.controller import BatchController
from athena_async.config import RAW_FRAME_BYTES, BatchingConfig

RESULTS = Path(__file__).parent / "results"
LADDER = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 40, 48, 64, 96, 128, 160, 200)


def _steady(_at_s: float) -> float:
    return 1.0


def drift(start_s: float, end_s: float, factor: float) -> Callable[[float], float]:
    """Cost grows from 1 to ``factor`` between two times, in a straight line, and stays."""

    def scale(at_s: float) -> float:
        passed = (at_s - start_s) / (end_s - start_s)
        return 1.0 + (factor - 1.0) * min(1.0, max(0.0, passed))

    return scale


@dataclass(frozen=True, slots=True)
class Profile:
    """A server and the way to it.

    Attributes:
        fixed_s, per_image_s: cost of a batch on one worker.
        knee_images, beyond_knee_s: images past the knee cost this much more each.
        workers: batches served at once.
        round_trip_s: time on the way, there and back together.
        bytes_per_s: bandwidth towards the server.
        image_bytes: size of one image on the wire.
        noise: sigma of the lognormal factor on each batch's cost.
        pause_every_s, pause_s: all workers stop for so long now and then (garbage collection).
        cold_start_s: the first batches find no worker before this time.
        client_batch_s, client_image_s: the client's own time to send, one batch after the other.
        scale: factor on the cost at a time.
        longest_s: length of a run that is enough, for servers that answer thousands of batches a second.
    """

    name: str
    fixed_s: float = 0.0
    per_image_s: float = 0.0
    knee_images: int = 1_000_000
    beyond_knee_s: float = 0.0
    workers: int = 1
    round_trip_s: float = 0.002
    bytes_per_s: float = math.inf
    image_bytes: int = 50
    noise: float = 0.1
    pause_every_s: float = math.inf
    pause_s: float = 0.0
    cold_start_s: float = 0.0
    client_batch_s: float = 0.0
    client_image_s: float = 0.0
    scale: Callable[[float], float] = field(default=_steady)
    longest_s: float = math.inf

    def cost_s(self, images: int, at_s: float) -> float:
        """Time of one worker for a batch, without noise."""
        beyond = max(0, images - self.knee_images)
        return (self.fixed_s + self.per_image_s * images + self.beyond_knee_s * beyond) * self.scale(at_s)


PROFILES: tuple[Profile, ...] = (
    Profile("fixed", fixed_s=0.08, per_image_s=0.0001),
    Profile("per-item", fixed_s=0.001, per_image_s=0.005),
    Profile("knee", fixed_s=0.03, per_image_s=0.001, knee_images=32, beyond_knee_s=0.01),
    Profile("drift", fixed_s=0.03, per_image_s=0.002, scale=drift(10.0, 50.0, 5.0)),
    Profile("bandwidth", fixed_s=0.002, bytes_per_s=50e6, image_bytes=RAW_FRAME_BYTES, round_trip_s=0.02, workers=4),
)
"""The five of S6."""

VARIANTS: tuple[Profile, ...] = (
    *(replace(profile, name=f"{profile.name} x4", workers=4) for profile in PROFILES[:4]),
    replace(PROFILES[0], name="fixed x8, slow", fixed_s=0.6, workers=8),
    replace(PROFILES[0], name="fixed, slow", fixed_s=0.45),
    Profile("fixed + per-item, slow", fixed_s=0.05, per_image_s=0.01, round_trip_s=0.02),
    Profile("per-item, slow", fixed_s=0.002, per_image_s=0.05),
    Profile("knee, noisy", fixed_s=0.03, per_image_s=0.001, knee_images=32, beyond_knee_s=0.01, noise=0.3),
    Profile("knee, pauses", fixed_s=0.03, per_image_s=0.001, knee_images=32, beyond_knee_s=0.01, pause_every_s=7.0,
            pause_s=0.6),
    Profile("cold start", fixed_s=0.03, per_image_s=0.002, cold_start_s=8.0),
    Profile("sudden 5x and back", fixed_s=0.03, per_image_s=0.002,
            scale=lambda at_s: 5.0 if 20.0 <= at_s < 40.0 else 1.0),
    Profile("thin link", fixed_s=0.002, bytes_per_s=6.25e6, image_bytes=RAW_FRAME_BYTES, round_trip_s=0.03, workers=4),
    Profile("thin link, far", fixed_s=0.002, bytes_per_s=6.25e6, image_bytes=RAW_FRAME_BYTES, round_trip_s=0.08,
            workers=4),
    Profile("thin link, far, webp", fixed_s=0.002, bytes_per_s=6.25e6, image_bytes=270_000, round_trip_s=0.08,
            workers=4),
    Profile("webp over a link", fixed_s=0.005, per_image_s=0.0005, bytes_per_s=12.5e6, image_bytes=250_000,
            round_trip_s=0.04, workers=2),
    Profile("far away", fixed_s=0.01, per_image_s=0.001, round_trip_s=0.15, workers=4),
    Profile("loopback sink, hashes", fixed_s=0.0001, per_image_s=0.000001, round_trip_s=0.0003, noise=0.5, workers=2,
            client_batch_s=0.0002, client_image_s=0.000002, longest_s=3.0),
    Profile("loopback sink, frames", fixed_s=0.0002, bytes_per_s=2.4e9, image_bytes=RAW_FRAME_BYTES, noise=0.5,
            round_trip_s=0.0003, workers=2, client_batch_s=0.0002, client_image_s=0.0002, longest_s=3.0),
)  # fmt: skip
"""Other servers that no setting may have to be changed for."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One answered batch: when it was sent and answered, and what the controller planned then."""

    sent_s: float
    answered_s: float
    images: int
    in_flight: int
    planned_images: int
    planned_in_flight: int

    @property
    def latency_s(self) -> float:
        return self.answered_s - self.sent_s


@dataclass(frozen=True, slots=True)
class Trace:
    """What a run brought: every batch answered within it, in the order of the answers."""

    profile: Profile
    seconds: float
    samples: tuple[Sample, ...]

    def after(self, start_s: float) -> Trace:
        """The part of the run whose batches were sent after ``start_s``."""
        late = tuple(sample for sample in self.samples if sample.sent_s >= start_s)
        return Trace(self.profile, self.seconds - start_s, late)

    @property
    def images_per_s(self) -> float:
        return sum(sample.images for sample in self.samples) / self.seconds

    def latency_s(self, quantile: float) -> float:
        """The quantile of the batches' latencies; infinite without any."""
        ordered = sorted(sample.latency_s for sample in self.samples)
        return ordered[min(len(ordered) - 1, int(quantile * len(ordered)))] if ordered else math.inf


@dataclass(frozen=True, slots=True)
class Fixed:
    """The peer: always this many images a batch, and this many batches in flight."""

    images: int
    in_flight: int


class _Server:
    """The link and the workers: says when a batch sent now will be answered."""

    def __init__(self, profile: Profile, seed: int) -> None:
        self._profile = profile
        self._rng = random.Random(seed)
        self._client_free_s = 0.0
        self._link_free_s = 0.0
        self._workers = [profile.cold_start_s] * profile.workers
        self._next_pause_s = profile.pause_every_s

    def send(self, images: int, now: float) -> tuple[float, float]:
        """Returns when the client is free again and when the batch is answered."""
        profile = self._profile
        self._client_free_s = max(now, self._client_free_s) + profile.client_batch_s + images * profile.client_image_s
        self._link_free_s = max(self._client_free_s, self._link_free_s)
        self._link_free_s += images * profile.image_bytes / profile.bytes_per_s
        arrived_s = self._link_free_s + profile.round_trip_s / 2
        start_s = max(arrived_s, heapq.heappop(self._workers))
        if start_s >= self._next_pause_s:
            start_s = max(start_s, self._next_pause_s + profile.pause_s)
            self._workers = [max(free_s, start_s) for free_s in self._workers]
            heapq.heapify(self._workers)
            self._next_pause_s += profile.pause_every_s
        noise = self._rng.lognormvariate(-(profile.noise**2) / 2, profile.noise)
        done_s = start_s + profile.cost_s(images, start_s) * noise
        heapq.heappush(self._workers, done_s)
        return self._client_free_s, done_s + profile.round_trip_s / 2


def simulate(
    profile: Profile,
    policy: BatchController | Fixed | None = None,
    seconds: float = 60.0,
    seed: int = 1,
    config: BatchingConfig | None = None,
) -> Trace:
    """Runs a saturated client against ``profile`` for ``seconds`` of virtual time.

    Args:
        profile: the server.
        policy: a controller, the peer, or None for a new controller with ``config``.
        seconds: length of the run.
        seed: of the noise; equal seeds give equal traces.
        config: limits; the defaults where None.
    """
    config = config or BatchingConfig()
    seconds = min(seconds, profile.longest_s)
    policy = policy or BatchController(config)
    server = _Server(profile, seed)
    by_bytes = max(1, config.max_bytes // profile.image_bytes)
    answers: list[tuple[float, int, Sample]] = []
    samples: list[Sample] = []
    now = client_free_s = 0.0
    while True:
        images, in_flight = _plan(policy, now)
        size = min(images, by_bytes)
        leaving: list[tuple[float, float]] = []
        while len(answers) + len(leaving) < in_flight and now >= client_free_s:
            client_free_s, answered_s = server.send(size, now)
            leaving.append((now, answered_s))
        together = len(answers) + len(leaving)  # those that leave in the same moment count each other
        for sent_s, answered_s in leaving:
            sample = Sample(sent_s, answered_s, size, together, images, in_flight)
            heapq.heappush(answers, (answered_s, len(samples) + len(answers), sample))
        if len(answers) < in_flight and (not answers or client_free_s < answers[0][0]):
            now = client_free_s
            continue
        now, _, sample = heapq.heappop(answers)
        if now > seconds:
            return Trace(profile, seconds, tuple(samples))
        samples.append(sample)
        if isinstance(policy, BatchController):
            policy.observe(
                images=sample.images, size_bytes=sample.images * profile.image_bytes, latency_s=sample.latency_s,
                in_flight=sample.in_flight, queue_depth=10_000, now=now,
            )  # fmt: skip


def _plan(policy: BatchController | Fixed, now: float) -> tuple[int, int]:
    if isinstance(policy, Fixed):
        return policy.images, policy.in_flight
    plan = policy.plan(now)
    return plan.images, plan.in_flight


def best_fixed(
    profile: Profile, seconds: float, seed: int, config: BatchingConfig, warm_s: float = 0.0
) -> tuple[Fixed, Trace] | None:
    """The peer with the greatest throughput among those whose p95 is inside the target; None without any."""
    best: tuple[Fixed, Trace] | None = None
    by_bytes = max(1, config.max_bytes // profile.image_bytes)
    sizes = sorted({min(size, by_bytes, config.max_images) for size in LADDER})
    for size in sizes:
        for in_flight in range(1, config.max_batches_in_flight + 1):
            fixed = Fixed(size, in_flight)
            trace = simulate(profile, fixed, seconds, seed, config).after(warm_s)
            if trace.latency_s(0.95) > config.target_latency_s:
                break  # more in flight only waits longer
            if best is None or trace.images_per_s > best[1].images_per_s:
                best = fixed, trace
    return best


@dataclass(frozen=True, slots=True)
class Comparison:
    """The controller beside the best fixed peer on one profile, over several seeds.

    Attributes:
        fixed, fixed_trace: the peer that was found for the median seed, and its run.
        trace: the controller's run with that seed.
        ratio, worst_ratio: throughput of the controller over that of the peer, median and least.
        p95_s: greatest p95 latency of the controller.
    """

    profile: Profile
    fixed: Fixed
    fixed_trace: Trace
    trace: Trace
    ratio: float
    worst_ratio: float
    p95_s: float


def compare(
    profile: Profile, seconds: float, seeds: Sequence[int], config: BatchingConfig, warm_s: float = 0.0
) -> Comparison:
    """Searches the peer for each seed and runs the controller beside it; both are measured from ``warm_s`` on."""
    runs = []
    for seed in seeds:
        found = best_fixed(profile, seconds, seed, config, warm_s)
        if found is None:
            raise ValueError(f"{profile.name}: no fixed size keeps p95 inside {config.target_latency_s} s")
        trace = simulate(profile, None, seconds, seed, config).after(warm_s)
        runs.append((trace.images_per_s / found[1].images_per_s, *found, trace))
    runs.sort(key=lambda run: run[0])
    ratio, fixed, fixed_trace, trace = runs[len(runs) // 2]
    p95_s = max(run[3].latency_s(0.95) for run in runs)
    return Comparison(profile, fixed, fixed_trace, trace, ratio, runs[0][0], p95_s)


def table(comparisons: Sequence[Comparison]) -> str:
    """One line a profile."""
    names = ("best fixed", "images/s", "p95 s", "ours", "p95 s", "ratio", "worst")
    widths = (11, 10, 6, 10, 6, 6, 6)
    lines = [f"{'profile':24} " + " ".join(f"{name:>{width}}" for name, width in zip(names, widths, strict=True))]
    for each in comparisons:
        fixed = f"{each.fixed.images} x {each.fixed.in_flight}"
        lines.append(
            f"{each.profile.name:24} {fixed:>11} {each.fixed_trace.images_per_s:10.1f} "
            f"{each.fixed_trace.latency_s(0.95):6.3f} {each.trace.images_per_s:10.1f} {each.p95_s:6.3f} "
            f"{each.ratio:6.2f} {each.worst_ratio:6.2f}"
        )
    return "\n".join(lines)


def plot(traces: Sequence[Trace], target_latency_s: float, path: Path) -> None:
    """Draws the course of the controller in each run, one column a profile, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6 * len(traces), 7.0), layout="constrained")
    for column, (trace, panes) in enumerate(zip(traces, zip(*_panes(figure, len(traces)), strict=True), strict=True)):
        images, in_flight, latency, throughput = panes
        at_s = [sample.answered_s for sample in trace.samples]
        images.step(at_s, [sample.planned_images for sample in trace.samples], where="post", color="C0")
        images.set_title(trace.profile.name)
        in_flight.step(at_s, [sample.planned_in_flight for sample in trace.samples], where="post", color="C1")
        latency.plot(at_s, [sample.latency_s for sample in trace.samples], ".", markersize=2, color="C2")
        latency.axhline(target_latency_s, color="0.5", linestyle="--", linewidth=1)
        throughput.step(*_per_second(trace), where="post", color="C3")
        throughput.set_xlabel("s")
        if column == 0:
            names = ("images a batch", "batches in flight", "latency, s", "images/s")
            for pane, name in zip(panes, names, strict=True):
                pane.set_ylabel(name)
        for pane in panes:
            pane.set_ylim(bottom=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def _panes(figure: Any, columns: int) -> Any:
    return figure.subplots(4, columns, sharex="col", squeeze=False)


def _per_second(trace: Trace) -> tuple[list[float], list[float]]:
    counts: dict[int, int] = {}
    for sample in trace.samples:
        second = int(sample.answered_s)
        counts[second] = counts.get(second, 0) + sample.images
    seconds = sorted(counts)
    return [float(second) for second in seconds], [float(counts[second]) for second in seconds]


def main() -> None:
    """Prints the table, and draws the plots where asked to."""
    parser = argparse.ArgumentParser(description="Adaptive batching against the best fixed batch size, simulated.")
    parser.add_argument("--seconds", type=float, default=60.0, help="virtual length of a run (default: 60)")
    parser.add_argument(
        "--warm", type=float, default=0.0, help="seconds left out at the start of each run (default: 0)"
    )
    parser.add_argument("--target", type=float, default=1.0, help="target latency in seconds (default: 1)")
    parser.add_argument("--seeds", type=int, default=3, help="seeds to run (default: 3)")
    parser.add_argument("--all", action="store_true", help="not only the five profiles of S6, but the others too")
    parser.add_argument("--plots", action="store_true", help=f"draw the courses into {RESULTS.name}/batching.png")
    asked = parser.parse_args()
    config = BatchingConfig(target_latency_s=asked.target)
    profiles = PROFILES + VARIANTS if asked.all else PROFILES
    seeds = range(1, asked.seeds + 1)
    print(table([compare(profile, asked.seconds, seeds, config, asked.warm) for profile in profiles]))
    if asked.plots:
        path = RESULTS / "batching.png"
        plot([simulate(profile, None, asked.seconds, 1, config) for profile in PROFILES], asked.target, path)
        print(f"drawn: {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path.name}")


if __name__ == "__main__":
    main()
