"""The one table that a run prints, and the JSON that it leaves."""

from __future__ import annotations

import math
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.measure import HAND_ROLLED, OFFICIAL, OURS, Figure, Row, Target

RESULTS = Path(__file__).parent / "results"
_PACKAGES = (
    "athena-async",
    "resolver-athena-client",
    "grpcio",
    "protobuf",
    "pillow",
    "pillow-simd",
    "opencv-python-headless",
    "numpy",
    "brotli",
)
_PEERS = (OURS, OFFICIAL, HAND_ROLLED)


def text_table(rows: Iterable[Row]) -> str:
    """Scenario, each peer's median (lowest - highest), ratios, targets and whether they are met."""
    lines: list[tuple[str, ...]] = [("", "scenario", "unit", *_PEERS, "ours/off.", "ours/hand", "target", "met")]
    for row in rows:
        targets = row.targets or (None,)
        peers = [_figure(row.figures.get(peer)) for peer in _PEERS]
        ratios = [_ratio(row.ratio(OURS, peer)) for peer in (OFFICIAL, HAND_ROLLED)]
        lines.append((row.scenario, row.what, row.unit, *peers, *ratios, *_target(targets[0])))
        lines += [("", "", "", "", "", "", "", "", *_target(target)) for target in targets[1:]]
        others = [f"{name} {_figure(figure)}" for name, figure in row.figures.items() if name not in _PEERS]
        lines += [("", f"  {text}", *[""] * 8) for text in (*others, *row.note.splitlines())]
    widths = [max((len(line[i]) for line in lines if line[2] or i != 1), default=0) for i in range(len(lines[0]))]
    rendered = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    ]
    rendered.insert(1, "-" * max(map(len, rendered)))
    return "\n".join(rendered)


def verdict(rows: Iterable[Row]) -> str:
    """How many targets hold, and which do not."""
    targets = [(row, target) for row in rows for target in row.targets]
    missed = [
        f"{row.scenario} {row.what}: {target.text}, is {target.value:.3g}" for row, target in targets if not target.met
    ]
    return "\n".join(
        [f"{len(targets) - len(missed)} of {len(targets)} targets met.", *(f"Missed: {line}" for line in missed)]
    )


def number(value: float) -> str:
    """A figure with three digits: 12.3 k, 4.56, 0.0123."""
    if math.isnan(value):
        return "-"
    for limit, unit in ((1e6, " M"), (1e4, " k")):
        if abs(value) >= limit:
            return f"{value / (1e6 if unit == ' M' else 1e3):.3g}{unit}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _figure(figure: Figure | None) -> str:
    if figure is None:
        return ""
    spread = f" ({number(figure.low)} - {number(figure.high)})" if len(figure.values) > 1 else ""
    return number(figure.median) + spread


def _ratio(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2f}x" if value < 100 else f"{value:.0f}x"


def _target(target: Target | None) -> tuple[str, str]:
    if target is None:
        return "", ""
    return f"{target.text} (is {number(target.value)})", "yes" if target.met else "NO"


def rows_from_json(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The rows that ``dataclasses.asdict`` made."""
    return [
        Row(
            row["scenario"],
            row["what"],
            row["unit"],
            {name: Figure(tuple(figure["values"])) for name, figure in row["figures"].items()},
            [Target(**target) for target in row["targets"]],
            row["note"],
        )
        for row in rows
    ]


def machine() -> dict[str, Any]:
    """What the figures depend on: processor, kernel, versions, the commit. No host or user name."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
        "commit": _git("rev-parse", "--short=12", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--", "src", "benchmarks/*.py")),
        "load_before": os.getloadavg()[0],
    }


def _processor() -> str:
    names = [
        line.split(":")[1] for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
    ]
    return names[0].strip() if names else platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str:
    """What git says; nothing where there is no git, or no repository."""
    if shutil.which("git") is None:
        return ""
    run = subprocess.run(["git", *arguments], cwd=RESULTS.parent, capture_output=True, text=True, check=False)
    return run.stdout.strip()
