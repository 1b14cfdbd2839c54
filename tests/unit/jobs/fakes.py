"""A client in place of the network, for jobs alone."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterable, Callable

import anyio

from athena_async.errors import ClassificationError, ErrorCode
from athena_async.images.inputs import ImageInput
from athena_async.jobs.records import LOCAL_FAULTS, Record
from athena_async.jobs.sources import FileEntry
from athena_async.results import Classification, ClassificationResult, Outcome

Answer = Callable[[str, int], ClassificationResult]


def classified(path: str, index: int) -> ClassificationResult:
    scores = (Classification("UnknownCSAM-Ducks", 0.75), Classification("UnknownCSAM-Entropy", 1.5))
    return ClassificationResult(f"id-{index}", index, Outcome.CLASSIFIED, scores, None, 1, 0.02)


def failed(index: int, code: ErrorCode, message: str = "no", outcome: Outcome = Outcome.FAILED) -> ClassificationResult:
    error = ClassificationError(code, message)
    return ClassificationResult(f"id-{index}", index, outcome, (), error, int(code not in LOCAL_FAULTS), 0.02)


def record(path: str, *, size: int = 10, mtime: int = 1, code: ErrorCode | None = None, **kwargs: object) -> Record:
    result = classified(path, 0) if code is None else failed(0, code, **kwargs)
    return Record(FileEntry(path, size, mtime), result)


class FakeClient:
    """Answers each image with ``answer(path, index)``, one at a time, and notes what it was asked.

    From ``hold_from`` on images stay unanswered until the client is closed, as they would on a slow service.
    """

    def __init__(self, answer: Answer = classified, *, hold_from: int | None = None) -> None:
        self.answer = answer
        self.hold_from = hold_from
        self.paths: list[str] = []
        self.drain_timeouts: list[float] = []
        self.holding = anyio.Event()
        self.closed = anyio.Event()

    async def stream(self, images: AsyncIterable[ImageInput]) -> AsyncGenerator[ClassificationResult, None]:
        index = -1
        async for image in images:
            index += 1
            path = os.fspath(image.path)
            self.paths.append(path)
            if self.hold_from is not None and index >= self.hold_from:
                self.holding.set()
                await self.closed.wait()
                yield failed(index, ErrorCode.CLOSED)
            else:
                yield self.answer(path, index)

    async def aclose(self, drain_timeout_s: float) -> None:
        self.drain_timeouts.append(drain_timeout_s)
        self.closed.set()
