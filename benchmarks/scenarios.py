"""Finds the scenarios, and runs one in a process of its own: ``python -m benchmarks.scenarios S1 --quick``."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import pkgutil
from collections.abc import Coroutine
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, cast

import benchmarks
from benchmarks import children
from benchmarks.measure import Report, Scale
from benchmarks.table import text_table


class Scenario(Protocol):
    """What each module ``s01_...`` to ``s11_...`` offers."""

    def run(self, scale: Scale) -> Coroutine[Any, Any, Report]:
        """Measures, and returns what was found."""
        ...


def names() -> dict[str, str]:
    """Scenario id, as ``S1``, to the name of its module, in order.

    Two have no number: ``builds`` is S3 with Pillow-SIMD, ``stages`` the profile of one image.
    """
    found = sorted(module.name for module in pkgutil.iter_modules(benchmarks.__path__))
    modules = [name for name in found if name[0] == "s" and name[1:3].isdigit()]
    return {f"S{int(name[1:3])}": name for name in modules} | {"builds": "builds", "stages": "stages"}


def title(name: str) -> str:
    """What the scenario is about: the first line of its module, which is not imported for it."""
    return (Path(__file__).parent / f"{names()[name]}.py").read_text().split("\n", 1)[0].strip('"').rstrip(".")


def load(name: str) -> Scenario:
    return cast(Scenario, importlib.import_module(f"benchmarks.{names()[name]}"))


def main() -> None:
    parser = argparse.ArgumentParser(description="Runs one scenario and writes what it found as JSON.")
    parser.add_argument("name", choices=list(names()))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--write", type=Path, help="where the JSON goes; standard output if not given")
    parser.add_argument("--child", action="store_true", help="end when standard input closes")
    given = parser.parse_args()
    if given.child:
        children.end_with_parent()
    report = asyncio.run(load(given.name).run(Scale(given.quick)))
    if given.write:
        given.write.write_text(json.dumps(asdict(report)))
    else:
        print(text_table(report.rows))


if __name__ == "__main__":
    main()
