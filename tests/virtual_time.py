"""An event loop whose clock jumps to the next timer when nothing else is to be done.

For programs without real input and output: timers, tasks, futures, and threads while no timer runs. Never over
real gRPC, whose core keeps wall-clock timers of its own.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_THREAD_PATIENCE_S = 10.0


class _JumpingSelector(selectors.SelectSelector):
    """Polls only, and jumps the clock by the time it was asked to wait."""

    loop: VirtualTimeLoop

    def select(self, timeout: float | None = None) -> list[Any]:
        # Without a timer only a thread can wake the loop, and threads live in real time.
        ready = super().select(_THREAD_PATIENCE_S if timeout is None else 0)
        if not ready and timeout is None:
            raise RuntimeError("deadlock: every task waits, and no timer is set")
        if not ready and timeout:
            self.loop.jump(timeout)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """``time()`` starts at 0 and moves only by jumps."""

    def __init__(self) -> None:
        self._virtual_s = 0.0
        selector = _JumpingSelector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self._virtual_s

    def jump(self, seconds: float) -> None:
        """Lets time pass at once, as a stalled machine would see it."""
        self._virtual_s += seconds


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` in virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
