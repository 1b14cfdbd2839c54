"""The original file: read within bounds, hashed, rendered. Runs in a worker thread or process."""

from __future__ import annotations

import hashlib
import os
import stat
from typing import NamedTuple

from athena_async.config import PreprocessConfig
from athena_async.errors import ClassificationError, ErrorCode
from athena_async.images.encode import Rendered
from athena_async.images.render import render_bytes


class Prepared(NamedTuple):
    """An original as it will be sent, its digests (lower-case; None where not asked for) and its size."""

    rendered: Rendered
    md5: str | None
    sha1: str | None
    original_bytes: int


def prepare_original(data: bytes | bytearray, config: PreprocessConfig, encoding: str) -> Prepared:
    """Renders and hashes the bytes of a file.

    Raises:
        ClassificationError: INVALID_IMAGE or UNSUPPORTED_FORMAT.
    """
    if len(data) > config.max_file_bytes:
        raise too_large(len(data), config.max_file_bytes)
    rendered = render_bytes(data, config, encoding)
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest() if "md5" in config.hashes else None
    sha1 = hashlib.sha1(data, usedforsecurity=False).hexdigest() if "sha1" in config.hashes else None
    return Prepared(rendered, md5, sha1, len(data))


def read_original(path: str, max_file_bytes: int) -> bytes:
    """Reads a regular file; a pipe or device, which could block or never end, is refused unread.

    Raises:
        ClassificationError: INVALID_INPUT where there is no such readable file, INVALID_IMAGE where it is
            larger than allowed.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return _read_regular(descriptor, path, max_file_bytes)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _no_file(path, error.strerror or type(error).__name__) from None


def _read_regular(descriptor: int, path: str, max_file_bytes: int) -> bytes:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise _no_file(path, "not a regular file")
    if status.st_size > max_file_bytes:
        raise too_large(status.st_size, max_file_bytes)
    with open(descriptor, "rb", buffering=0, closefd=False) as file:
        return file.read() or b""


def _no_file(path: str, reason: str) -> ClassificationError:
    return ClassificationError(ErrorCode.INVALID_INPUT, f"cannot read {path}: {reason}")


def too_large(size_bytes: int, max_file_bytes: int) -> ClassificationError:
    return ClassificationError(
        ErrorCode.INVALID_IMAGE,
        f"the file has {size_bytes:,} bytes, over the cap of {max_file_bytes:,} (preprocess.max_file_bytes)",
    )
