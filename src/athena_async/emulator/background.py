"""Work that outlives the call that asked for it, under one owner."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class Background:
    """Invariants: every task started here has ended when `aclose` returns; the first failure of one is
    kept, and raised there: a failure is a fault of the emulator itself.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)

    async def finish(self) -> None:
        """Waits for the end of everything that was started so far."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def cancel(self) -> None:
        """Cancels everything and waits for its end."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def aclose(self) -> None:
        """As `cancel`.

        Raises:
            BaseException: the first failure of a task, if there was one.
        """
        await self.cancel()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and self._failure is None:
            self._failure = task.exception()

    def __len__(self) -> int:
        return len(self._tasks)

    def __repr__(self) -> str:
        return f"Background({len(self)} tasks)"
