"""Decoding in worker processes: a decoder that crashes, hangs or eats memory costs one image.

Children are started afresh (spawned): gRPC lives in this process, and a forked copy of it would not work.
Each is driven by one thread at a time, one image after the other, so it is always known which image a
child died of; the next image gets a new child. See `_worker` for the protocol.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from athena_async.config import RAW_FRAME_BYTES, PreprocessConfig
from athena_async.errors import AthenaError, ClassificationError, ErrorCode
from athena_async.images import _worker
from athena_async.images.encode import Rendered
from athena_async.images.inputs import Kind, Source
from athena_async.images.original import Prepared, too_large
from athena_async.images.preprocess import original_payload, prepare, whole_bytes
from athena_async.wire import ImageFormat, Payload

START_TIMEOUT_S = 60.0
SLACK_S = 1.0
"""Wall-clock time that an image may take beyond its processor time."""
PIPE_BYTES = 1024 * 1024

# What a child sees of the environment: nothing that could hold a credential.
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "LD_PRELOAD", "TMPDIR")
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
# glibc would give a decoded image's memory back after each image and fault it in again, page by page, for the next:
# with OpenCV 2 ms for a JPEG of 1280x960, 17 ms for one of 4000x3000.
KEPT_MEMORY_BYTES = 96 * 1024 * 1024
_KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(KEPT_MEMORY_BYTES)}

_PROGRAM = (Path(_worker.__file__),)


class WorkerLostError(AthenaError):
    """A child ended, or had to be ended, while it had an image in hand."""


class WorkerProcess:
    """One child and its pipes. Not for two threads at once.

    Invariants: between calls the child waits for a request; after `WorkerLostError` it is dead and reaped.
    """

    def __init__(self, config: PreprocessConfig, program: Sequence[os.PathLike[str]] = _PROGRAM) -> None:
        self._config = config
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and program
            [sys.executable, "-P", "-s", *map(os.fspath, program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            process_group=0,  # a Ctrl-C is this process's to handle: it may want to finish what it has
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ} | _ONE_THREAD | _KEEP_MEMORY,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        for descriptor in (self._in, self._out):
            os.set_blocking(descriptor, False)
            with contextlib.suppress(OSError, AttributeError):
                fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._allowed_s = START_TIMEOUT_S

    def __repr__(self) -> str:
        return f"WorkerProcess(pid={self._process.pid}, {'alive' if self.alive else 'dead'})"

    @property
    def alive(self) -> bool:
        """Whether the child runs."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    def start(self) -> None:
        """Has the child import what it needs. To be called once, before any image.

        Raises:
            WorkerLostError: it could not.
        """
        setup = {"path": [os.path.abspath(entry) for entry in sys.path], "config": dataclasses.asdict(self._config)}
        text = json.dumps(setup).encode()
        deadline = time.monotonic() + self._allowed_s
        self._send(_worker.START.pack(len(text)), text, deadline=deadline)
        self._receive(len(_worker.READY), deadline)

    def prepare(self, kind: int, data: Any, encoding: str) -> Prepared:
        """Has one image prepared.

        Raises:
            ClassificationError: the child refused the image.
            WorkerLostError: it died of it, took too long, or answered nonsense.
        """
        self._allowed_s = self._config.worker_cpu_s + SLACK_S
        deadline = time.monotonic() + self._allowed_s
        self._send(_worker.REQUEST.pack(kind, _worker.ENCODINGS.index(encoding), len(data)), data, deadline=deadline)
        status, head_bytes, data_bytes = _worker.ANSWER.unpack(self._receive(_worker.ANSWER.size, deadline))
        limit_bytes = RAW_FRAME_BYTES if self._config.resize else self._config.max_file_bytes
        if head_bytes > _worker.LONGEST_HEAD_BYTES or data_bytes > limit_bytes:
            raise self._lost(f"a result of {data_bytes:,} bytes, more than any image becomes")
        head = self._receive(head_bytes, deadline)
        body = self._receive(data_bytes, deadline)
        try:
            return _read_answer(status, json.loads(head), memoryview(body))
        except (ValueError, TypeError, KeyError):
            raise self._lost("an answer that is none") from None

    def close(self) -> None:
        """Ends the child: at once, since it has nothing in hand."""
        self._process.kill()
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()

    def _send(self, *parts: Any, deadline: float) -> None:
        for part in parts:
            view = memoryview(part)
            while view:
                self._wait(self._in, select.POLLOUT, deadline)
                try:
                    view = view[os.write(self._in, view) :]
                except BlockingIOError:
                    continue
                except BrokenPipeError:
                    raise self._lost(None) from None

    def _receive(self, size: int, deadline: float) -> bytearray:
        received = bytearray(size)
        left = memoryview(received)
        while left:
            self._wait(self._out, select.POLLIN, deadline)
            count = os.readv(self._out, [left])
            if not count:
                raise self._lost(None)
            left = left[count:]
        return received

    def _wait(self, descriptor: int, event: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(descriptor, event)
        left_s = deadline - time.monotonic()
        if left_s <= 0 or not poll.poll(left_s * 1000):
            raise self._lost(f"no result within {self._allowed_s:g} s")

    def _lost(self, reason: str | None) -> WorkerLostError:
        """Ends the child and says what happened; ``reason`` is None where it ended by itself."""
        if reason is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1.0)
        code = self._process.poll()
        self.close()
        return WorkerLostError(reason or _describe_exit(code, self._config))


class IsolatedPreparation:
    """Prepares sources in worker processes, one per thread that calls.

    Invariants: a child is in use by one thread or idle; a lost one is never used again. Arrays and PIL
    images belong to this process already and are prepared here.
    """

    def __init__(self, config: PreprocessConfig, program: Sequence[os.PathLike[str]] = _PROGRAM) -> None:
        self._config = config
        self._program = program
        self._idle: deque[WorkerProcess] = deque()
        self._lost_count = 0

    def __repr__(self) -> str:
        return f"IsolatedPreparation({len(self._idle)} idle, {self._lost_count} lost)"

    @property
    def lost_count(self) -> int:
        """Children that died of an image."""
        return self._lost_count

    def __call__(self, source: Source, encoding: str) -> Payload:
        """Prepares one source. Blocks; for worker threads.

        Raises:
            ClassificationError: as `preprocess.prepare`; INVALID_IMAGE for an image that ended its worker;
                INTERNAL where no worker could be started.
        """
        if source.kind not in (Kind.BYTES, Kind.PATH):
            return prepare(source, self._config, encoding)
        from_path = source.kind is Kind.PATH
        data = os.fsencode(os.path.abspath(source.value)) if from_path else whole_bytes(source.value)
        if len(data) > self._config.max_file_bytes:
            raise too_large(len(data), self._config.max_file_bytes)
        worker = self._take()
        try:
            prepared = worker.prepare(_worker.FROM_PATH if from_path else _worker.FROM_BYTES, data, encoding)
        except WorkerLostError as error:
            self._lost_count += 1
            message = f"decoding the image failed in its worker process: {error}"
            raise ClassificationError(ErrorCode.INVALID_IMAGE, message) from None
        except ClassificationError:
            self._idle.append(worker)
            raise
        except BaseException:
            worker.close()
            raise
        self._idle.append(worker)
        return original_payload(prepared, source)

    def close(self) -> None:
        """Ends all idle children. No call may be under way."""
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> WorkerProcess:
        """A living child: one can have been ended from outside while it was idle."""
        try:
            while True:
                worker = self._idle.pop()
                if worker.alive:
                    return worker
                worker.close()
        except IndexError:
            return self._started()

    def _started(self) -> WorkerProcess:
        worker = WorkerProcess(self._config, self._program)
        try:
            worker.start()
        except WorkerLostError as error:
            message = f"a worker process did not start: {error}"
            raise ClassificationError(ErrorCode.INTERNAL, message, retryable=True) from None  # not the image's fault
        return worker


def _read_answer(status: int, head: list[Any], body: memoryview) -> Prepared:
    """Believes nothing: what decoded the image may no longer be what was started."""
    if status == _worker.REFUSED:
        code, message = head
        raise ClassificationError(ErrorCode(code), str(message))
    image_format, brotli, md5, sha1, original_bytes = head
    _ = ImageFormat[image_format]
    for digest, length in ((md5, 32), (sha1, 40)):
        if digest is not None and (len(digest) != length or int(digest, 16) < 0):
            raise ValueError("not a digest")
    if status != _worker.PREPARED or not body or not isinstance(brotli, bool) or not isinstance(original_bytes, int):
        raise ValueError("not an answer")
    return Prepared(Rendered(body, image_format, brotli), md5, sha1, original_bytes)


def _describe_exit(code: int | None, config: PreprocessConfig) -> str:
    if code is None:
        return "it stopped answering"
    if code == -signal.SIGPROF:
        return f"more than {config.worker_cpu_s:g} s of processor time"
    if code < 0:
        return f"a crash ({signal.strsignal(-code) or f'signal {-code}'})"
    return f"an unexpected end (exit code {code})"
