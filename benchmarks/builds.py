"""The photographs of S3 with Pillow-SIMD, in the environment that `make simd` builds (full runs only)."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks import children, table
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
        await children.finish("benchmarks.scenarios", "S3", "--child", "--write", str(written), python=PYTHON)
        rows = table.rows_from_json(json.loads(written.read_text())["rows"])
    return Report([replace(row, what=f"{row.what}, Pillow-SIMD", targets=()) for row in rows])
