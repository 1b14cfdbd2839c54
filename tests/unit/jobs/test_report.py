from __future__ import annotations

import math
import random

import pytest

from athena_async.errors import ErrorCode
from athena_async.jobs.report import MAX_FAILURES_KEPT, Quantiles, Report
from athena_async.results import Outcome
from tests.unit.jobs.fakes import record


def test_quantiles_are_within_a_hundredth() -> None:
    generator = random.Random(7)
    values = sorted(generator.lognormvariate(-3, 1.5) for _ in range(20_000))
    quantiles = Quantiles()
    for value in values:
        quantiles.add(value)
    for fraction in (0.01, 0.5, 0.95, 0.999, 1.0):
        true = values[max(0, math.ceil(fraction * len(values)) - 1)]
        assert quantiles.at(fraction) == pytest.approx(true, rel=0.0101)


def test_quantiles_of_nothing_and_of_zero() -> None:
    assert math.isnan(Quantiles().at(0.5))
    quantiles = Quantiles()
    quantiles.add(0.0)
    assert quantiles.at(0.5) == pytest.approx(0, abs=1e-8)


def test_tallies() -> None:
    report = Report(started_s=100.0)
    report.add(record("/a", size=5))
    report.add(record("/b", size=7, code=ErrorCode.INVALID_IMAGE, message="truncated"))
    report.add(record("/c", size=0, code=ErrorCode.DEADLINE_EXCEEDED, outcome=Outcome.UNKNOWN))
    assert report.outcomes == {Outcome.CLASSIFIED: 1, Outcome.FAILED: 1, Outcome.UNKNOWN: 1}
    assert report.errors == {ErrorCode.INVALID_IMAGE: 1, ErrorCode.DEADLINE_EXCEEDED: 1}
    assert report.source_bytes == 5
    assert report.rate(now=102.0) == 1.5
    assert [(f.path, f.code, f.message) for f in report.failures][0] == ("/b", "INVALID_IMAGE", "truncated")
    assert not report.is_complete


def test_a_complete_run() -> None:
    report = Report(started_s=0.0)
    report.add(record("/a"))
    assert report.is_complete
    assert not report.is_refused
    report.add_unreadable("/private", PermissionError(13, "Permission denied"))
    assert report.unreadable == [("/private", "Permission denied")]
    assert not report.is_complete


def test_failures_kept_are_bounded_and_counted_all() -> None:
    report = Report(started_s=0.0)
    for _ in range(MAX_FAILURES_KEPT + 5):
        report.add(record("/a", code=ErrorCode.INVALID_IMAGE))
    assert len(report.failures) == MAX_FAILURES_KEPT
    assert report.errors.total() == MAX_FAILURES_KEPT + 5


def test_refusals_in_a_row_see_past_bad_files_and_end_at_an_answer() -> None:
    report = Report(started_s=0.0)
    report.add(record("/a", code=ErrorCode.UNAVAILABLE))
    report.add(record("/b", code=ErrorCode.INVALID_IMAGE))
    report.add(record("/c", code=ErrorCode.UNAUTHENTICATED))
    assert report.refused_in_a_row == 2
    assert report.is_refused
    report.add(record("/d", code=ErrorCode.MODEL_ERROR))
    assert report.refused_in_a_row == 0
    report.add(record("/e"))
    assert not report.is_refused


def test_bad_files_alone_are_no_refusal() -> None:
    report = Report(started_s=0.0)
    report.add(record("/b", code=ErrorCode.INVALID_IMAGE))
    assert not report.is_refused
