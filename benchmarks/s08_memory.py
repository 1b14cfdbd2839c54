"""Memory of `stream` over many hash-only inputs and many raw frames.

Each run's own process is the one that is measured: a thread reads its resident size 50 times a second. The peers run
after ours, once, in a full run; the official client with a tenth of the inputs, as it would take minutes.
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
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from athena_async import AthenaClient, wire
from athena_async.config import LimitsConfig, PreprocessConfig
from benchmarks import children, hand_rolled, inputs, official, ours
from benchmarks.measure import HAND_ROLLED, OFFICIAL, OURS, Figure, Report, Row, Scale, Target

_PAGE_BYTES = 4096
_MIB = 1024 * 1024
FLAT_FACTOR = 1.05
HASHES, FRAMES = "hash-only", "raw frames"
PEER_BATCHES = {HASHES: 200, FRAMES: 6}

Work = Callable[[int], Awaitable[None]]
"""Has so many inputs classified."""


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
        await asyncio.gather(*(_in_new_process(OURS, kind, count) for kind, count in counts.items()))
        for _ in range(scale.pick(3, 1))
    ]
    for (kind, count), courses in zip(counts.items(), zip(*rounds, strict=True), strict=True):
        what = f"{count:,} {kind}"
        shares = {} if scale.quick else {OFFICIAL: count // 10, HAND_ROLLED: count}
        peers = {peer: await _in_new_process(peer, kind, share) for peer, share in shares.items()}
        report.rows.append(_row(what, courses, peers))
        samples = courses[-1].samples
        report.series["S8"][what] = [sample / _MIB for sample in samples[:: max(1, len(samples) // 500)]]
    return report


async def _in_new_process(peer: str, kind: str, count: int) -> Course:
    return Course(**json.loads(await children.finish("benchmarks.s08_memory", peer, kind, str(count))))


def _row(what: str, courses: Sequence[Course], peers: Mapping[str, Course]) -> Row:
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
    figures = {OURS: peak, **{peer: Figure((course.peak_bytes / _MIB,)) for peer, course in peers.items()}}
    for peer, course in peers.items():
        note += f"\n{peer}: second half {second_half_growth(course.samples):.3f}x, {course.seconds:.1f} s"
        note += ", a tenth of the inputs" if peer == OFFICIAL else ""
    return Row("S8", f"{what}, peak over base", "MiB", figures, targets, note)


@contextlib.asynccontextmanager
async def _own(endpoint: str, kind: str) -> AsyncIterator[Work]:
    """Our client with a lazy source, whose images share memory."""
    images: Iterator[object]
    if kind == FRAMES:
        images = itertools.cycle(ours.arrays(inputs.frames()))
    else:
        images = (ours.hash_input(digest) for digest in itertools.cycle(inputs.digests(1000)))
    config = ours.config(endpoint, preprocess=PreprocessConfig(encoding="none", hashes=()))
    async with AthenaClient(config) as client:

        async def classify(count: int) -> None:
            async with contextlib.aclosing(client.stream(itertools.islice(images, count))) as results:
                async for result in results:
                    result.raise_for_error()

        yield classify


@contextlib.asynccontextmanager
async def _official(endpoint: str, kind: str) -> AsyncIterator[Work]:
    """The official client with a lazy source, whose images share memory."""
    is_frames = kind == FRAMES
    images = itertools.cycle(inputs.frames() if is_frames else inputs.tiny(1000))
    settings = official.Settings(batch=PEER_BATCHES[kind], resize=is_frames, compress=False)
    async with official.connected(endpoint, settings) as client:

        async def classify(count: int) -> None:
            async with contextlib.aclosing(official.answers(client, images)) as answers:
                async for answered in answers:
                    count -= answered
                    if count <= 0:
                        return

        yield classify


@contextlib.asynccontextmanager
async def _hand_rolled(endpoint: str, kind: str) -> AsyncIterator[Work]:
    """Streams that repeat one request."""
    batch = PEER_BATCHES[kind]
    if kind == FRAMES:
        frames = inputs.repeated(inputs.frames(), batch)
        payloads = [wire.Payload(frame, wire.ImageFormat.RAW_UINT8_BGR) for frame in frames]
    else:
        payloads = [wire.Payload(b"", md5=(digest,)) for digest in inputs.digests(batch)]
    [message] = hand_rolled.requests(payloads, batch)
    async with hand_rolled.connections(endpoint, 2) as channels:

        async def classify(count: int) -> None:
            await hand_rolled.stream(channels, [message] * max(len(channels), count // batch))

        yield classify


_PEERS = {OURS: _own, OFFICIAL: _official, HAND_ROLLED: _hand_rolled}


async def _measure(peer: str, kind: str, count: int) -> Course:
    async with children.start("benchmarks.server") as sink, _PEERS[peer](sink.endpoint, kind) as classify:
        await classify(1)
        gc.collect()
        base_bytes = resident_bytes()
        start = time.perf_counter()
        with Memory() as memory:
            await classify(count)
        taken_s = time.perf_counter() - start
    return Course(base_bytes, memory.samples, taken_s)


def main() -> None:
    """Runs one peer with one kind, and prints its course as JSON."""
    parser = argparse.ArgumentParser(description="Memory of one run; ends when standard input closes.")
    parser.add_argument("peer", choices=_PEERS)
    parser.add_argument("kind", choices=(HASHES, FRAMES))
    parser.add_argument("count", type=int)
    given = parser.parse_args()
    children.end_with_parent()
    print(json.dumps(asdict(asyncio.run(_measure(given.peer, given.kind, given.count)))))


if __name__ == "__main__":
    main()
