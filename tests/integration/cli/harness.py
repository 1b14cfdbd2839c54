"""The command line as people run it: a process, its output, its exit code."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

COMMAND = (sys.executable, "-m", "athena_async.cli")


def environment(**changes: str) -> dict[str, str]:
    """This process's, without any setting of ours."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("ATHENA_", "OAUTH_", "USE_TLS"))}
    return kept | {"COLUMNS": "200", "NO_COLOR": "1"} | changes


def athena(*arguments: object, **changes: str) -> subprocess.CompletedProcess[str]:
    """Runs one command to its end."""
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, env=environment(**changes), capture_output=True, text=True, timeout=15, check=False)


def start(*arguments: object) -> subprocess.Popen[str]:
    """Starts one command; its caller ends it."""
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@contextlib.contextmanager
def emulator(*arguments: object) -> Iterator[str]:
    """A local Athena in a process of its own; yields its ``host:port``."""
    with start("emulator", "--port", "0", *arguments) as process:
        try:
            assert process.stdout is not None
            announced = process.stdout.readline()
            assert announced, process.communicate()
            yield json.loads(announced)["grpc"]
        finally:
            process.kill()
            process.communicate()


def make_photos(folder: Path, count: int) -> list[Path]:
    """Small images, each with pixels of its own."""
    folder.mkdir()
    paths = [folder / f"{number:04}.png" for number in range(count)]
    for number, path in enumerate(paths):
        Image.new("RGB", (32, 24), (number % 256, number // 256, 128)).save(path)
    return paths


def read_lines(output: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in output.read_bytes().splitlines()]
