"""What is kept of one image: a line of JSON, a row of Parquet."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from typing import NamedTuple

from athena_async.errors import ErrorCode
from athena_async.jobs.sources import FileEntry
from athena_async.results import ClassificationResult

FILE_FAULTS = frozenset({ErrorCode.INVALID_IMAGE})
"""Failures that lie in the content of the file: another run would end the same way. IMAGE_TOO_LARGE is none: what is
too large depends on resizing, on ``batching.max_bytes`` and on the server's own limits."""

LOCAL_FAULTS = frozenset({ErrorCode.INVALID_IMAGE, ErrorCode.INVALID_INPUT, ErrorCode.UNSUPPORTED_FORMAT})
"""Failures on this side: the image was never sent, and nothing is learned about the service."""

SERVICE_FAULTS = frozenset(
    {
        ErrorCode.UNAVAILABLE,
        ErrorCode.DEADLINE_EXCEEDED,
        ErrorCode.RESOURCE_EXHAUSTED,
        ErrorCode.UNAUTHENTICATED,
        ErrorCode.PERMISSION_DENIED,
        ErrorCode.UNIMPLEMENTED,
        ErrorCode.AFFILIATE_NOT_PERMITTED,
        ErrorCode.DEPLOYMENT_ID_INVALID,
    }
)
"""Failures that lie in the service or the access to it, and would hit the next image as well."""

_ESCAPE = re.compile(r"\\x[0-9a-f]{2}")


class Record(NamedTuple):
    """The one result of one file in this run."""

    entry: FileEntry
    result: ClassificationResult


def as_mapping(record: Record, run: int) -> dict[str, object]:
    """The fields of a line of output, in the order of `docs/jobs.md`.

    Args:
        run: number of the run that got the result, from 1; with the path it names the line.
    """
    entry, result = record
    top, error = result.top, result.error
    return {
        "path": shown_path(entry.path),
        "outcome": result.outcome.value,
        "top": top.label if top else None,
        "top_weight": _finite(top.weight) if top else None,
        "pcsam": _finite(result.pcsam),
        "entropy": _finite(result.entropy),
        "known_match": result.known_match,
        "scores": {label: _finite(weight) for label, weight in result.classifications},
        "error_code": error.code.value if error else None,
        "error_message": error.message if error else None,
        "attempts": result.attempts,
        "latency_s": round(result.latency_s, 6),
        "correlation_id": result.correlation_id,
        "size_bytes": entry.size_bytes,
        "run": run,
    }


def as_line(record: Record, run: int) -> bytes:
    """One line of JSON in ASCII with its line feed; a weight that is no number is ``null``."""
    return json.dumps(as_mapping(record, run), allow_nan=False, separators=(",", ":")).encode("ascii") + b"\n"


def line_key(line: Mapping[str, object]) -> tuple[str, int]:
    """What names a line within an output: the shown path and the run."""
    path, run = line["path"], line["run"]
    if not isinstance(path, str) or not isinstance(run, int):
        raise TypeError("a line of output has a path and a run")
    return path, run


def shown_path(path: str) -> str:
    r"""The path as text, different for different files.

    Bytes of a name that are not UTF-8 become ``\xNN``, and backslashes in such a name are doubled, as
    they are in a name that has a literal ``\xNN``.
    """
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return os.fsencode(path.replace("\\", "\\\\")).decode("utf-8", "backslashreplace")
    return path.replace("\\", "\\\\") if _ESCAPE.search(path) else path


def _finite(weight: float | None) -> float | None:
    return weight if weight is not None and math.isfinite(weight) else None
