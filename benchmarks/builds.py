"""The photographs of S3 with Pillow-SIMD, in the environment that `make simd` builds (full runs only)."""

from __future__ import annotations

import asyncio
import json
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks import table
from benchmarks.children import ROOT
from benchmarks.measure import Report, Row, Scale

PYTHON = ROOT / ".venv-simd" / "bin" / "python"


async def run(scale: Scale) -> Report:
    """S3 once more, by another interpreter. The targets are those of Pillow's own build, so none is judged here."""
    if scale.quick:
        return Report()
    if not PYTHON.exists():
        return Report([Row("S3", "with Pillow-SIMD", "images/s", {}, note="not built here: make simd")])
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "report.json"
        await _measure(written)
        rows = table.rows_from_json(json.loads(written.read_text())["rows"])
    return Report([replace(row, what=f"{row.what}, Pillow-SIMD", targets=()) for row in rows])


async def _measure(written: Path) -> None:
    """Its standard input closes with this process, and it ends on that."""
    arguments = ["-m", "benchmarks.scenarios", "S3", "--child", "--write", str(written)]
    process = await asyncio.create_subprocess_exec(PYTHON, *arguments, cwd=ROOT, stdin=asyncio.subprocess.PIPE)
    if await process.wait():
        raise RuntimeError(f"S3 with Pillow-SIMD ended with exit status {process.returncode}")
