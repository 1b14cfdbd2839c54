"""Runs the scenarios, prints the table, writes ``results/``.

    python -m benchmarks --full                 everything, 45 to 50 minutes
    python -m benchmarks --quick                all scenarios with small numbers, under 90 s
    python -m benchmarks --quick --only S1,S5

Loopback only. Each scenario is a process of its own with a time limit; it and its servers end with this process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import charts, scenarios, table
from benchmarks.children import ROOT

TIME_LIMIT_S = {"full": 600.0, "quick": 30.0}


def main() -> int:
    given = _arguments()
    chosen = given.only or list(scenarios.names())
    mode = "quick" if given.quick else "full"
    title = "quick" if given.quick else "partial" if given.only else "latest"
    found: dict[str, Any] = {"name": title, "machine": table.machine(), "rows": [], "series": {}, "failed": {}}
    start = time.monotonic()
    for name in chosen:
        _run(name, mode, found)
        found["seconds"] = round(time.monotonic() - start, 1)
        _write(found, given.results)  # each time: an hour's figures must not hang on the last scenario
    rows = table.rows_from_json(found["rows"])
    print(table.text_table(rows))
    print(table.verdict(rows))
    for name, why in found["failed"].items():
        print(f"{name} did not finish: {why}")
    files = (_write(found, given.results), *charts.draw(found, given.results))
    print(f"Wrote {', '.join(str(file) for file in files)}")
    return 1 if found["failed"] else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measures athena_async against its peers."
    )
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument("--full", action="store_true", help="the numbers that count")
    size.add_argument("--quick", action="store_true", help="all of it with small numbers; noisier")
    parser.add_argument("--only", type=_some, help="scenarios to run, as S1,S5,stages")
    parser.add_argument("--results", type=Path, default=table.RESULTS, help="where JSON and charts go")
    return parser.parse_args()


def _some(text: str) -> list[str]:
    known = {name.lower(): name for name in scenarios.names()}
    asked = [part.strip().lower() for part in text.split(",")]
    if unknown := [part for part in asked if part not in known]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: choose from {', '.join(known.values())}")
    return [known[part] for part in asked]


def _run(name: str, mode: str, found: dict[str, Any]) -> None:
    """Runs one scenario in a child process and adds what it found; a failure is noted and ends nothing else."""
    print(f"{name}: {scenarios.title(name)} ...", file=sys.stderr, flush=True)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "report.json"
        arguments = [name, "--child", "--write", str(written), *(["--quick"] if mode == "quick" else [])]
        environment = {**os.environ, "GRPC_VERBOSITY": os.environ.get("GRPC_VERBOSITY", "NONE")}
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.scenarios", *arguments], cwd=ROOT, stdin=subprocess.PIPE, env=environment
        )
        try:
            code = process.wait(TIME_LIMIT_S[mode])
            if code == 0:
                report = json.loads(written.read_text())
                found["rows"] += report["rows"]
                found["series"] |= report["series"]
            else:
                found["failed"][name] = f"exit status {code}"
        except subprocess.TimeoutExpired:
            found["failed"][name] = f"over its {TIME_LIMIT_S[mode]:.0f} s"
        finally:
            _stop(process)
    print(f"{name}: {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Closes the child's pipe, on which it and its own children end, then makes sure of it."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(5.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _write(found: dict[str, Any], results: Path) -> Path:
    results.mkdir(parents=True, exist_ok=True)
    written = results / f"{found['name']}.json"
    written.write_text(json.dumps(found, indent=1) + "\n")
    return written


if __name__ == "__main__":
    sys.exit(main())
