"""Worker processes: what a decoder does to its process costs one image, and the rest of the chunk is done."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest
from PIL import Image

from athena_async.config import PreprocessConfig
from athena_async.errors import ClassificationError, ErrorCode
from athena_async.images import _worker
from athena_async.images.inputs import ImageInput, Source, to_source
from athena_async.images.isolation import IsolatedPreparation, WorkerProcess
from athena_async.images.preprocess import prepare
from athena_async.images.workers import PreprocessWorkers
from athena_async.wire import Frame

MiB = 1024 * 1024

# A real worker whose decoder does what the image says.
HOSTILE_WORKER = f"""
import ctypes, os, runpy, sys, time
worker = runpy.run_path({_worker.__file__!r}, run_name="worker")

def wrap(prepare):
    def act(data, config, encoding):
        match bytes(data[:5]):
            case b"CRASH": ctypes.string_at(0)
            case b"SPINS":
                while True: pass
            case b"SLEEP": time.sleep(60)
            case b"EATS.": return bytearray(8 << 30)
            case b"LARGE": return prepare(data[5:], config, encoding)._replace(rendered=
                prepare(data[5:], config, encoding).rendered._replace(data=bytes(700_000)))
            case b"WRONG": return prepare(data[5:], config, encoding)._replace(md5="not a digest")
            case b"EXITS": os._exit(3)
            case b"WRITE": open("/tmp/athena-async-escape", "wb").write(b"x")
        return prepare(data, config, encoding)
    return act

worker["main"](wrap)
"""


@pytest.fixture
def jpeg(astronaut: Image.Image, encoded: Callable[..., bytes]) -> bytes:
    return encoded(astronaut, "JPEG")


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[IsolatedPreparation]:
    program = tmp_path / "hostile_worker.py"
    program.write_text(HOSTILE_WORKER)
    config = PreprocessConfig(isolation="process", worker_cpu_s=0.1, worker_memory_bytes=512 * MiB, resizer="pillow")
    isolated = IsolatedPreparation(config, [program])
    yield isolated
    isolated.close()


def test_a_worker_prepares_what_a_thread_does(jpeg: bytes, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(jpeg)
    config = PreprocessConfig(isolation="process")
    isolated = IsolatedPreparation(config)
    try:
        for image in (jpeg, memoryview(jpeg), tmp_path / "image", ImageInput(data=jpeg, md5="0" * 32)):
            for encoding in ("none", "png"):
                ours, theirs = isolated(to_source(image), encoding), prepare(to_source(image), config, encoding)
                assert bytes(ours.data) == bytes(theirs.data)
                assert ours[1:] == theirs[1:]
        assert repr(isolated) == "IsolatedPreparation(1 idle, 0 lost)"
    finally:
        isolated.close()


def test_a_refusal_is_the_same_as_a_threads(jpeg: bytes, tmp_path: Path) -> None:
    isolated = IsolatedPreparation(PreprocessConfig(isolation="process"))
    try:
        for image, code in (
            (jpeg[:5000], ErrorCode.INVALID_IMAGE),
            (b"text", ErrorCode.UNSUPPORTED_FORMAT),
            (b"", ErrorCode.INVALID_IMAGE),
            (tmp_path / "missing", ErrorCode.INVALID_INPUT),
        ):
            with pytest.raises(ClassificationError) as here:
                prepare(to_source(image), PreprocessConfig(), "none")
            with pytest.raises(ClassificationError) as there:
                isolated(to_source(image), "none")
            assert (there.value.code, there.value.message) == (here.value.code, here.value.message)
            assert there.value.code is code
        assert isolated.lost_count == 0
    finally:
        isolated.close()


@pytest.mark.parametrize(
    ("act", "match", "lost"),
    [
        (b"CRASH", "crash", 1),
        (b"SPINS", "processor time", 1),
        (b"SLEEP", "no result within 1.1 s", 1),
        (b"EATS.", "more memory", 0),
        (b"LARGE", "700,000 bytes", 1),
        (b"WRONG", "an answer that is none", 1),
        (b"EXITS", "exit code 3", 1),
    ],
)
def test_whatever_a_decoder_does_costs_one_image(
    hostile: IsolatedPreparation, jpeg: bytes, act: bytes, match: str, lost: int
) -> None:
    with pytest.raises(ClassificationError, match=match) as caught:
        hostile(to_source(act + jpeg), "none")
    assert caught.value.code is ErrorCode.INVALID_IMAGE
    assert not caught.value.retryable
    assert hostile.lost_count == lost
    assert len(hostile(to_source(jpeg), "none").data) == 448 * 448 * 3


def test_a_worker_that_cannot_start_is_not_the_images_fault(tmp_path: Path, jpeg: bytes) -> None:
    program = tmp_path / "worker.py"
    program.write_text("raise SystemExit(7)")
    isolated = IsolatedPreparation(PreprocessConfig(isolation="process"), [program])
    with pytest.raises(ClassificationError, match=r"did not start: an unexpected end \(exit code 7\)") as caught:
        isolated(to_source(jpeg), "none")
    assert (caught.value.code, caught.value.retryable) == (ErrorCode.INTERNAL, True)


def test_the_memory_limit_is_felt(encoded: Callable[..., bytes]) -> None:
    """100 million pixels are 400 MB as RGB: over the limit of 256 MiB."""
    config = PreprocessConfig(isolation="process", worker_memory_bytes=256 * MiB, resizer="pillow")
    isolated = IsolatedPreparation(config)
    indexed = Image.new("P", (10_000, 10_000))
    indexed.putpalette([1, 2, 3])
    try:
        with pytest.raises(ClassificationError, match="memory") as caught:
            isolated(to_source(encoded(indexed, "BMP")), "none")
        assert caught.value.code is ErrorCode.INVALID_IMAGE
        assert isolated.lost_count == 0
    finally:
        isolated.close()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators are not told what to keep")
def test_a_worker_keeps_the_memory_that_one_image_leaves_for_the_next(
    astronaut: Image.Image, encoded: Callable[..., bytes], resizer: str
) -> None:
    photograph = to_source(encoded(astronaut.resize((2000, 1500)), "JPEG"))  # 9 MB of pixels: over 2,000 pages
    isolated = IsolatedPreparation(PreprocessConfig(isolation="process", resizer=resizer))
    try:
        counts = [page_faults(isolated, photograph) for _ in range(4)]
        assert counts[0] > 2000, "the first takes fresh memory"
        assert counts[-1] < 500
    finally:
        isolated.close()


def page_faults(isolated: IsolatedPreparation, source: Source) -> int:
    """What preparing an image costs its worker in minor page faults, the first time those of starting included."""

    def so_far() -> int:
        return sum(
            int(Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()[7]) for worker in isolated._idle
        )

    before = so_far()
    isolated(source, "none")
    return so_far() - before


def test_a_decoder_writes_no_files(hostile: IsolatedPreparation, jpeg: bytes) -> None:
    with pytest.raises(ClassificationError):
        hostile(to_source(b"WRITE" + jpeg), "none")
    escaped = Path("/tmp/athena-async-escape")
    assert not escaped.exists() or escaped.stat().st_size == 0
    escaped.unlink(missing_ok=True)


def test_credentials_in_the_environment_stay_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, jpeg: bytes) -> None:
    monkeypatch.setenv("ATHENA_API_KEY", "CANARY")
    worker = WorkerProcess(PreprocessConfig(resizer="pillow"))
    try:
        worker.start()
        worker.prepare(_worker.FROM_BYTES, jpeg, "none")
        assert b"CANARY" not in Path(f"/proc/{worker.pid}/environ").read_bytes()
        maps = Path(f"/proc/{worker.pid}/maps").read_text()
        assert "grpc" not in maps
        assert "google" not in maps
    finally:
        worker.close()


def test_a_worker_ended_from_outside_while_idle_costs_no_image(hostile: IsolatedPreparation, jpeg: bytes) -> None:
    hostile(to_source(jpeg), "none")
    idle = hostile._idle[0]
    os.kill(idle.pid, signal.SIGKILL)
    os.waitid(os.P_PID, idle.pid, os.WEXITED | os.WNOWAIT)
    hostile(to_source(jpeg), "none")
    assert hostile.lost_count == 0
    assert not idle.alive


@pytest.mark.parametrize("request_to_end", [signal.SIGTERM, signal.SIGINT])
def test_a_request_to_end_is_the_parents_to_handle(
    hostile: IsolatedPreparation, jpeg: bytes, request_to_end: signal.Signals
) -> None:
    """A supervisor may send it to every process, while the client still drains."""
    hostile(to_source(jpeg), "none")
    worker = hostile._idle[0]
    assert os.getpgid(worker.pid) != os.getpgid(0)
    os.kill(worker.pid, request_to_end)
    hostile(to_source(jpeg), "none")
    assert hostile._idle[0] is worker


def test_closing_leaves_no_process(jpeg: bytes) -> None:
    isolated = IsolatedPreparation(PreprocessConfig(resizer="pillow"))
    isolated(to_source(jpeg), "none")
    worker = isolated._idle[0]
    isolated.close()
    assert not worker.alive
    assert not Path(f"/proc/{worker.pid}").exists()


def test_a_worker_ends_with_its_parent(tmp_path: Path, jpeg: bytes) -> None:
    """Its input ends when the parent does, however that came about."""
    (tmp_path / "image").write_bytes(jpeg)
    code = f"""
import os
from athena_async.config import PreprocessConfig
from athena_async.images.inputs import to_source
from athena_async.images.isolation import IsolatedPreparation
isolated = IsolatedPreparation(PreprocessConfig(resizer="pillow"))
isolated(to_source({str(tmp_path / "image")!r}), "none")
print(isolated._idle[0].pid, flush=True)
os._exit(1)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=20, check=False)
    pid = int(done.stdout)
    for _ in range(200):
        if not Path(f"/proc/{pid}").exists() or "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
            break
        anyio.run(anyio.sleep, 0.02)
    else:
        pytest.fail("the worker outlived its parent")


@pytest.mark.anyio
async def test_a_chunk_in_processes(jpeg: bytes, astronaut: Image.Image) -> None:
    sources = [to_source(image) for image in (jpeg, jpeg[:9000], astronaut, ImageInput(md5="0" * 32))]
    items = [(source, "acme", f"id-{index}") for index, source in enumerate(sources)]
    async with PreprocessWorkers(PreprocessConfig(isolation="process", threads=1)) as workers:
        good, bad, picture, hashes = await workers.prepare(items, "none")
    assert isinstance(good, Frame)
    assert isinstance(picture, Frame)
    assert isinstance(hashes, Frame)
    assert isinstance(bad, ClassificationError)
    assert bad.correlation_id == "id-1"
