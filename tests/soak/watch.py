"""What a process holds, sampled while it runs, and whether it grows."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

MiB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Sample:
    """This process at one moment."""

    at_s: float
    resident_bytes: int
    tasks: int
    threads: int
    descriptors: int


def take() -> Sample:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    descriptors = len(os.listdir("/proc/self/fd"))
    tasks = len(asyncio.all_tasks())
    return Sample(time.monotonic(), pages * os.sysconf("SC_PAGE_SIZE"), tasks, threading.active_count(), descriptors)


def trim() -> None:
    """Has glibc's malloc give back what it keeps of freed memory; elsewhere nothing."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if malloc_trim is not None:
        malloc_trim(0)


def slope(samples: list[Sample]) -> float:
    """Bytes a second by which resident memory grows: least squares over the later two thirds."""
    later = samples[len(samples) // 3 :]
    if len(later) < 2:
        return 0.0
    mean_s = sum(sample.at_s for sample in later) / len(later)
    mean_bytes = sum(sample.resident_bytes for sample in later) / len(later)
    spread = sum((sample.at_s - mean_s) ** 2 for sample in later)
    together = sum((sample.at_s - mean_s) * (sample.resident_bytes - mean_bytes) for sample in later)
    return together / spread


class Watch:
    """Samples every ``interval_s`` until stopped."""

    def __init__(self, interval_s: float) -> None:
        self.samples: list[Sample] = []
        self._interval_s = interval_s

    async def run(self) -> None:
        while True:
            self.samples.append(take())
            await asyncio.sleep(self._interval_s)
