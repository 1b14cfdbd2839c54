"""What a process holds, sampled while it runs, and whether it grows."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MiB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Heap:
    """What of the resident memory is in use: it tells growth that somebody holds from what the allocators keep.

    Attributes:
        used_bytes: handed out by glibc's malloc, large blocks included; 0 where there is no glibc.
        kept_bytes: freed and kept by it for the next time, resident or not.
        python_blocks: small blocks of the interpreter's own allocator in use.
    """

    used_bytes: int
    kept_bytes: int
    python_blocks: int

    @property
    def held_bytes(self) -> int:
        """What somebody holds, a block of the interpreter's taken as 64 bytes."""
        return self.used_bytes + 64 * self.python_blocks


@dataclass(frozen=True, slots=True)
class Sample:
    """This process at one moment."""

    at_s: float
    resident_bytes: int
    heap: Heap
    tasks: int
    threads: int
    descriptors: int


class _Mallinfo2(ctypes.Structure):
    """``struct mallinfo2`` of <malloc.h>, glibc 2.33 and newer."""

    _names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = tuple((name, ctypes.c_size_t) for name in _names.split())


def _glibc(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


def _heap() -> Heap:
    mallinfo2 = _glibc("mallinfo2")
    if mallinfo2 is None:
        return Heap(0, 0, sys.getallocatedblocks())
    mallinfo2.restype = _Mallinfo2
    found = mallinfo2()
    return Heap(found.uordblks + found.hblkhd, found.fordblks, sys.getallocatedblocks())


def take() -> Sample:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    descriptors = len(os.listdir("/proc/self/fd"))
    tasks = len(asyncio.all_tasks())
    resident_bytes = pages * os.sysconf("SC_PAGE_SIZE")
    return Sample(time.monotonic(), resident_bytes, _heap(), tasks, threading.active_count(), descriptors)


def trim() -> None:
    """Has glibc's malloc give back what it keeps of freed memory; elsewhere nothing."""
    malloc_trim = _glibc("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def slope(samples: list[Sample], of: Callable[[Sample], int]) -> float:
    """Bytes a second by which a quantity grows: least squares over the later two thirds."""
    later = samples[len(samples) // 3 :]
    if len(later) < 2:
        return 0.0
    mean_s = sum(sample.at_s for sample in later) / len(later)
    mean_bytes = sum(of(sample) for sample in later) / len(later)
    spread = sum((sample.at_s - mean_s) ** 2 for sample in later)
    together = sum((sample.at_s - mean_s) * (of(sample) - mean_bytes) for sample in later)
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
