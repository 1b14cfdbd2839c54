"""Preprocessing off the event loop: chunks of images in threads, or in processes that may die.

A chunk is one hand-over: many small images or one large, so that a thread works some milliseconds for
each time that it is handed something.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import anyio.to_thread
from anyio import CapacityLimiter

from athena_async import wire
from athena_async.config import RAW_FRAME_BYTES, PreprocessConfig
from athena_async.errors import ClassificationError, ErrorCode
from athena_async.images import resize
from athena_async.images.encode import check_encoding
from athena_async.images.inputs import Kind, Source
from athena_async.images.isolation import IsolatedPreparation
from athena_async.images.preprocess import prepare

Item = tuple[Source, str, str]
"""A source, the affiliate and the correlation id it is sent under."""

Outcome = wire.Frame | ClassificationError

# Members of an enumeration are looked up by a call; these are asked for once an image.
_HASHES, _ARRAY = Kind.HASHES, Kind.ARRAY
_RAW, _UNCOMPRESSED = wire.ImageFormat.RAW_UINT8_BGR, wire.Encoding.UNCOMPRESSED

CHUNK_WORK_S = 0.004
BACKLOG_CHUNK_WORK_S = 0.012
"""Where many wait: three photographs of 1280x960 a hand-over cost 4 to 8 % less processor time each than one does."""
MAX_CHUNK = 64

# Rough cost of one image, for chunking alone: a factor of two either way changes little.
_BASE_S = 0.0008
_PER_BYTE_S = 18e-9
_UNREAD_S = 0.003
_ENCODE_S = 0.0045


class PreprocessWorkers:
    """Worker threads for preprocessing; with ``isolation="process"`` each drives a process of its own.

    Invariants: at most `threads` chunks are worked on at a time; each item of a chunk gets exactly one
    outcome, in order; a bad image costs itself alone.

    Use as an async context manager: entering checks that what the configuration needs is installed and
    imports the codecs (in a thread), leaving stops worker processes.
    """

    def __init__(self, config: PreprocessConfig) -> None:
        self._config = config
        self._threads = config.threads or usable_cores()
        self._limiter = CapacityLimiter(self._threads)
        self._isolated = IsolatedPreparation(config) if config.isolation == "process" else None
        self._prepare: Callable[[Source, str], wire.Payload] = self._isolated or self._prepare_here

    def __repr__(self) -> str:
        return f"PreprocessWorkers({self._limiter.borrowed_tokens} of {self._threads} threads busy)"

    @property
    def threads(self) -> int:
        """How many chunks can be worked on at a time."""
        return self._threads

    async def __aenter__(self) -> Self:
        """Makes ready.

        Raises:
            MissingExtraError, ConfigError: the configured resizer or encoding is not available here.
        """
        await anyio.to_thread.run_sync(_load_codecs, self._config)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._isolated is not None:
            self._isolated.close()

    async def prepare(self, items: Sequence[Item], encoding: str) -> list[Outcome]:
        """Prepares one chunk in one thread.

        Args:
            items: see `chunk_length` for how many.
            encoding: ``none``, ``webp``, ``png`` or ``brotli``.

        Returns:
            A frame or an error for each item, in order. No image makes this raise, whatever it holds.

        Cancellation: a thread cannot be interrupted, and its slot is not free before it ends. So a
        cancelled call raises once its chunk is done, which takes some milliseconds as a rule.
        """
        return await anyio.to_thread.run_sync(self._prepare_chunk, items, encoding, limiter=self._limiter)

    def is_cheap(self, source: Source, encoding: str) -> bool:
        """Whether `prepare_inline` takes it: microseconds of work, no byte of pixels touched."""
        kind = source.kind
        return kind is _HASHES or (kind is _ARRAY and encoding == "none" and memoryview(source.value).c_contiguous)

    def prepare_inline(self, source: Source, affiliate: str, correlation_id: str) -> Outcome:
        """Prepares a cheap source on the event loop.

        An array is referred to, not copied: its owner must leave it alone until the image is answered.
        """
        try:
            if source.kind is _HASHES:
                return wire.frame_hashes(affiliate, correlation_id, source.md5, source.sha1)
            data = memoryview(source.value).cast("B")
            payload = wire.Payload(data, _RAW, _UNCOMPRESSED, source.md5, source.sha1)
            return wire.frame_input(affiliate, correlation_id, payload)
        except Exception as error:  # noqa: BLE001 - one image must not take the loop with it
            message = f"serializing the image failed with {type(error).__name__}"
            return ClassificationError(ErrorCode.INTERNAL, message, correlation_id=correlation_id, retryable=False)

    def chunk_length(self, sources: Sequence[Source], encoding: str = "none") -> int:
        """How many of the queued sources, from the first on, make one hand-over of about `CHUNK_WORK_S`.

        Up to `BACKLOG_CHUNK_WORK_S` where that is no more than a quarter of a thread's share: nobody waits
        long for fewer hand-overs, and no thread is left without work.

        Returns:
            At least 1 where there is a source, at most `MAX_CHUNK`.
        """
        ahead = sources[:MAX_CHUNK]
        quarter = len(ahead) // (4 * self._threads)
        work_s = 0.0
        for count, source in enumerate(ahead):
            work_s += _estimate_s(source, encoding)
            if work_s > (BACKLOG_CHUNK_WORK_S if count < quarter else CHUNK_WORK_S):
                return max(1, count)
        return min(len(sources), MAX_CHUNK)

    def _prepare_here(self, source: Source, encoding: str) -> wire.Payload:
        return prepare(source, self._config, encoding)

    def _prepare_chunk(self, items: Sequence[Item], encoding: str) -> list[Outcome]:
        return [self._prepare_one(item, encoding) for item in items]

    def _prepare_one(self, item: Item, encoding: str) -> Outcome:
        source, affiliate, correlation_id = item
        try:
            return wire.frame_input(affiliate, correlation_id, self._prepare(source, encoding))
        except ClassificationError as error:
            return ClassificationError(
                error.code, error.message, correlation_id=correlation_id, retryable=error.retryable
            )
        except MemoryError:
            message = "preparing the image needs more memory than there is"
            return ClassificationError(ErrorCode.INVALID_IMAGE, message, correlation_id=correlation_id)
        except Exception as error:  # noqa: BLE001 - whatever a decoder raises costs its own image only
            message = f"preparing the image failed with {type(error).__name__}"
            return ClassificationError(ErrorCode.INTERNAL, message, correlation_id=correlation_id, retryable=False)


def usable_cores() -> int:
    """Cores that this process may run on, which a container can have limited."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _estimate_s(source: Source, encoding: str) -> float:
    if source.kind is Kind.HASHES:
        return 5e-6
    encode_s = 0.0 if encoding == "none" else _ENCODE_S
    if source.kind is Kind.ARRAY:
        return 5e-5 + encode_s
    if source.kind is Kind.PATH:
        return _UNREAD_S + encode_s
    return _BASE_S + _PER_BYTE_S * (source.estimate_bytes - RAW_FRAME_BYTES) + encode_s


def _load_codecs(config: PreprocessConfig) -> None:
    if resize.uses_opencv(config.resizer):
        import cv2  # noqa: F401 - so that the first image does not wait for it
    check_encoding(config.encoding)
