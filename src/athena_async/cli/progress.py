"""Progress of a run: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Protocol

import anyio
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.text import Text

from athena_async.cli.text import duration, rate
from athena_async.jobs.report import Report
from athena_async.results import Outcome

_WINDOW_S = 15.0
_BAR_INTERVAL_S = 0.1


class Pace:
    """Rate of the last `_WINDOW_S` seconds, and the time left at that rate."""

    def __init__(self, started_s: float) -> None:
        self._samples: deque[tuple[float, int]] = deque([(started_s, 0)])

    def note(self, now: float, settled_count: int) -> None:
        """Takes a sample; ``settled_count`` is the total so far."""
        self._samples.append((now, settled_count))
        while len(self._samples) > 2 and self._samples[1][0] <= now - _WINDOW_S:
            self._samples.popleft()

    @property
    def per_second(self) -> float:
        (earlier, then), (later, settled) = self._samples[0], self._samples[-1]
        return (settled - then) / (later - earlier) if later > earlier else 0.0

    def left_s(self, left_count: int) -> float | None:
        """Seconds until so many more are settled; None while nothing is."""
        return left_count / self.per_second if self.per_second else None


@dataclass(slots=True)
class Progressing:
    """What a view shows at one moment."""

    done_count: int
    total_count: int | None
    failed_count: int
    per_second: float
    left_s: float | None

    def __str__(self) -> str:
        of = f" of {self.total_count:,}" if self.total_count is not None else ""
        failed = f", {self.failed_count:,} not classified" if self.failed_count else ""
        left = f", {duration(self.left_s)} left" if self.left_s is not None else ""
        return f"{self.done_count:,}{of} images, {rate(self.per_second)}{left}{failed}"


class View(Protocol):
    def show(self, now: float, state: Progressing) -> None: ...

    def close(self) -> None: ...


class LineView:
    """Plain lines, further and further apart: a log of a day-long run stays readable."""

    def __init__(self, console: Console, started_s: float) -> None:
        self._console = console
        self._started_s = started_s
        self._due_s = started_s + 1.0

    def show(self, now: float, state: Progressing) -> None:
        if now < self._due_s:
            return
        self._console.print(Text(str(state)), soft_wrap=True)
        self._due_s = now + min(60.0, max(1.0, (now - self._started_s) / 10))

    def close(self) -> None:
        """Nothing is open."""


class BarView:
    """A bar on a terminal; gone when the run is over."""

    def __init__(self, console: Console) -> None:
        columns = (BarColumn(bar_width=None), TaskProgressColumn(), TextColumn("{task.description}", markup=False))
        self._progress = Progress(*columns, console=console, auto_refresh=False, transient=True, expand=True)
        self._task = self._progress.add_task("", total=None)
        self._progress.start()

    def show(self, now: float, state: Progressing) -> None:
        self._progress.update(
            self._task, completed=state.done_count, total=state.total_count, description=str(state), refresh=True
        )

    def close(self) -> None:
        self._progress.stop()


@dataclass(slots=True)
class Counted:
    """How many files there are: a guess from below until the walk ahead has ended."""

    total_count: int | None = None


async def show_progress(report: Report, counted: Counted, console: Console) -> None:
    """Shows ``report`` as it grows. Runs until cancelled, and then leaves a clean terminal."""
    pace = Pace(report.started_s)
    view: View = BarView(console) if console.is_terminal else LineView(console, report.started_s)
    try:
        while True:
            now = anyio.current_time()
            pace.note(now, report.settled_count)
            view.show(now, progressing(report, counted, pace))
            await anyio.sleep(_BAR_INTERVAL_S)
    finally:
        view.close()


def progressing(report: Report, counted: Counted, pace: Pace) -> Progressing:
    done = report.done_count
    total = None if counted.total_count is None else max(counted.total_count, done)
    return Progressing(
        done_count=done,
        total_count=total,
        failed_count=report.outcomes[Outcome.FAILED] + report.outcomes[Outcome.UNKNOWN],
        per_second=pace.per_second,
        left_s=None if total is None else pace.left_s(total - done),
    )
