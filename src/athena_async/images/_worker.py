"""The program of a worker process: reads an image, prepares it, writes what is to be sent, until its input ends.

Run by path, never imported by name in the child: `athena_async` itself is not initialised there, so no gRPC,
no client and no credentials are in the process that decodes. The protocol is length-prefixed and made of
plain bytes and JSON; nothing that one side sends can make the other run anything.

    start    parent: size, JSON {path, config}      child: one byte, ready
    request  parent: kind, encoding, size, data     child: status, head size, data size, head (JSON), data

Input ends: the child ends. The parent kills a child that is late or answers anything else.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
import types
from collections.abc import Callable
from typing import Any, BinaryIO

START = struct.Struct("<I")
REQUEST = struct.Struct("<BBQ")
ANSWER = struct.Struct("<BIQ")
READY = b"\x01"
FROM_BYTES, FROM_PATH = 0, 1
PREPARED, REFUSED = 0, 1
ENCODINGS = ("none", "webp", "png", "brotli")
LONGEST_HEAD_BYTES = 64 * 1024

Prepare = Callable[[Any, Any, str], Any]


def main(wrap: Callable[[Prepare], Prepare] | None = None) -> None:
    """Serves the parent on standard input and output.

    Args:
        wrap: makes another preparation of the real one; tests put decoders in that misbehave.
    """
    for request_to_end in (signal.SIGTERM, signal.SIGINT):
        signal.signal(request_to_end, signal.SIG_IGN)  # meant for the parent, which drains first and then ends us
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)  # whatever a codec prints must not land in the protocol
    (size,) = START.unpack(requests.read(START.size))
    setup = json.loads(requests.read(size))
    sys.path[:] = setup["path"]
    _bare_package()
    from athena_async.config import PreprocessConfig
    from athena_async.images import resize
    from athena_async.images.original import prepare_original

    fields = setup["config"]
    config = PreprocessConfig(**{**fields, "hashes": tuple(fields["hashes"])})
    if resize.uses_opencv(config.resizer):
        import cv2  # noqa: F401 - before memory is limited
    _limit_resources(config.worker_memory_bytes)
    answers.write(READY)
    answers.flush()
    _serve(requests, answers, config, wrap(prepare_original) if wrap else prepare_original)


def _bare_package() -> None:
    """Lets the modules below be found without running the package's own `__init__`, which is the client's."""
    package = types.ModuleType("athena_async")
    package.__path__ = [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]
    sys.modules["athena_async"] = package


def _limit_resources(memory_bytes: int) -> None:
    """Memory beyond what the process has by now; no files written, no core dumped."""
    import resource

    with open("/proc/self/statm", encoding="ascii") as file:
        used_bytes = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used_bytes + memory_bytes,) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _serve(requests: BinaryIO, answers: BinaryIO, config: Any, prepare: Prepare) -> None:
    while header := requests.read(REQUEST.size):
        kind, encoding, size = REQUEST.unpack(header)
        data = requests.read(size)
        # Processor time, not the clock's: SIGPROF, which nothing handles, ends the process. RLIMIT_CPU counts
        # whole seconds of the whole process and would have to be moved for each image.
        signal.setitimer(signal.ITIMER_PROF, config.worker_cpu_s)
        status, head, body = _answer(kind, data, config, ENCODINGS[encoding], prepare)
        signal.setitimer(signal.ITIMER_PROF, 0)
        text = json.dumps(head).encode()
        answers.write(ANSWER.pack(status, len(text), len(body)) + text)
        answers.write(body)
        answers.flush()


def _answer(kind: int, data: bytes, config: Any, encoding: str, prepare: Prepare) -> tuple[int, list[Any], Any]:
    from athena_async.errors import ClassificationError
    from athena_async.images.original import read_original

    try:
        if kind == FROM_PATH:
            data = read_original(os.fsdecode(data), config.max_file_bytes)
        rendered, md5, sha1, original_bytes = prepare(data, config, encoding)
        return PREPARED, [rendered.format, rendered.brotli, md5, sha1, original_bytes], rendered.data
    except ClassificationError as error:
        return REFUSED, [error.code, error.message[:1000]], b""
    except MemoryError:
        return REFUSED, ["INVALID_IMAGE", "decoding needs more memory than a worker may take"], b""
    except Exception as error:  # noqa: BLE001 - whatever a decoder raises costs its own image only
        return REFUSED, ["INTERNAL", f"preparing the image failed with {type(error).__name__}"], b""


if __name__ == "__main__":
    main()
