"""What is settled already: one row per file in SQLite, written after the output is safe on disk.

The order is the promise: a batch of lines is flushed to the disk first, then its rows and the new
length of the output are committed in one transaction. So whatever a crash leaves, every row has its
line, and everything in the output past the recorded length has no row and is cut off.
"""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from athena_async.errors import AthenaError
from athena_async.jobs.records import FILE_FAULTS, Record, shown_path
from athena_async.jobs.sources import CHUNK_FILES, FileEntry
from athena_async.results import Outcome

_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    path TEXT PRIMARY KEY,
    size_bytes INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    run INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    error_code TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
"""


class LedgerError(AthenaError):
    """The ledger cannot be used; the message says what to do."""


class Row(NamedTuple):
    """How a file ended when it was last run."""

    size_bytes: int
    mtime_ns: int
    run: int
    outcome: Outcome
    error_code: str | None


class Pending(NamedTuple):
    """A chunk of files, looked up.

    Attributes:
        entries: those that are still to be classified.
        settled: how the others ended in earlier runs; those of this run are in neither.
    """

    entries: list[FileEntry]
    settled: Counter[Outcome]


@dataclass(frozen=True, slots=True)
class RetryChoice:
    """Which files of earlier runs are classified again.

    Attributes:
        failed: those that failed for another reason than the file itself.
        unknown: those that were sent and not answered in time; they may have been billed already.
    """

    failed: bool = True
    unknown: bool = False

    def is_settled(self, entry: FileEntry, row: Row) -> bool:
        """Whether ``entry`` needs no further run. A file whose size or time changed always does."""
        if (entry.size_bytes, entry.mtime_ns) != (row.size_bytes, row.mtime_ns):
            return False
        if row.outcome is Outcome.UNKNOWN:
            return not self.unknown
        if row.outcome is Outcome.FAILED:
            return not self.failed or row.error_code in FILE_FAULTS
        return True


class Ledger:
    """One SQLite file, held by one process at a time. Blocking: belongs into a thread.

    Invariants: ``state`` and ``files`` change in the same transaction; ``run`` is the number of this
    opening, from 1, and no row carries a greater one.

    Raises:
        LedgerError: another process has it open, or it is no ledger of this version.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0.5)
        except sqlite3.Error as error:
            raise LedgerError(f"ledger {path} cannot be opened: {error}") from error
        try:
            self._prepare()
            self.run = self.state("run") + 1
            self.update_state(run=self.run)
        except sqlite3.Error as error:
            self._db.close()
            raise LedgerError(_explain(path, error)) from error
        except LedgerError:
            self._db.close()
            raise

    def __repr__(self) -> str:
        return f"Ledger({self.path!r}, run={self.run})"

    def _prepare(self) -> None:
        # Exclusive: a second run on the same ledger must fail at once, and no shared memory is needed.
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.executescript(_SCHEMA)
        version = self.state("schema_version", _SCHEMA_VERSION)
        if version != _SCHEMA_VERSION:
            raise LedgerError(f"ledger {self.path} is of version {version}, this program reads {_SCHEMA_VERSION}")
        self.update_state(schema_version=version)

    def state(self, key: str, default: int = 0) -> int:
        """A number kept beside the rows."""
        found = self._db.execute("SELECT value FROM state WHERE key = ?", (key,)).fetchone()
        return default if found is None else int(found[0])

    def update_state(self, **values: int) -> None:
        """Sets numbers, all or none."""
        self.commit((), values)

    def rows(self, paths: Iterable[str]) -> dict[str, Row]:
        """The rows of those shown paths that have one; at most `CHUNK_FILES` are looked up at a time."""
        wanted = list(paths)
        found: dict[str, Row] = {}
        for start in range(0, len(wanted), CHUNK_FILES):
            chunk = wanted[start : start + CHUNK_FILES]
            marks = ",".join("?" * len(chunk))
            query = "SELECT path, size_bytes, mtime_ns, run, outcome, error_code FROM files WHERE path IN "
            for path, size_bytes, mtime_ns, run, outcome, code in self._db.execute(f"{query} ({marks})", chunk):
                found[path] = Row(size_bytes, mtime_ns, run, Outcome(outcome), code)
        return found

    def pending(self, entries: Sequence[FileEntry], choice: RetryChoice) -> Pending:
        """Those entries that this run has still to classify, and how the others ended."""
        rows = self.rows(shown_path(entry.path) for entry in entries)
        pending = Pending([], Counter())
        for entry in entries:
            row = rows.get(shown_path(entry.path))
            if row is None or not (row.run == self.run or choice.is_settled(entry, row)):
                pending.entries.append(entry)
            elif row.run < self.run:
                pending.settled[row.outcome] += 1
        return pending

    def record(self, records: Sequence[Record], output_bytes: int) -> None:
        """Commits a batch whose lines are on the disk, with the output's new length."""
        paths = [shown_path(record.entry.path) for record in records]
        stale = len(self.rows(paths))
        self.commit(
            [self._values(path, record) for path, record in zip(paths, records, strict=True)],
            {"output_bytes": output_bytes, "stale_lines": self.state("stale_lines") + stale},
        )

    def _values(self, path: str, record: Record) -> tuple[object, ...]:
        entry, result = record
        code = result.error.code.value if result.error else None
        return path, entry.size_bytes, entry.mtime_ns, self.run, result.outcome.value, code

    def commit(self, rows: Sequence[tuple[object, ...]], state: dict[str, int]) -> None:
        """One transaction: rows and numbers, all or none.

        Raises:
            LedgerError: the disk is full or broken.
        """
        try:
            with self._db:
                self._db.execute("BEGIN")
                self._db.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)", rows)
                self._db.executemany("INSERT OR REPLACE INTO state VALUES (?, ?)", state.items())
        except sqlite3.Error as error:
            raise LedgerError(_explain(self.path, error)) from error

    def close(self) -> None:
        """Lets go of the file; a second call does nothing."""
        self._db.close()


def ledger_path(output: str) -> str:
    """Where the ledger of an output stands: beside it."""
    return os.fspath(output) + ".ledger"


def _explain(path: str, error: sqlite3.Error) -> str:
    if "locked" in str(error):
        return f"ledger {path} is in use by another run"
    return f"ledger {path} cannot be used: {error}"
