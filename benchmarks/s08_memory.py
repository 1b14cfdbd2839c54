"""Memory of `stream` over many hash-only inputs and many raw frames.

The scenario's own process is the one that is measured: a thread reads its resident size 50 times a second.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from athena_async import AthenaClient
from athena_async.config import LimitsConfig, PreprocessConfig
from benchmarks import children, inputs, ours
from benchmarks.measure import OURS, Figure, Report, Row, Scale, Target

_PAGE_BYTES = 4096
_MIB = 1024 * 1024
FLAT_FACTOR = 1.05


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


async def run(scale: Scale) -> Report:
    report = Report(series={"S8": {}})
    frames, digests = ours.arrays(inputs.frames()), inputs.digests(1000)
    kinds: list[tuple[str, int, Callable[[], Iterator[object]]]] = [
        ("hash-only", scale.pick(1_000_000, 40_000), lambda: (ours.hash_input(d) for d in itertools.cycle(digests))),
        ("raw frames", scale.pick(20_000, 1_000), lambda: itertools.cycle(frames)),
    ]
    for name, count, source in kinds:
        async with children.start("benchmarks.server") as sink:
            await _measure(report, sink.endpoint, f"{count:,} {name}", itertools.islice(source(), count))
    return report


async def _measure(report: Report, endpoint: str, what: str, images: Iterator[object]) -> None:
    config = ours.config(endpoint, preprocess=PreprocessConfig(encoding="none", hashes=()))
    async with AthenaClient(config) as client:
        await client.classify(next(images))
        gc.collect()
        base = resident_bytes()
        start = time.perf_counter()
        with Memory() as memory:
            async with contextlib.aclosing(client.stream(images)) as results:
                async for result in results:
                    result.raise_for_error()
        taken = time.perf_counter() - start
    limit = LimitsConfig().max_in_flight_bytes
    peak, growth = max(memory.samples) - base, second_half_growth(memory.samples)
    targets = [
        Target("<= 1.2x max_in_flight_bytes", peak / limit, 1.2, at_least=False),
        Target(f"second half flat, <= {FLAT_FACTOR}x", growth, FLAT_FACTOR, at_least=False),
    ]
    note = f"base {base / _MIB:.0f} MiB, max_in_flight_bytes {limit / _MIB:.0f} MiB, {taken:.1f} s"
    report.rows.append(Row("S8", f"{what}, peak over base", "MiB", {OURS: Figure((peak / _MIB,))}, targets, note))
    step = max(1, len(memory.samples) // 500)
    report.series["S8"][what] = [sample / _MIB for sample in memory.samples[::step]]
