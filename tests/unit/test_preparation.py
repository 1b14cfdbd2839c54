"""The preparation queue before workers that do as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from athena_async import wire
from athena_async.errors import ClassificationError, ErrorCode
from athena_async.images.inputs import Kind, Source
from athena_async.images.workers import PreprocessWorkers
from athena_async.preparation import Preparation
from athena_async.streams.ticket import Ticket
from tests.unit.streams.fakes import ListSink, settle

pytestmark = pytest.mark.anyio


class FakeWorkers:
    """Two threads that take two images each and wait for ``gate``."""

    threads = 2

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.chunks: list[list[str]] = []

    def chunk_length(self, sources: Sequence[Source], encoding: str) -> int:
        return min(2, len(sources))

    async def prepare(self, items: Sequence[tuple[Source, str, str]], encoding: str) -> list[Any]:
        self.chunks.append([correlation_id for _, _, correlation_id in items])
        await self.gate.wait()
        return [self._outcome(affiliate, name) for _, affiliate, name in items]

    def _outcome(self, affiliate: str, name: str) -> wire.Frame | ClassificationError:
        if name.startswith("bad"):
            return ClassificationError(ErrorCode.INVALID_IMAGE, "truncated")
        return wire.frame_input(affiliate, name, wire.Payload(b"pixels", wire.ImageFormat.PNG))


class Bench:
    def __init__(self) -> None:
        self.workers = FakeWorkers()
        self.prepared: list[str] = []
        self.failed: dict[str, ErrorCode] = {}
        self.preparation = Preparation(
            cast(PreprocessWorkers, self.workers),
            lambda: "none",
            lambda *_: None,
            lambda: True,
            self._done,
            lambda _event: None,
        )

    def submit(self, *names: str, sink: ListSink | None = None) -> list[Ticket]:
        images = [
            Ticket(name, 0, "acme", Source(Kind.BYTES, b"x", 10), sink or ListSink(), 10, 0.0, 9.0) for name in names
        ]
        for image in images:
            self.preparation.submit(image)
        return images

    def _done(self, tickets: list[Ticket], failed: Sequence[tuple[Ticket, ClassificationError]]) -> None:
        self.prepared.extend(ticket.correlation_id for ticket in tickets)
        self.failed.update({ticket.correlation_id: error.code for ticket, error in failed})


async def test_each_image_leaves_once_prepared_or_failed() -> None:
    bench = Bench()
    bench.workers.gate.set()
    running = asyncio.create_task(bench.preparation.run())
    images = bench.submit("a", "bad-b", "c", "d", "e")
    await settle()
    running.cancel()
    assert sorted(bench.prepared) == ["a", "c", "d", "e"]
    assert bench.failed == {"bad-b": ErrorCode.INVALID_IMAGE}
    assert bench.workers.chunks[0] == ["a", "bad-b"]
    assert images[0].source.value is None, "the original is let go"
    assert len(bench.preparation) == 0


async def test_as_many_chunks_as_threads_are_worked_on() -> None:
    bench = Bench()
    running = asyncio.create_task(bench.preparation.run())
    bench.submit("a", "b", "c", "d", "e")
    await settle()
    assert bench.workers.chunks == [["a", "b"], ["c", "d"]]
    assert repr(bench.preparation) == "Preparation(1 queued, 2 threads)"
    assert len(bench.preparation) == 5, "those in a thread's hand count"
    running.cancel()


async def test_what_was_settled_meanwhile_is_dropped() -> None:
    bench = Bench()
    running = asyncio.create_task(bench.preparation.run())
    images = bench.submit("a", "b", "c", "d", "e", "f")
    await settle()
    images[0].settle()
    images[4].settle()
    bench.workers.gate.set()
    await settle()
    running.cancel()
    assert sorted(bench.prepared) == ["b", "c", "d", "f"]
    assert bench.workers.chunks[2:] == [["f"]], "the one in the queue is not even decoded"
    assert images[0].frame is None


async def test_what_nobody_waits_for_any_more_is_not_sent() -> None:
    """A thread cannot be interrupted, but its images need not be sent, and billed, once their caller is gone."""
    bench = Bench()
    running = asyncio.create_task(bench.preparation.run())
    sink = ListSink()
    bench.submit("a", sink=sink)
    bench.submit("b")
    await settle()
    sink.abandoned = True
    bench.workers.gate.set()
    await settle()
    running.cancel()
    assert bench.prepared == ["b"]
    assert bench.failed == {"a": ErrorCode.CLOSED}


async def test_removes_what_is_queued() -> None:
    bench = Bench()
    a, b = bench.submit("a", "b")
    assert bench.preparation.remove(lambda image: image is a) == [a]
    assert bench.preparation.remove(lambda image: image is a) == []
    assert repr(bench.preparation) == "Preparation(1 queued, 2 threads)"
    assert b.frame is None
