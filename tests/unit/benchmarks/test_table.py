"""The table says what was measured and what was missed, and survives JSON."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from benchmarks.measure import OFFICIAL, OURS, Figure, Row, Target
from benchmarks.table import machine, number, rows_from_json, text_table, verdict

ROW = Row(
    "S1",
    "hash-only",
    "images/s",
    {OURS: Figure((120_000.0, 100_000.0, 110_000.0)), OFFICIAL: Figure((50_000.0,)), "another": Figure((7.0,))},
    [Target(">= 2x official", 2.2, 2.0), Target("<= 20 ms", 30.0, 20.0, at_least=False)],
    "a note",
)


def test_the_table_shows_figures_ratios_and_targets() -> None:
    text = text_table([ROW])
    for part in ("110 k (100 k - 120 k)", "50 k", "2.20x", ">= 2x official (is 2.2)", "another 7", "a note"):
        assert part in text
    lines = text.splitlines()
    assert lines[2].endswith("yes")
    assert lines[3].endswith("NO")


def test_a_row_without_targets_is_shown_too() -> None:
    assert "S9" in text_table([Row("S9", "lag", "ms", {OURS: Figure((1.0,))})])


def test_the_verdict_names_what_was_missed() -> None:
    assert verdict([ROW]) == "1 of 2 targets met.\nMissed: S1 hash-only: <= 20 ms, is 30"


def test_rows_survive_json() -> None:
    assert rows_from_json(json.loads(json.dumps([asdict(ROW)]))) == [ROW]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1_234_567, "1.23 M"),
        (45_678, "45.7 k"),
        (1234, "1,234"),
        (12.34, "12.3"),
        (0.01234, "0.0123"),
        (float("nan"), "-"),
    ],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_the_machine_is_described_without_names() -> None:
    found = machine()
    assert found["packages"]["grpcio"]
    assert found["cores"] >= 1
