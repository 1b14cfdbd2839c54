"""docs/reliability.md names tests and their files: every one of them must exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_every_test_that_the_tables_name_exists() -> None:
    page = ROOT / "docs" / "reliability.md"
    if not page.is_file():
        pytest.skip("the documentation is not here")
    files = list((ROOT / "tests").rglob("test_*.py"))
    tests = {name for file in files for name in re.findall(r"def (test_\w+)", file.read_text())}
    named = re.findall(r"::(test_\w+?)(_\.\.\.)?`", page.read_text())
    assert len(named) > 40
    for name, is_cut in named:
        assert name in tests or (is_cut and any(test.startswith(name) for test in tests)), name
    for path in re.findall(r"`((?:[a-z_]+/)*test_[a-z_]+\.py)", page.read_text()):
        assert any(str(file).endswith(f"/{path}") for file in files), path
