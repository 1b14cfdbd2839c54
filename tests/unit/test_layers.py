"""The import contract of pyproject.toml holds: imports run downwards, the emulator and the client stay apart."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")


def lint_imports(directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LINT_IMPORTS, "--no-logo", "--no-cache", "--config", directory / "pyproject.toml"],
        cwd=directory,
        env={"PYTHONPATH": "src", "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=18,
        check=False,
    )


def test_contract_holds() -> None:
    run = lint_imports(ROOT)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("athena_async.streams.session", "import athena_async.engine"),
        ("athena_async.engine", "import athena_async.emulator"),
        ("athena_async.emulator", "import athena_async.streams"),
        ("athena_async.results", "from athena_async._proto.athena import models_pb2"),
        ("athena_async.brand_new", ""),
    ],
)
def test_contract_notices(tmp_path: Path, module: str, line: str) -> None:
    """The contract has teeth: a copy of the tree with one import too many breaks it."""
    copy_sources(tmp_path)
    path = tmp_path / "src" / module.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    with path.open("a") as file:
        file.write(f"\n{line}\n")
    run = lint_imports(tmp_path)
    assert run.returncode == 1, run.stdout + run.stderr
    assert "BROKEN" in run.stdout


def copy_sources(target: Path) -> None:
    for path in [ROOT / "pyproject.toml", *(ROOT / "src").rglob("*.py")]:
        copy = target / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
