from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from athena_async.errors import ErrorCode
from athena_async.jobs.ledger import Ledger, LedgerError, RetryChoice, Row
from athena_async.jobs.sources import FileEntry
from athena_async.results import Outcome
from tests.unit.jobs.fakes import record

ENTRY = FileEntry("/a", 10, 1)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "out.ledger")


@pytest.fixture
def ledger(path: str) -> Iterator[Ledger]:
    opened = Ledger(path)
    yield opened
    opened.close()


def row(outcome: Outcome, code: ErrorCode | None = None, **changes: int) -> Row:
    return Row(**({"size_bytes": 10, "mtime_ns": 1, "run": 1} | changes), outcome=outcome, error_code=code)


@pytest.mark.parametrize(
    ("earlier", "choice", "settled"),
    [
        (row(Outcome.CLASSIFIED), RetryChoice(failed=True, unknown=True), True),
        (row(Outcome.CLASSIFIED, size_bytes=11), RetryChoice(failed=False), False),
        (row(Outcome.CLASSIFIED, mtime_ns=2), RetryChoice(failed=False), False),
        (row(Outcome.FAILED, ErrorCode.UNAVAILABLE), RetryChoice(), False),
        (row(Outcome.FAILED, ErrorCode.UNAUTHENTICATED), RetryChoice(), False),
        (row(Outcome.FAILED, ErrorCode.UNAVAILABLE), RetryChoice(failed=False), True),
        (row(Outcome.FAILED, ErrorCode.INVALID_IMAGE), RetryChoice(failed=True), True),
        (row(Outcome.FAILED, ErrorCode.IMAGE_TOO_LARGE), RetryChoice(failed=True), False),
        (row(Outcome.FAILED, ErrorCode.INVALID_INPUT), RetryChoice(), False),
        (row(Outcome.FAILED, ErrorCode.UNSUPPORTED_FORMAT), RetryChoice(), False),
        (row(Outcome.UNKNOWN, ErrorCode.DEADLINE_EXCEEDED), RetryChoice(), True),
        (row(Outcome.UNKNOWN, ErrorCode.DEADLINE_EXCEEDED), RetryChoice(unknown=True), False),
    ],
)
def test_what_is_settled(earlier: Row, choice: RetryChoice, settled: bool) -> None:
    assert choice.is_settled(ENTRY, earlier) is settled


def test_rows_survive_and_runs_are_counted(path: str, ledger: Ledger) -> None:
    ledger.record([record("/a"), record("/b", code=ErrorCode.UNAVAILABLE)], output_bytes=77)
    ledger.close()
    again = Ledger(path)
    try:
        assert again.run == 2
        assert again.state("output_bytes") == 77
        assert again.rows(["/a", "/b", "/c"]) == {
            "/a": Row(10, 1, 1, Outcome.CLASSIFIED, None),
            "/b": Row(10, 1, 1, Outcome.FAILED, "UNAVAILABLE"),
        }
        pending = again.pending([ENTRY, FileEntry("/b", 10, 1), FileEntry("/c", 1, 1)], RetryChoice())
        assert pending.entries == [("/b", 10, 1), ("/c", 1, 1)]
        assert pending.settled == {Outcome.CLASSIFIED: 1}
    finally:
        again.close()


def test_a_file_ends_once_in_a_run_however_it_ended(ledger: Ledger) -> None:
    ledger.record([record("/a", code=ErrorCode.UNAVAILABLE)], output_bytes=1)
    assert ledger.pending([ENTRY], RetryChoice(failed=True)) == ([], {})


def test_replaced_rows_are_counted_as_stale_lines(ledger: Ledger) -> None:
    ledger.record([record("/a"), record("/b")], output_bytes=1)
    assert ledger.state("stale_lines") == 0
    ledger.record([record("/a"), record("/c")], output_bytes=2)
    assert ledger.state("stale_lines") == 1


def test_more_paths_than_one_query_takes(ledger: Ledger) -> None:
    records = [record(f"/{number}") for number in range(1000)]
    ledger.record(records, output_bytes=1)
    assert len(ledger.rows(entry.path for entry, _ in records)) == 1000


def test_a_second_run_on_the_same_ledger_is_refused(path: str, ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="in use by another run"):
        Ledger(path)


def test_a_file_that_is_no_ledger_is_refused(path: str) -> None:
    Path(path).write_bytes(b"not a database, but long enough to be read as one" * 10)
    with pytest.raises(LedgerError, match="cannot be used"):
        Ledger(path)


def test_a_ledger_of_another_version_is_refused(path: str, ledger: Ledger) -> None:
    ledger.update_state(schema_version=99)
    ledger.close()
    with pytest.raises(LedgerError, match="version 99"):
        Ledger(path)


def test_a_batch_is_committed_whole_or_not_at_all(ledger: Ledger) -> None:
    with pytest.raises(AttributeError):
        ledger.record([record("/a"), record(None)], output_bytes=5)  # type: ignore[arg-type]
    assert ledger.rows(["/a"]) == {}
    assert ledger.state("output_bytes") == 0
