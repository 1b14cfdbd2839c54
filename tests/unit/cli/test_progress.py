from __future__ import annotations

import io

import pytest
from rich.console import Console

from athena_async.cli.progress import Counted, LineView, Pace, Progressing, progressing
from athena_async.errors import ErrorCode
from athena_async.jobs.report import Report
from athena_async.results import Outcome
from tests.unit.jobs.fakes import record


def test_pace_is_that_of_the_last_seconds() -> None:
    pace = Pace(started_s=0.0)
    for second in range(1, 101):
        pace.note(float(second), second * 10)
    for second in range(101, 131):
        pace.note(float(second), 1000 + (second - 100) * 100)
    assert pace.per_second == pytest.approx(100)
    assert pace.left_s(1000) == pytest.approx(10)


def test_nothing_settled_has_no_time_left() -> None:
    pace = Pace(started_s=5.0)
    assert pace.left_s(10) is None
    pace.note(5.0, 0)
    pace.note(6.0, 0)
    assert pace.per_second == 0
    assert pace.left_s(10) is None


def test_files_of_earlier_runs_are_done_but_are_no_pace() -> None:
    report = Report(started_s=0.0)
    report.skipped[Outcome.CLASSIFIED] = 50
    report.add(record("/a"))
    report.add(record("/b", code=ErrorCode.INVALID_IMAGE))
    pace = Pace(0.0)
    pace.note(1.0, report.settled_count)
    state = progressing(report, Counted(total_count=60), pace)
    assert str(state) == "52 of 60 images, 2 /s, 4.0 s left, 1 not classified"


def test_before_the_count_is_known_there_is_no_time_left() -> None:
    report = Report(started_s=0.0)
    report.add(record("/a"))
    pace = Pace(0.0)
    pace.note(2.0, 1)
    assert str(progressing(report, Counted(), pace)) == "1 images, 0.5 /s"


def test_lines_come_further_and_further_apart() -> None:
    stream = io.StringIO()
    view = LineView(Console(file=stream), started_s=100.0)
    shown = []
    for tenth in range(0, 36_000):
        before = stream.tell()
        view.show(100.0 + tenth / 10, Progressing(tenth, None, 0, 1.0, None))
        if stream.tell() > before:
            shown.append(tenth / 10)
    assert shown[:3] == pytest.approx([1, 2, 3], abs=0.15)
    assert shown[-1] - shown[-2] == pytest.approx(60, abs=0.2)
    assert len(shown) < 120
