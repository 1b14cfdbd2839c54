"""Parquet output: a spool of JSON lines becomes row groups, in place of files that a crash would leave unreadable."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from athena_async.jobs.records import line_key
from athena_async.jobs.sinks import IsCurrent, current_lines, sync_directory

if TYPE_CHECKING:
    import pyarrow as pa

_ROW_GROUP = 10_000
_GENERATION = b"athena_async.generation"


def schema() -> pa.Schema:
    """The columns, named as the fields of a line of JSON."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("path", pa.string(), nullable=False),
            pa.field("outcome", pa.string(), nullable=False),
            ("top", pa.string()),
            ("top_weight", pa.float32()),
            ("pcsam", pa.float32()),
            ("entropy", pa.float32()),
            ("known_match", pa.bool_()),
            ("scores", pa.map_(pa.string(), pa.float32())),
            ("error_code", pa.string()),
            ("error_message", pa.string()),
            ("attempts", pa.int32()),
            ("latency_s", pa.float64()),
            ("correlation_id", pa.string()),
            ("size_bytes", pa.int64()),
            ("run", pa.int32()),
        ]
    )


def merged_generation(output: str) -> int | None:
    """Number of the spool that went into ``output`` last; None without such a file."""
    import pyarrow.parquet as pq

    if not os.path.exists(output):
        return None
    metadata = pq.read_schema(output).metadata or {}
    return int(metadata.get(_GENERATION, b"-1"))


def merge(output: str, spool: str, is_current: IsCurrent, *, generation: int) -> None:
    """Writes the rows of ``output`` and the lines of ``spool`` that count into a new ``output``.

    The new file takes the old one's place in one step, with ``generation`` in its metadata.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = schema().with_metadata({_GENERATION: str(generation).encode()})
    fresh = output + ".tmp"
    with pq.ParquetWriter(fresh, columns, compression="zstd") as writer:
        for batch in _current_batches(output, is_current):
            writer.write_batch(batch.cast(columns))
        for rows in _spooled_rows(spool, is_current):
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=columns))
    with open(fresh, "rb") as written:
        os.fsync(written.fileno())
    os.replace(fresh, output)
    sync_directory(output)


def _current_batches(output: str, is_current: IsCurrent) -> Iterator[pa.RecordBatch]:
    """What an earlier merge wrote and no later run superseded."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not os.path.exists(output):
        return
    with pq.ParquetFile(output) as file:
        for batch in file.iter_batches(batch_size=_ROW_GROUP):
            keys = [line_key(row) for row in batch.select(["path", "run"]).to_pylist()]
            yield batch.filter(pa.array(is_current(keys), pa.bool_()))


def _spooled_rows(spool: str, is_current: IsCurrent) -> Iterator[list[dict[str, object]]]:
    with open(spool, "rb") as lines:
        current = current_lines(lines, is_current)
        while chunk := list(islice(current, _ROW_GROUP)):
            yield [_as_row(json.loads(line)) for line in chunk]


def _as_row(line: dict[str, object]) -> dict[str, object]:
    scores = line["scores"]
    assert isinstance(scores, dict)
    return line | {"scores": list(scores.items())}
