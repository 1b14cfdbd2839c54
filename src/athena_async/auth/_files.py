"""Noticing that a file was replaced, without reading it."""

from __future__ import annotations

import os
from pathlib import Path

Signature = tuple[int, int, int, int]


def signature(path: str | os.PathLike[str]) -> Signature | None:
    """Times, inode and size of what ``path`` leads to; None where there is nothing.

    Links are followed: secrets mounted by orchestrators are swapped by replacing a link.
    """
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_size
