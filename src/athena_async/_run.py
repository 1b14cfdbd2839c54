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

# Options of mallopt(3), their values in bytes, and the environment by which a user sets them: that stands.
_MALLOC_OPTIONS = ((-3, 128 * 1024 * 1024), (-1, 256 * 1024 * 1024))  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
_MALLOC_ENVIRONMENT = ("MALLOC_", "GLIBC_TUNABLES")


def run(main: Coroutine[Any, Any, _T], *, debug: bool | None = None) -> _T:
    """`asyncio.run` on uvloop where it is installed, and on asyncio's own loop elsewhere.

    While it runs the garbage collector looks less often: with Python's own thresholds it takes 15 to 25 % of the time
    of hash-only inputs, growing with what the program holds.

    From then on glibc's malloc keeps up to 256 MiB of freed memory for what comes next, unless the environment says
    otherwise: by its defaults a decoded photograph of 12 megapixels is mapped and zeroed page by page, each time, which
    takes as long as decoding it. A program that does not want this, or the above, uses `asyncio.run`.

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
    if sys.platform != "linux" or any(name.startswith(_MALLOC_ENVIRONMENT) for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, size_bytes in _MALLOC_OPTIONS:
            mallopt(option, size_bytes)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
