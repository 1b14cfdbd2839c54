"""The public API as a strict type checker sees it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(180)
def test_uses_check_and_misuses_are_refused() -> None:
    """The whole project in one run, as `make check` does it: the sources, `uses.py` and `misuses.py`."""
    run = subprocess.run(
        [sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True, timeout=170, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
