from __future__ import annotations

import io

from rich.console import Console

from athena_async.cli.run import Finished
from athena_async.cli.summary import MAX_FAILURES_SHOWN, print_records, print_summary, saved, stopped_line
from athena_async.errors import ErrorCode
from athena_async.jobs.report import Report
from athena_async.results import Outcome
from tests.unit.jobs.fakes import record


def report(*, bad: int = 0) -> Report:
    made = Report(started_s=10.0, ended_s=12.0)
    made.add(record("/photos/a.jpg", size=2_000_000))
    for number in range(bad):
        made.add(record(f"/photos/bad-{number}[red].jpg", code=ErrorCode.INVALID_IMAGE, message="trunc\x1bated"))
    return made


def printed(made: Report, sent_bytes: int = 500_000) -> str:
    stream = io.StringIO()
    print_summary(Console(file=stream, width=40), made, sent_bytes)
    return stream.getvalue()


def test_a_summary_tells_rate_outcomes_latency_and_bytes() -> None:
    text = printed(report())
    assert "images     1 in 2.0 s: 0.5 /s" in text
    assert "CLASSIFIED 1" in text
    assert "UNKNOWN    0" in text
    assert "latency    p50 20 ms, p95 20 ms" in text
    assert "2 MB of files, 500 kB sent: 1.5 MB saved (75%)" in text
    assert "Not classified" not in text


def test_failures_stand_by_name_and_reason_whatever_the_name() -> None:
    assert r"  /photos/bad-0[red].jpg  INVALID_IMAGE: trunc\x1bated" in printed(report(bad=1)).splitlines()


def test_many_failures_are_cut_short_and_counted() -> None:
    text = printed(report(bad=MAX_FAILURES_SHOWN + 30))
    assert text.count("INVALID_IMAGE: ") == MAX_FAILURES_SHOWN
    assert "... 50 in all: INVALID_IMAGE 50" in text


def test_unreadable_paths_are_told() -> None:
    made = report()
    made.add_unreadable("/private", PermissionError(13, "Permission denied"))
    assert "  /private  unreadable: Permission denied" in printed(made).splitlines()


def test_earlier_runs_are_told_by_outcome() -> None:
    made = report()
    made.skipped[Outcome.CLASSIFIED] = 5
    made.skipped[Outcome.FAILED] = 2
    assert "skipped    settled in an earlier run: 5 CLASSIFIED, 2 FAILED" in printed(made)


def test_bytes_may_also_grow() -> None:
    assert saved(100_000, 602_000) == "100 kB of files, 602 kB sent: 502 kB more (small files grow to 448x448 pixels)"


def test_what_a_stopped_run_left() -> None:
    made = report()
    assert stopped_line(made, 10, can_resume=True) is None
    made.stopped, made.left_count = "SIGTERM", 3
    line = "stopped (SIGTERM): 1 of 10 files done, 3 in flight given up; --resume goes on from here"
    assert stopped_line(made, 10, can_resume=True) == line


def test_single_results_stand_in_a_table() -> None:
    stream = io.StringIO()
    print_records(Console(file=stream, width=120), [record("/a.jpg"), record("/b.jpg", code=ErrorCode.UNAVAILABLE)])
    _, first, second = (line.split() for line in stream.getvalue().splitlines())
    assert first == ["/a.jpg", "UnknownCSAM-Ducks", "0.750", "-", "1.500", "no"]
    assert second == ["/b.jpg", "FAILED", "-", "-", "-", "no"]


def test_exit_codes() -> None:
    assert Finished(report()).exit_code == 0
    assert Finished(report(bad=1)).exit_code == 1
    refused = Report(started_s=0.0)
    refused.add(record("/a", code=ErrorCode.UNAUTHENTICATED))
    assert Finished(refused).exit_code == 3
    assert Finished(report(), signal_number=15).exit_code == 143
