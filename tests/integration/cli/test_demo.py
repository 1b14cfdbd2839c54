from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.cli.harness import environment

DEMO = Path(__file__).parents[3] / "scripts" / "demo.py"


@pytest.mark.timeout(60)  # the very first run makes the images
def test_the_demo_classifies_all_but_the_two_broken_files() -> None:
    ended = subprocess.run(
        [sys.executable, DEMO], env=environment(), capture_output=True, text=True, timeout=55, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "CLASSIFIED 204" in ended.stdout
    assert "FAILED     2" in ended.stdout
    assert "notes.png  UNSUPPORTED_FORMAT" in ended.stdout
    assert "truncated.jpg  INVALID_IMAGE" in ended.stdout
    assert " saved (" in ended.stdout
