from __future__ import annotations

import io
import json
import os
import resource
from pathlib import Path

import pytest

from athena_async.errors import ConfigError, ErrorCode
from athena_async.jobs.ledger import Ledger, LedgerError, RetryChoice, ledger_path
from athena_async.jobs.sinks import FileSink, NoSink, StreamSink, open_output, own_files, spool_path
from athena_async.jobs.sources import FileEntry
from tests.unit.jobs.fakes import record


@pytest.fixture(params=["out.jsonl", "out.parquet"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / request.param)


def opened(output: str, *, resume: bool = True, **choice: bool) -> FileSink:
    return open_output(output, resume=resume, overwrite=False, choice=RetryChoice(**choice))


def rows(output: str) -> list[tuple[str, str, int]]:
    """Path, outcome and run of each row, sorted."""
    if output.endswith(".parquet"):
        import pyarrow.parquet as pq

        lines = pq.read_table(output).to_pylist()
    else:
        lines = [json.loads(line) for line in Path(output).read_bytes().splitlines()]
    return sorted((line["path"], line["outcome"], line["run"]) for line in lines)


def entries(*paths: str) -> list[FileEntry]:
    return [FileEntry(path, 10, 1) for path in paths]


def test_no_sink_skips_nothing() -> None:
    sink = NoSink()
    sink.write([record("/a")])
    assert sink.pending(entries("/a")).entries == entries("/a")
    sink.close()


def test_a_stream_gets_lines_and_stays_open() -> None:
    stream = io.BytesIO()
    sink = StreamSink(stream)
    sink.write([record("/a"), record("/b")])
    sink.close()
    assert [json.loads(line)["path"] for line in stream.getvalue().splitlines()] == ["/a", "/b"]


def test_a_second_run_skips_what_is_settled_and_adds_the_rest(output: str) -> None:
    sink = opened(output)
    sink.write([record("/a"), record("/b", code=ErrorCode.INVALID_IMAGE)])
    sink.close()
    sink = opened(output)
    assert sink.pending(entries("/a", "/b", "/c")).entries == entries("/c")
    sink.write([record("/c")])
    sink.close()
    assert rows(output) == [("/a", "CLASSIFIED", 1), ("/b", "FAILED", 1), ("/c", "CLASSIFIED", 2)]


def test_what_is_retried_replaces_its_earlier_line(output: str) -> None:
    sink = opened(output)
    sink.write([record("/a"), record("/b", code=ErrorCode.UNAVAILABLE)])
    sink.close()
    sink = opened(output)
    sink.write([record("/b")])
    sink.close()
    assert rows(output) == [("/a", "CLASSIFIED", 1), ("/b", "CLASSIFIED", 2)]


def test_lines_without_a_row_are_cut_off_on_resume(tmp_path: Path) -> None:
    output = str(tmp_path / "out.jsonl")
    sink = opened(output)
    sink.write([record("/a")])
    sink.close()
    with open(output, "ab") as torn:
        torn.write(b'{"path":"/b","outc')
    sink = opened(output)
    sink.write([record("/b")])
    sink.close()
    assert rows(output) == [("/a", "CLASSIFIED", 1), ("/b", "CLASSIFIED", 2)]


def test_an_abandoned_output_is_resumed(output: str) -> None:
    sink = opened(output)
    sink.write([record("/a")])
    sink.close(complete=False)
    sink = opened(output)
    assert sink.pending(entries("/a")).entries == []
    sink.close()
    assert rows(output) == [("/a", "CLASSIFIED", 1)]


def test_superseded_lines_of_an_abandoned_run_leave_later(output: str) -> None:
    for _ in range(2):
        sink = opened(output)
        sink.write([record("/a", code=ErrorCode.UNAVAILABLE), record("/b", code=ErrorCode.UNAVAILABLE)])
        sink.close(complete=False)
    opened(output).close()
    assert rows(output) == [("/a", "FAILED", 2), ("/b", "FAILED", 2)]


@pytest.mark.parametrize("replaced", [False, True], ids=["before", "after"])
def test_a_compaction_cut_off_around_its_replacement_is_finished(tmp_path: Path, replaced: bool) -> None:
    output = str(tmp_path / "out.jsonl")
    for _ in range(2):
        sink = opened(output)
        sink.write([record("/a", code=ErrorCode.UNAVAILABLE)])
        sink.close(complete=False)
    old = Path(output).read_bytes()
    compacted = old.splitlines(keepends=True)[1]
    ledger = Ledger(ledger_path(output))
    ledger.update_state(compacted_bytes=len(compacted))
    ledger.close()
    if replaced:
        Path(output).write_bytes(compacted)
    opened(output).close()
    assert rows(output) == [("/a", "FAILED", 2)]


def test_a_merge_cut_off_after_its_replacement_is_not_done_twice(tmp_path: Path) -> None:
    output = str(tmp_path / "out.parquet")
    sink = opened(output)
    sink.write([record("/a")])
    spooled = Path(spool_path(output)).read_bytes()
    sink.close()
    ledger = Ledger(ledger_path(output))
    ledger.update_state(generation=0, output_bytes=len(spooled))
    ledger.close()
    Path(spool_path(output)).write_bytes(spooled)
    opened(output).close()
    assert rows(output) == [("/a", "CLASSIFIED", 1)]


def test_parquet_has_the_scores_and_no_spool_is_left(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    output = str(tmp_path / "out.parquet")
    sink = opened(output)
    sink.write([record("/a"), record(os.fsdecode(b"/\xff"), code=ErrorCode.UNAVAILABLE)])
    sink.close()
    first, second = pq.read_table(output).to_pylist()
    assert first["scores"] == [("UnknownCSAM-Ducks", 0.75), ("UnknownCSAM-Entropy", 1.5)]
    assert (first["top"], first["top_weight"], first["pcsam"]) == ("UnknownCSAM-Ducks", 0.75, None)
    assert (second["path"], second["error_code"], second["scores"]) == (r"/\xff", "UNAVAILABLE", [])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out.parquet", "out.parquet.ledger"]


def test_a_full_disk_leaves_no_row_without_its_line(tmp_path: Path) -> None:
    output = str(tmp_path / "out.jsonl")
    sink = opened(output)
    sink.write([record(f"/{number}") for number in range(500)])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(output) + 100, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            sink.write([record("/a")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    sink.close(complete=False)
    sink = opened(output)
    assert sink.pending(entries("/a", "/0")).entries == entries("/a")
    sink.write([record("/a")])
    sink.close()
    assert len(rows(output)) == 501


def test_an_output_is_never_overwritten_by_accident(output: str) -> None:
    Path(output).write_text("precious")
    with pytest.raises(ConfigError, match="--resume"):
        opened(output, resume=False)
    with pytest.raises(LedgerError, match="no ledger beside it"):
        opened(output, resume=True)
    assert Path(output).read_text() == "precious"


def test_overwrite_starts_over(output: str) -> None:
    sink = opened(output)
    sink.write([record("/a")])
    sink.close()
    sink = open_output(output, resume=False, overwrite=True, choice=RetryChoice())
    assert sink.pending(entries("/a")).entries == entries("/a")
    sink.write([record("/b")])
    sink.close()
    assert rows(output) == [("/b", "CLASSIFIED", 1)]


def test_an_output_that_lost_lines_is_not_resumed(output: str) -> None:
    sink = opened(output)
    sink.write([record("/a")])
    sink.close()
    os.unlink(output)
    with pytest.raises(LedgerError, match="start over with --overwrite"):
        opened(output)


def test_a_run_that_changes_nothing_leaves_the_output_alone(output: str) -> None:
    sink = opened(output)
    sink.write([record("/a")])
    sink.close()
    before = rows(output)
    for _ in range(2):
        opened(output).close()
    assert rows(output) == before


def test_the_directory_of_an_output_must_exist(tmp_path: Path) -> None:
    with pytest.raises((LedgerError, OSError)):
        opened(str(tmp_path / "no" / "out.jsonl"))


def test_all_files_of_an_output_are_known(output: str, tmp_path: Path) -> None:
    sink = opened(output)
    sink.write([record("/a")])
    assert {str(file) for file in tmp_path.iterdir()} <= own_files(output)
    sink.close()
