"""Chunks in threads: one outcome per image in order, bad images alone, bounded concurrency, cheap ones inline."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from PIL import Image

from athena_async.config import RAW_FRAME_BYTES, PreprocessConfig
from athena_async.errors import ClassificationError, ErrorCode, MissingExtraError
from athena_async.images import resize
from athena_async.images.inputs import ImageInput, Kind, Source, to_source
from athena_async.images.workers import MAX_CHUNK, PreprocessWorkers, usable_cores
from athena_async.wire import Frame, models_pb2, single_request

pytestmark = pytest.mark.anyio

FRAME = memoryview(bytes(RAW_FRAME_BYTES)).cast("B", (448, 448, 3))


class Hostile(Image.Image):
    """A picture that acts when it is loaded, and again when its colours are converted, on whatever thread that is."""

    def __init__(self, load: Callable[[], None], convert: Callable[[], None] | None = None) -> None:
        super().__init__()
        self._size = (448, 448)
        self._mode = "CMYK"
        self._load = load
        self._convert = convert

    def load(self) -> Any:
        self._load()

    def convert(self, *_: Any, **__: Any) -> Any:
        assert self._convert is not None, "loading was to fail"
        self._convert()


def picture(load: Callable[[], None], convert: Callable[[], None] | None = None) -> Source:
    return Source(Kind.PIL, Hostile(load, convert), RAW_FRAME_BYTES)


def raising(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


def items(*sources: Source) -> list[tuple[Source, str, str]]:
    return [(source, "acme", f"id-{index}") for index, source in enumerate(sources)]


async def test_a_chunk_has_one_outcome_for_each_item_in_order(
    astronaut: Image.Image, encoded: Callable[..., bytes]
) -> None:
    sources = [to_source(encoded(astronaut, "JPEG")), to_source(b"no image"), to_source(ImageInput(md5="0" * 32))]
    async with PreprocessWorkers(PreprocessConfig()) as workers:
        first, second, third = await workers.prepare(items(*sources), "none")
    assert isinstance(first, Frame)
    assert isinstance(third, Frame)
    message = models_pb2.ClassificationInput.FromString(single_request(first))
    assert (message.affiliate, message.correlation_id, len(message.data)) == ("acme", "id-0", RAW_FRAME_BYTES)
    assert isinstance(second, ClassificationError)
    assert (second.code, second.correlation_id) == (ErrorCode.UNSUPPORTED_FORMAT, "id-1")
    assert models_pb2.ClassificationInput.FromString(single_request(third)).hashes[0].value == "0" * 32


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError("CANARY"), ErrorCode.INVALID_IMAGE),
        (MemoryError(), ErrorCode.INVALID_IMAGE),
        (RecursionError(), ErrorCode.INVALID_IMAGE),
    ],
)
async def test_what_a_decoder_raises_costs_its_image_alone(error: Exception, code: ErrorCode) -> None:
    async with PreprocessWorkers(PreprocessConfig()) as workers:
        bad, good = await workers.prepare(items(picture(raising(error)), to_source(FRAME)), "none")
    assert isinstance(good, Frame)
    assert isinstance(bad, ClassificationError)
    assert (bad.code, bad.retryable) == (code, False)
    assert "CANARY" not in str(bad)


async def test_a_fault_of_our_own_is_internal_and_costs_its_image_alone() -> None:
    broken = Source(Kind.ARRAY, "not an array", RAW_FRAME_BYTES)
    async with PreprocessWorkers(PreprocessConfig()) as workers:
        bad, good = await workers.prepare(items(broken, to_source(FRAME)), "png")
    assert isinstance(bad, ClassificationError)
    assert (bad.code, bad.correlation_id) == (ErrorCode.INTERNAL, "id-0")
    assert isinstance(good, Frame)


async def test_memory_that_runs_out_after_decoding_is_the_images_fault() -> None:
    async with PreprocessWorkers(PreprocessConfig()) as workers:
        (bad,) = await workers.prepare(items(picture(lambda: None, raising(MemoryError()))), "none")
    assert isinstance(bad, ClassificationError)
    assert (bad.code, bad.correlation_id) == (ErrorCode.INVALID_IMAGE, "id-0")
    assert "memory" in bad.message


async def test_no_more_chunks_at_a_time_than_threads() -> None:
    started, release = threading.Semaphore(0), threading.Event()

    def load() -> None:
        started.release()
        release.wait(10)
        raise OSError

    async with PreprocessWorkers(PreprocessConfig(threads=2)) as workers, anyio.create_task_group() as tasks:
        for _ in range(6):
            tasks.start_soon(workers.prepare, items(picture(load)), "none")
        for _ in range(2):
            await anyio.to_thread.run_sync(started.acquire)
        assert repr(workers) == "PreprocessWorkers(2 of 2 threads busy)"
        assert not started.acquire(blocking=False)
        release.set()
    assert workers.threads == 2


async def test_a_cancelled_chunk_ends_before_the_call_does() -> None:
    started, release, ended = threading.Event(), threading.Event(), threading.Event()

    def load() -> None:
        started.set()
        release.wait(10)
        ended.set()
        raise OSError

    async with PreprocessWorkers(PreprocessConfig(threads=1)) as workers:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(workers.prepare, items(picture(load)), "none")
            await anyio.to_thread.run_sync(started.wait)
            tasks.cancel_scope.cancel()
            release.set()
        assert ended.is_set()
        (outcome,) = await workers.prepare(items(to_source(FRAME)), "none")  # the thread's slot is free again
        assert isinstance(outcome, Frame)


async def test_one_picture_handed_in_twice_is_loaded_by_one_thread_at_a_time() -> None:
    inside, entered, release = threading.Lock(), threading.Semaphore(0), threading.Event()
    overlapped = False

    def load() -> None:
        nonlocal overlapped
        if not inside.acquire(blocking=False):
            overlapped = True
            return
        entered.release()
        release.wait(10)
        inside.release()
        raise OSError

    source = picture(load)
    async with PreprocessWorkers(PreprocessConfig(threads=2)) as workers, anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(workers.prepare, items(source), "none")
        await anyio.to_thread.run_sync(entered.acquire)
        while "2 of 2" not in repr(workers):
            await anyio.sleep(0)
        release.set()
    assert not overlapped


async def test_arrays_and_hashes_are_cheap_where_nothing_is_encoded() -> None:
    workers = PreprocessWorkers(PreprocessConfig())
    hashes = to_source(ImageInput(sha1="1" * 40))
    assert workers.is_cheap(hashes, "webp")
    assert workers.is_cheap(to_source(FRAME), "none")
    assert not workers.is_cheap(to_source(FRAME), "webp")
    assert not workers.is_cheap(to_source(b"x"), "none")
    assert not workers.is_cheap(to_source(Image.new("RGB", (9, 9))), "none")


async def test_inline_and_threaded_preparation_send_the_same() -> None:
    sources = [to_source(ImageInput(data=FRAME, md5="0" * 32)), to_source(ImageInput(sha1=["1" * 40, "2" * 40]))]
    async with PreprocessWorkers(PreprocessConfig()) as workers:
        threaded = await workers.prepare(items(*sources), "none")
    inline = [workers.prepare_inline(*item) for item in items(*sources)]
    for one, other in zip(threaded, inline, strict=True):
        assert isinstance(one, Frame)
        assert isinstance(other, Frame)
        assert (one.head, bytes(one.data)) == (other.head, bytes(other.data))


async def test_arrays_that_are_not_contiguous_go_to_a_thread() -> None:
    numpy = pytest.importorskip("numpy")
    frame = numpy.zeros((448, 448, 3), numpy.uint8)
    workers = PreprocessWorkers(PreprocessConfig())
    assert workers.is_cheap(to_source(frame), "none")
    assert not workers.is_cheap(to_source(frame[::-1]), "none")


async def test_an_affiliate_that_cannot_be_serialized_costs_its_image_alone() -> None:
    workers = PreprocessWorkers(PreprocessConfig())
    outcome = workers.prepare_inline(to_source(FRAME), "\ud800", "id")
    assert isinstance(outcome, ClassificationError)
    assert outcome.code is ErrorCode.INTERNAL


async def test_many_small_images_make_a_chunk_and_a_large_one_alone() -> None:
    workers = PreprocessWorkers(PreprocessConfig(threads=8))
    small, large, path = to_source(bytes(2_000)), to_source(bytes(3_000_000)), to_source("p.jpg")
    hashes = to_source(ImageInput(md5="0" * 32))
    assert workers.chunk_length([]) == 0
    assert workers.chunk_length([large, small]) == 1
    assert workers.chunk_length([path] * 10) == 1
    assert 2 <= workers.chunk_length([small] * 100) <= 10
    assert workers.chunk_length([small, large, small]) == 1
    assert workers.chunk_length([hashes] * 1000) == MAX_CHUNK
    assert workers.chunk_length([small] * 100, "webp") < workers.chunk_length([small] * 100)


@pytest.mark.parametrize(
    ("threads", "queued", "length"), [(2, 8, 1), (2, 16, 2), (2, 24, 3), (2, 1000, 3), (8, 24, 1), (64, 1000, 1)]
)
async def test_a_backlog_makes_longer_chunks_within_each_threads_share(threads: int, queued: int, length: int) -> None:
    workers = PreprocessWorkers(PreprocessConfig(threads=threads))
    assert workers.chunk_length([to_source(bytes(160_000))] * queued) == length


async def test_what_is_missing_is_told_on_entering() -> None:
    if resize.has_opencv():
        pytest.skip("the opencv extra is installed")
    with pytest.raises(MissingExtraError):
        async with PreprocessWorkers(PreprocessConfig(resizer="opencv")):
            pass


async def test_threads_are_the_usable_cores_by_default() -> None:
    workers = PreprocessWorkers(PreprocessConfig())
    assert workers.threads == usable_cores() >= 1
    assert repr(workers) == f"PreprocessWorkers(0 of {workers.threads} threads busy)"


async def test_paths_are_read_in_the_thread(tmp_path: Path, astronaut: Image.Image) -> None:
    astronaut.save(tmp_path / "a.png")
    async with PreprocessWorkers(PreprocessConfig()) as workers:
        good, bad = await workers.prepare(items(to_source(tmp_path / "a.png"), to_source(tmp_path / "b.png")), "none")
    assert isinstance(good, Frame)
    assert isinstance(bad, ClassificationError)
    assert bad.code is ErrorCode.INVALID_INPUT
