"""``make sim``: a million images and 200 disconnects, then hours of silence and clock jumps, in virtual time."""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Coroutine
from typing import Any

from tests.simulation import runs
from tests.simulation.world import Weather
from tests.virtual_time import run_virtual


def show(name: str, run: Coroutine[Any, Any, runs.Figures]) -> None:
    """Runs one and prints its row."""
    started_s = time.perf_counter()
    figures = run_virtual(run)
    print(f"{name}: {figures.row()} [{time.perf_counter() - started_s:.0f} s]", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--disconnects", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    given = parser.parse_args()
    seed = given.seed
    print(f"seed {seed}: repeat with --seed {seed}", flush=True)
    pause_s = 2.0 * given.images / 20_000 / max(1, given.disconnects)
    bad = Weather(replayed=0.01, foreign=0.01)
    show("calm", runs.storm(given.images // 10, 0, Weather(), seed))
    show("storm", runs.storm(given.images, given.disconnects, bad, seed, pause_s))
    for minutes in (0, 1, 10, 30, 59):
        show(f"held back {minutes} min", runs.held_back(minutes, seed))
    for hours in (1, 24):
        show(f"clock jumps {hours} h", runs.clock_jump(hours * 3600.0, seed))
        show(f"answers forgotten after {hours} h", runs.forgotten(hours, seed))
    show("3 clients share a deployment", runs.shared_deployment(3, seed))
    for guilty in (1, 2, 7):
        show(f"{guilty} poisoned", runs.poisoned(guilty, seed))
    show("loop stalls 30 s", runs.stalled_loop(30.0, seed))
    show("everything fails", runs.failing_service(given.images // 100, seed))
    tried = run_virtual(runs.refusing_service(10.0, seed))
    print(f"nobody is let in for 10 minutes: {tried} calls tried on two channels")
    print("all promises held")


if __name__ == "__main__":
    main()
