"""Where records go: nowhere, a pipe, or a file that a crash cannot tear.

A sink is blocking and is called from one worker thread at a time. What `Sink.write` returned from is kept.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import BinaryIO, Protocol

from athena_async.errors import ConfigError, MissingExtraError
from athena_async.jobs.ledger import Ledger, LedgerError, Pending, RetryChoice, ledger_path
from athena_async.jobs.records import Record, as_line, line_key
from athena_async.jobs.sources import CHUNK_FILES, FileEntry

PARQUET_SUFFIX = ".parquet"
_RETRY_FAILED = RetryChoice()

IsCurrent = Callable[[Sequence[tuple[str, int]]], list[bool]]
"""For lines named by path and run: whether each is still the one that counts."""


class Sink(Protocol):
    def pending(self, entries: Sequence[FileEntry]) -> Pending:
        """Those entries that are still to be classified, and how the others ended."""

    def write(self, records: Sequence[Record]) -> None:
        """Keeps the records; on return they are as safe as this sink makes them."""

    def close(self, *, complete: bool = True) -> None:
        """Ends the output. Called once, unless the process dies first.

        Args:
            complete: also do the work that makes the output whole; off where the user wants out at once.
        """


class NoSink:
    """Keeps nothing: for runs that only want the summary."""

    def pending(self, entries: Sequence[FileEntry]) -> Pending:
        return Pending(list(entries), Counter())

    def write(self, records: Sequence[Record]) -> None:
        """Drops them."""

    def close(self, *, complete: bool = True) -> None:
        """Nothing is open."""


class StreamSink(NoSink):
    """Lines of JSON into an open binary stream, which stays open: standard output, a pipe."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, records: Sequence[Record]) -> None:
        self._stream.write(b"".join(as_line(record, run=1) for record in records))
        self._stream.flush()


class FileSink:
    """Lines of JSON in a file, with a ledger beside it; for Parquet the lines are a spool, merged on `close`.

    Invariants: the file is never shorter than the ledger's ``output_bytes``; beyond that length it holds
    nothing between two calls; a file that has a row in the ledger has exactly one line with that row's
    run; lines with an older run are counted in ``stale_lines`` and leave on `close`.

    Raises:
        LedgerError: the ledger cannot be used, or the output lost lines that it vouches for.
        OSError: the file cannot be written.
    """

    def __init__(self, output: str, choice: RetryChoice) -> None:
        self._output = output
        self._choice = choice
        self._is_parquet = output.endswith(PARQUET_SUFFIX)
        self._lines_path = spool_path(output) if self._is_parquet else output
        self._ledger = Ledger(ledger_path(output))
        try:
            self._recover()
            self._lines = open(self._lines_path, "ab", buffering=0)  # noqa: SIM115 - closed by close()
        except BaseException:
            self._ledger.close()
            raise
        sync_directory(output)

    def __repr__(self) -> str:
        return f"FileSink({self._output!r}, {self._ledger!r})"

    def pending(self, entries: Sequence[FileEntry]) -> Pending:
        return self._ledger.pending(entries, self._choice)

    def write(self, records: Sequence[Record]) -> None:
        """Lines first, flushed to the disk, then their rows: see `athena_async.jobs.ledger`."""
        _write_all(self._lines, b"".join(as_line(record, self._ledger.run) for record in records))
        os.fsync(self._lines.fileno())
        self._ledger.record(records, self._lines.tell())

    def close(self, *, complete: bool = True) -> None:
        """Drops superseded lines, merges a spool, and lets go of the files, also when that fails."""
        self._lines.close()
        try:
            if complete and self._is_parquet:
                self._merge()
            elif complete and self._ledger.state("stale_lines"):
                self._compact()
        finally:
            self._ledger.close()

    def _recover(self) -> None:
        """Brings output and ledger back together after whatever ended the last run."""
        if self._is_parquet:
            self._recover_merge()
        size = os.path.getsize(self._lines_path) if os.path.exists(self._lines_path) else 0
        if size == self._ledger.state("compacted_bytes", -1):
            self._ledger.update_state(output_bytes=size, stale_lines=0)
        self._ledger.update_state(compacted_bytes=-1)
        recorded = self._ledger.state("output_bytes")
        if size < recorded:
            raise LedgerError(
                f"{self._lines_path} has {size} bytes, but its ledger vouches for {recorded}: "
                f"bring the file back, or start over with --overwrite"
            )
        if size > recorded:  # written, but not recorded: those images run again
            os.truncate(self._lines_path, recorded)

    def _compact(self) -> None:
        """Rewrites the file without superseded lines; a crash at any point leaves the old file or the new."""
        shorter = self._lines_path + ".tmp"
        with open(self._lines_path, "rb") as old, open(shorter, "wb") as new:
            for line in current_lines(old, self._is_current):
                new.write(line)
            new.flush()
            os.fsync(new.fileno())
            size = new.tell()
        self._ledger.update_state(compacted_bytes=size)
        os.replace(shorter, self._lines_path)
        sync_directory(self._lines_path)
        self._ledger.update_state(compacted_bytes=-1, output_bytes=size, stale_lines=0)

    def _is_current(self, keys: Sequence[tuple[str, int]]) -> list[bool]:
        rows = self._ledger.rows(path for path, _ in keys)
        return [path in rows and rows[path].run == run for path, run in keys]

    def _merge(self) -> None:
        from athena_async.jobs.parquet import merge

        if not self._ledger.state("output_bytes") and os.path.exists(self._output):
            os.unlink(self._lines_path)  # nothing new
            return
        merge(self._output, self._lines_path, self._is_current, generation=self._ledger.state("generation"))
        self._forget_spool()

    def _recover_merge(self) -> None:
        """Finishes a merge that was cut off after the new Parquet file had taken its place."""
        from athena_async.jobs.parquet import merged_generation

        generation = self._ledger.state("generation")
        merged = merged_generation(self._output)
        if merged == generation:
            self._forget_spool()
        elif generation and merged is None:
            raise LedgerError(f"{self._output} is gone, but its ledger is not: start over with --overwrite")

    def _forget_spool(self) -> None:
        generation = self._ledger.state("generation")
        self._ledger.update_state(output_bytes=0, stale_lines=0, generation=generation + 1)
        if os.path.exists(self._lines_path):
            os.unlink(self._lines_path)


def open_output(
    output: str | os.PathLike[str],
    *,
    resume: bool = False,
    overwrite: bool = False,
    choice: RetryChoice = _RETRY_FAILED,
) -> FileSink:
    """Opens an output file of either kind by its suffix.

    Args:
        output: path of the file, ``.parquet`` or anything else for lines of JSON.
        resume: continue what the ledger beside it has; a first run where there is none.
        overwrite: start over in place of an earlier output.
        choice: which files of earlier runs are classified again.

    Raises:
        ConfigError: the output exists, and neither was asked for.
        LedgerError: there is an output to resume, but no ledger; or see `FileSink`.
        MissingExtraError: Parquet without the ``parquet`` extra.
    """
    output = os.path.abspath(output)
    if output.endswith(PARQUET_SUFFIX):
        _require_pyarrow()
    exists, has_ledger = os.path.exists(output), os.path.exists(ledger_path(output))
    if overwrite:
        _remove(output)
    elif (exists or has_ledger) and not resume:
        allowed = "a new file (or add --resume to continue the earlier run, --overwrite to start over)"
        raise ConfigError("--output", output, allowed)
    elif exists and not has_ledger:
        raise LedgerError(f"{output} has no ledger beside it, so it cannot be resumed: choose another file")
    return FileSink(output, choice)


def own_files(output: str) -> frozenset[str]:
    """Every path that an output may occupy, so that a walk can leave them out."""
    ledger, spool = ledger_path(output), spool_path(output)
    return frozenset({output, output + ".tmp", spool, ledger, ledger + "-wal", ledger + "-journal", ledger + "-shm"})


def spool_path(output: str) -> str:
    """Where the lines stand until they are merged into a Parquet file."""
    return output + ".spool"


def current_lines(lines: Iterable[bytes], is_current: IsCurrent) -> Iterator[bytes]:
    """Those lines that count, asked for in chunks."""
    remaining = iter(lines)
    while chunk := list(islice(remaining, CHUNK_FILES)):
        keep = is_current([line_key(json.loads(line)) for line in chunk])
        yield from (line for line, kept in zip(chunk, keep, strict=True) if kept)


def sync_directory(path: str) -> None:
    """Makes the names in the directory of ``path`` survive a power cut."""
    directory = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _remove(output: str) -> None:
    # The ledger goes first: without it, nothing vouches for what is left of the output.
    for path in sorted(own_files(output), key=lambda path: not path.startswith(ledger_path(output))):
        if os.path.exists(path):
            os.unlink(path)


def _require_pyarrow() -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise MissingExtraError("Parquet output", "parquet") from None


def _write_all(stream: BinaryIO, data: bytes) -> None:
    """An unbuffered stream may take a part only, when the disk is almost full."""
    view = memoryview(data)
    while view:
        view = view[stream.write(view) :]
