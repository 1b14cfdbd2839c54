from __future__ import annotations

import json
import os

from hypothesis import given
from hypothesis import strategies as st

from athena_async.errors import ErrorCode
from athena_async.jobs.records import Record, as_line, shown_path
from athena_async.jobs.sources import FileEntry
from athena_async.results import Classification, ClassificationResult, Outcome
from tests.unit.jobs.fakes import record


def test_a_line_tells_everything_about_a_classified_image() -> None:
    scores = (
        Classification("UnknownCSAM-Ducks", 0.75),
        Classification("UnknownCSAM-Goose", 0.25),
        Classification("UnknownCSAM-Entropy", 1.5),
        Classification("UnknownCSAM-PCSAM", 0.125),
        Classification("KnownCSAM-MD5", 1.0),
    )
    result = ClassificationResult("id-1", 3, Outcome.CLASSIFIED, scores, None, 2, 0.12345678)
    assert json.loads(as_line(Record(FileEntry("/a.jpg", 99, 1), result), run=4)) == {
        "path": "/a.jpg",
        "outcome": "CLASSIFIED",
        "top": "UnknownCSAM-Ducks",
        "top_weight": 0.75,
        "pcsam": 0.125,
        "entropy": 1.5,
        "known_match": True,
        "scores": dict(scores),
        "error_code": None,
        "error_message": None,
        "attempts": 2,
        "latency_s": 0.123457,
        "correlation_id": "id-1",
        "size_bytes": 99,
        "run": 4,
    }


def test_a_line_tells_why_an_image_failed() -> None:
    line = json.loads(as_line(record("/a", code=ErrorCode.INVALID_IMAGE, message="truncated"), run=1))
    assert (line["outcome"], line["error_code"], line["error_message"]) == ("FAILED", "INVALID_IMAGE", "truncated")
    assert (line["top"], line["pcsam"], line["scores"]) == (None, None, {})


def test_a_weight_that_is_no_number_is_null_and_the_line_stays_json() -> None:
    scores = (Classification("UnknownCSAM-Ducks", float("nan")), Classification("UnknownCSAM-PCSAM", float("inf")))
    result = ClassificationResult("id", 0, Outcome.CLASSIFIED, scores)
    line = json.loads(as_line(Record(FileEntry("/a", 1, 1), result), run=1), parse_constant=lambda name: 1 / 0)
    assert line["scores"] == {"UnknownCSAM-Ducks": None, "UnknownCSAM-PCSAM": None}


def test_a_line_is_one_line_whatever_the_name() -> None:
    line = as_line(record("/a\n\u2028b"), run=1)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert line.isascii()
    assert json.loads(line)["path"] == "/a\n\u2028b"


def test_a_name_that_is_not_utf8_is_shown() -> None:
    assert shown_path(os.fsdecode(b"/photos/\xff.jpg")) == r"/photos/\xff.jpg"


names = st.one_of(
    st.binary(max_size=6),
    st.lists(st.sampled_from([b"\\", b"x", b"f", b"\xff", b"\\xff", b"\\\\xff"]), max_size=5).map(b"".join),
)


@given(names, names)
def test_different_files_are_shown_differently(one: bytes, other: bytes) -> None:
    shown = [shown_path(os.fsdecode(name)) for name in (one, other)]
    assert all(text.encode("utf-8") for text in shown if text)
    assert (shown[0] == shown[1]) == (one == other)
