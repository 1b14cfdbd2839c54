from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
from pathlib import Path

from tests.integration.cli.harness import COMMAND, emulator, environment, make_photos


def test_a_terminal_gets_a_bar_with_rate_and_time_left(tmp_path: Path) -> None:
    make_photos(tmp_path / "photos", 80)
    terminal, ours = pty.openpty()
    with emulator("--model", "per_image_s=0.01", "--model", "parallelism=1") as endpoint:
        command = [*COMMAND, "classify", str(tmp_path / "photos"), "--endpoint", endpoint, "--no-tls"]
        surroundings = environment(TERM="xterm", COLUMNS="120")
        with subprocess.Popen(command, env=surroundings, stdout=subprocess.DEVNULL, stderr=ours) as process:
            os.close(ours)
            shown = _read_all(terminal)
    assert process.returncode == 0
    assert re.search(r"\d+ of 80 images, [\d.]+ /s, [\d.]+ s left", shown)
    assert "━" in shown


def _read_all(terminal: int) -> str:
    parts = []
    with contextlib.suppress(OSError):  # the other end is closed
        while part := os.read(terminal, 65536):
            parts.append(part)
    os.close(terminal)
    return b"".join(parts).decode()
