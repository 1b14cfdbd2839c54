"""Answers to other clients of a shared deployment, kept for whoever asks for them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from athena_async.errors import ClassificationError
from athena_async.results import ClassificationResult, Outcome
from athena_async.wire import Answer


class ForeignResults:
    """A bounded buffer. When it is full the oldest answer is dropped, and counted."""

    def __init__(self, capacity: int) -> None:
        self._buffer: deque[Answer] = deque(maxlen=capacity)
        self._changed = asyncio.Event()
        self._closed = False
        self.readers = 0

    def __len__(self) -> int:
        return len(self._buffer)

    def put(self, answers: Sequence[Answer]) -> int:
        """Keeps answers; returns how many others were dropped for them."""
        space = (self._buffer.maxlen or 0) - len(self._buffer)
        self._buffer.extend(answers)
        self._changed.set()
        return max(0, len(answers) - space)

    def close(self) -> None:
        """Readers get what is left, and then the end."""
        self._closed = True
        self._changed.set()

    async def next(self) -> ClassificationResult | None:
        """The oldest answer, waiting for one; None when the client was closed. Cancelling loses none."""
        while not self._buffer:
            if self._closed:
                return None
            self._changed.clear()
            await self._changed.wait()
        return _result(self._buffer.popleft())


def _result(answer: Answer) -> ClassificationResult:
    if answer.error is None:
        return ClassificationResult(answer.correlation_id, -1, Outcome.CLASSIFIED, answer.classifications)
    error = ClassificationError(answer.error.code, answer.error.text, correlation_id=answer.correlation_id)
    return ClassificationResult(answer.correlation_id, -1, Outcome.FAILED, (), error)
