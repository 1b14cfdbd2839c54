from __future__ import annotations

import math
from pathlib import Path

import pytest

from athena_async.cli import text


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (602_112, "602 kB"), (999_999, "1 MB"), (160_493_170, "160 MB")],
)
def test_sizes(count: int, shown: str) -> None:
    assert text.size(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.05, "0.05 s"),
        (3.14, "3.1 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (7260, "2 h 1 min"),
    ],
)
def test_durations(seconds: float, shown: str) -> None:
    assert text.duration(seconds) == shown


def test_latencies_and_rates() -> None:
    assert [text.latency(seconds) for seconds in (0.0123, 0.9994, 0.9996, 2.5)] == ["12.3 ms", "999 ms", "1 s", "2.5 s"]
    assert text.latency(math.nan) == "-"
    assert [text.rate(value) for value in (0.256, 64.04, 12345.6)] == ["0.256 /s", "64 /s", "12,346 /s"]


def test_names_cannot_move_the_cursor() -> None:
    assert text.printable("a\x1b[2Jb\nc\r") == r"a\x1b[2Jb\nc\r"


def test_paths_below_the_working_directory_are_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert text.short_path(str(tmp_path / "a" / "b.jpg")) == "a/b.jpg"
    assert text.short_path("/elsewhere/b.jpg") == "/elsewhere/b.jpg"
