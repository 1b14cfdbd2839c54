"""The audit: one record for each input that the service received. Metadata only, never image data or hashes."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TextIO

CLASSIFIED = "CLASSIFIED"
ABANDONED = "ABANDONED"

Rpc = Literal["Classify", "ClassifySingle"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """One input.

    Attributes:
        at: when it ended, in seconds since the epoch on the emulator's clock.
        client: whose token it came with; ``anonymous`` where none is asked for.
        deployment: None for ClassifySingle.
        size_bytes: of the data as it came, before any decompression.
        outcome: CLASSIFIED, the error code of its answer, or ABANDONED: received, never processed.
        billed: whether the service processed it. Resends are records of their own.
    """

    at: float
    client: str
    affiliate: str
    deployment: str | None
    correlation_id: str
    size_bytes: int
    outcome: str
    rpc: Rpc
    billed: bool


class AuditLog:
    """The newest records in memory, and all of them in a file where one is given.

    Invariant: ``total`` counts every record ever added, ``dropped`` those that memory no longer holds.
    """

    def __init__(self, path: Path | None = None, *, limit: int = 250_000) -> None:
        self._records: deque[AuditRecord] = deque(maxlen=limit)
        self._path = path
        self._file: TextIO | None = None
        self.total = 0

    @property
    def dropped(self) -> int:
        return self.total - len(self._records)

    @property
    def records(self) -> tuple[AuditRecord, ...]:
        return tuple(self._records)

    @property
    def billed_count(self) -> int:
        """Inputs in memory that the service would bill."""
        return sum(record.billed for record in self._records)

    def outcomes(self) -> Counter[str]:
        return Counter(record.outcome for record in self._records)

    def sends(self) -> Counter[tuple[str | None, str]]:
        """How often each (deployment, correlation id) was received."""
        return Counter((record.deployment, record.correlation_id) for record in self._records)

    def open(self) -> None:
        """Opens the file for appending.

        Raises:
            OSError: it cannot be written.
        """
        if self._path is not None and self._file is None:
            self._file = self._path.open("a", encoding="utf-8")

    def add(self, records: Iterable[AuditRecord]) -> None:
        """Adds records; those of one call reach the file together."""
        added = list(records)
        self._records.extend(added)
        self.total += len(added)
        if self._file is not None and added:
            self._file.write("".join(json.dumps(asdict(record), allow_nan=False) + "\n" for record in added))
            self._file.flush()

    def clear(self) -> None:
        """Forgets what memory holds; the file stays."""
        self._records.clear()
        self.total = 0

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __iter__(self) -> Iterator[AuditRecord]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> AuditRecord:
        return self._records[index]

    def __repr__(self) -> str:
        return f"AuditLog({len(self)} records, {self.dropped} dropped)"
