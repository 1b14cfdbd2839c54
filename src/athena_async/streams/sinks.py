"""Where the results of one call gather: a slot for each image, one wake-up for the caller."""

from __future__ import annotations

import asyncio
from collections import deque

from athena_async.results import ClassificationResult


class GatheringSink:
    """Results of `classify_many`, in input order.

    Invariants: ``results[i]`` is set once; the waiter wakes when the last expected one is.
    """

    def __init__(self) -> None:
        self.abandoned = False
        self.results: list[ClassificationResult | None] = []
        self._open_count = 0
        self._done: asyncio.Future[None] | None = None

    def expect(self) -> int:
        """One more image; returns its index."""
        self.results.append(None)
        self._open_count += 1
        return len(self.results) - 1

    def deliver(self, result: ClassificationResult) -> None:
        self.results[result.index] = result
        self._open_count -= 1
        if not self._open_count and self._done is not None and not self._done.done():
            self._done.set_result(None)

    async def wait(self) -> list[ClassificationResult]:
        """All results, once they are there. Cancelling stops the wait only."""
        if self._open_count:
            self._done = asyncio.get_running_loop().create_future()
            await self._done
        return [result for result in self.results if result is not None]


class StreamingSink:
    """Results of `stream`, as they come.

    Invariants: at most ``window`` images are taken from the source and not yet consumed; the waiter wakes on
    a result or on the end.
    """

    def __init__(self, window: int) -> None:
        self.abandoned = False
        self._ready: deque[ClassificationResult] = deque()
        self._taken = 0
        self._open_count = 0
        self._window = window
        self._ended = False
        self._failure: BaseException | None = None
        self._changed = asyncio.Event()
        self._consumed = asyncio.Event()

    def expect(self) -> int:
        """One more image; returns its index."""
        self._open_count += 1
        self._taken += 1
        return self._taken - 1

    def deliver(self, result: ClassificationResult) -> None:
        self._ready.append(result)
        self._open_count -= 1
        self._changed.set()

    def end(self, failure: BaseException | None = None) -> None:
        """The source is exhausted, or failed."""
        self._ended = True
        self._failure = failure
        self._changed.set()

    @property
    def room(self) -> int:
        """How many more may be taken from the source."""
        return self._window - self._open_count - len(self._ready)

    async def wait_room(self) -> None:
        """Until the consumer took enough."""
        while self.room <= 0:
            self._consumed.clear()
            await self._consumed.wait()

    async def next(self) -> ClassificationResult | None:
        """The next result; None after the last. A failure of the source is raised after all results."""
        while not self._ready:
            if self._ended and not self._open_count:
                if self._failure is not None:
                    raise self._failure
                return None
            self._changed.clear()
            await self._changed.wait()
        result = self._ready.popleft()
        self._consumed.set()
        return result
