"""Memory of `stream` over many hash-only inputs and many raw frames.

Each run's own process is the one that is measured: a thread reads its resident size 50 times a second.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import itertools
import json
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from athena_async import AthenaClient
from athena_async.config import LimitsConfig, PreprocessConfig
from benchmarks import children, inputs, ours
from benchmarks.measure import OURS, Figure, Report, Row, Scale, Target

_PAGE_BYTES = 4096
_MIB = 1024 * 1024
FLAT_FACTOR = 1.05
HASHES, FRAMES = "hash-only", "raw frames"


class Memory:
    """Samples this process's resident bytes until closed."""

    def __init__(self, every_s: float = 0.02) -> None:
        self.samples: list[int] = []
        self._every_s = every_s
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closed.wait(self._every_s):
            self.samples.append(resident_bytes())


def resident_bytes() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES


def second_half_growth(samples: list[int]) -> float:
    """Peak of the last quarter over the peak of the one before it: 1.0 is flat."""
    quarter = len(samples) // 4
    return max(samples[-quarter:]) / max(samples[-2 * quarter : -quarter])


@dataclass(frozen=True, slots=True)
class Course:
    """One run: resident memory before it and while it lasted."""

    base_bytes: int
    samples: list[int]
    seconds: float

    @property
    def peak_bytes(self) -> int:
        """Above the base."""
        return max(self.samples) - self.base_bytes


async def run(scale: Scale) -> Report:
    """Each run has a process of its own: what one left resident is no base for the next. The kinds run side by side."""
    report = Report(series={"S8": {}})
    counts = {HASHES: scale.pick(1_000_000, 40_000), FRAMES: scale.pick(20_000, 1_000)}
    rounds = [
        await asyncio.gather(*(_in_new_process(kind, count) for kind, count in counts.items()))
        for _ in range(scale.pick(3, 1))
    ]
    for (kind, count), courses in zip(counts.items(), zip(*rounds, strict=True), strict=True):
        what = f"{count:,} {kind}"
        report.rows.append(_row(what, courses))
        samples = courses[-1].samples
        report.series["S8"][what] = [sample / _MIB for sample in samples[:: max(1, len(samples) // 500)]]
    return report


async def _in_new_process(kind: str, count: int) -> Course:
    return Course(**json.loads(await children.finish("benchmarks.s08_memory", kind, str(count))))


def _row(what: str, courses: Sequence[Course]) -> Row:
    limit_bytes = LimitsConfig().max_in_flight_bytes
    peak = Figure(tuple(course.peak_bytes / _MIB for course in courses))
    growth = Figure(tuple(second_half_growth(course.samples) for course in courses))
    targets = [
        Target("<= 1.2x max_in_flight_bytes", peak.median * _MIB / limit_bytes, 1.2, at_least=False),
        Target(f"second half flat, <= {FLAT_FACTOR}x", growth.median, FLAT_FACTOR, at_least=False),
    ]
    base_bytes = statistics.median(course.base_bytes for course in courses)
    note = (
        f"base {base_bytes / _MIB:.0f} MiB, max_in_flight_bytes {limit_bytes / _MIB:.0f} MiB, "
        f"second half {growth.low:.3f} to {growth.high:.3f}x, "
        f"{statistics.median(course.seconds for course in courses):.1f} s"
    )
    return Row("S8", f"{what}, peak over base", "MiB", {OURS: peak}, targets, note)


def _images(kind: str, count: int) -> Iterator[object]:
    """A lazy source, whose images share memory."""
    endless: Iterator[object]
    if kind == FRAMES:
        endless = itertools.cycle(ours.arrays(inputs.frames()))
    else:
        endless = (ours.hash_input(digest) for digest in itertools.cycle(inputs.digests(1000)))
    return itertools.islice(endless, count)


async def _measure(kind: str, count: int) -> Course:
    images = _images(kind, count)
    async with children.start("benchmarks.server") as sink:
        config = ours.config(sink.endpoint, preprocess=PreprocessConfig(encoding="none", hashes=()))
        async with AthenaClient(config) as client:
            await client.classify(next(images))
            gc.collect()
            base_bytes = resident_bytes()
            start = time.perf_counter()
            with Memory() as memory:
                async with contextlib.aclosing(client.stream(images)) as results:
                    async for result in results:
                        result.raise_for_error()
            taken_s = time.perf_counter() - start
    return Course(base_bytes, memory.samples, taken_s)


def main() -> None:
    """Runs one kind, and prints its course as JSON."""
    parser = argparse.ArgumentParser(description="Memory of one run; ends when standard input closes.")
    parser.add_argument("kind", choices=(HASHES, FRAMES))
    parser.add_argument("count", type=int)
    given = parser.parse_args()
    children.end_with_parent()
    print(json.dumps(asdict(asyncio.run(_measure(given.kind, given.count)))))


if __name__ == "__main__":
    main()
