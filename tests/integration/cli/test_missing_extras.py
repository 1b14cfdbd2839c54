"""The command line where optional dependencies are not installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.cli.harness import environment, make_photos

WITHOUT = """
import sys
for module in sys.argv.pop(1).split(","):
    sys.modules[module] = None
from athena_async.cli import main
main()
"""


@pytest.mark.parametrize(
    ("missing", "arguments", "extra"),
    [
        ("typer", ("--help",), "cli"),
        ("rich", ("doctor",), "cli"),
        ("pyarrow", ("classify", "{photo}", "--emulator", "-o", "{folder}/out.parquet"), "parquet"),
        ("grpc_health,grpc_health.v1", ("classify", "{photo}", "--emulator"), "emulator"),
        ("grpc_health,grpc_health.v1", ("emulator", "--port", "0"), "emulator"),
        ("numpy,cv2", ("classify", "{photo}", "--emulator"), "emulator"),
    ],
)
def test_a_missing_extra_is_one_line_that_names_it(
    tmp_path: Path, missing: str, arguments: tuple[str, ...], extra: str
) -> None:
    (photo,) = make_photos(tmp_path / "photos", 1)
    given = [argument.format(photo=photo, folder=tmp_path) for argument in arguments]
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT, missing, *given],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    assert ended.returncode == 2
    assert f"pip install 'athena-async[{extra}]'" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
