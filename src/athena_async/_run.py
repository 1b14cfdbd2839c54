"""`run`: a program's main coroutine on the faster event loop."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")

# Youngest, middle and oldest generation of the garbage collector. Images make many objects and next to no cycles.
_GC_THRESHOLDS = (50_000, 20, 100)

# mallopt(3): option numbers, sizes in bytes, and the environment by which a user sets them, which stands.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MMAP_THRESHOLDS = (128 * 1024 * 1024, 32 * 1024 * 1024)
"""The first that is accepted; older versions take no more than the second."""
_TRIM_THRESHOLD = 256 * 1024 * 1024
_MALLOC_ENVIRONMENT = {
    "GLIBC_TUNABLES", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_TRIM_THRESHOLD_",
}  # fmt: skip


def run(main: Coroutine[Any, Any, _T], *, debug: bool | None = None) -> _T:
    """`asyncio.run` on uvloop where it is installed, and on asyncio's own loop elsewhere.

    While it runs the garbage collector looks less often: with Python's own thresholds it takes 15 to 25 % of the time
    of hash-only inputs, growing with what the program holds.

    From then on glibc's malloc keeps freed memory for what comes next, up to 256 MiB and 64 MiB for each thread that
    decodes, unless the environment says otherwise: by its defaults a decoded photograph of 12 megapixels is mapped and
    zeroed page by page, each time, which takes as long as decoding it. A program that does not want this, or the
    above, uses `asyncio.run`.

    The loop policy is never touched: loops that the program makes otherwise are its own affair.
    As with `asyncio.run`, Ctrl-C cancels ``main``, and tasks that are left are cancelled at its end.

    Args:
        main: the coroutine to run.
        debug: asyncio's debug mode; None leaves it to PYTHONASYNCIODEBUG.

    Returns:
        What ``main`` returns.
    """
    _keep_freed_memory()
    before = gc.get_threshold()
    gc.set_threshold(*_GC_THRESHOLDS)
    try:
        with asyncio.Runner(debug=debug, loop_factory=_loop_factory()) as runner:
            return runner.run(main)
    finally:
        gc.set_threshold(*before)


def _keep_freed_memory() -> None:
    """Where malloc is not glibc's there is no such function, or one that does nothing."""
    if sys.platform != "linux" or not _MALLOC_ENVIRONMENT.isdisjoint(os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    # Either option ends malloc's own adjustment of both, so they are set together or not at all.
    if mallopt is not None and any(mallopt(_M_MMAP_THRESHOLD, size_bytes) for size_bytes in _MMAP_THRESHOLDS):
        mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
