"""A classification run as people see it: progress, signals, emulator. `classify` and the demo share it."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
from rich.console import Console
from rich.text import Text

from athena_async.cli.exits import SIGNALLED, Exit
from athena_async.cli.progress import Counted, show_progress
from athena_async.client import AthenaClient
from athena_async.config import ClientConfig
from athena_async.errors import ErrorCode, RpcError
from athena_async.jobs.report import Report
from athena_async.jobs.runner import Job, RunLimits, Stop, first_error
from athena_async.jobs.sinks import Sink
from athena_async.jobs.sources import FileSource

_OUT_OF_REACH = frozenset({ErrorCode.UNAVAILABLE, ErrorCode.DEADLINE_EXCEEDED, ErrorCode.UNAUTHENTICATED})


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyRun:
    """What to run.

    Attributes:
        config: of the client; with ``emulator`` its endpoint is replaced.
        emulator: start a local emulator and classify there.
        source: the files.
        open_sink: makes the place where records go, once the service has answered; closed at the end.
        limits: when the run ends early.
        left_out: absolute paths never classified.
        progress: where progress and notices go; None shows none.
    """

    config: ClientConfig
    source: FileSource
    open_sink: Callable[[], Sink]
    emulator: bool = False
    limits: RunLimits = field(default_factory=RunLimits)
    left_out: frozenset[str] = frozenset()
    progress: Console | None = None


@dataclass(slots=True)
class Finished:
    """How a run ended.

    Attributes:
        report: the tallies.
        sent_bytes: what the client wrote to the network.
        total_count: how many files there are; None where the run ended before they were counted.
        signal_number: the signal that stopped the run, if one did.
    """

    report: Report
    sent_bytes: int = 0
    total_count: int | None = None
    signal_number: int | None = None

    @property
    def exit_code(self) -> int:
        if self.signal_number is not None:
            return SIGNALLED + self.signal_number
        if self.report.is_refused or self.report.stopped is not None:
            return Exit.SERVICE
        return Exit.OK if self.report.is_complete else Exit.INCOMPLETE


async def run_classification(run: ClassifyRun) -> Finished:
    """Runs to the end of the files, or until SIGINT or SIGTERM, which drain first; the second one does not.

    The service is asked for its deployments before anything else: where it is out of reach, that is told at once and
    not at the deadline of the first image.

    Raises:
        RpcError: no endpoint is in reach, or the token is refused.
        AthenaError, OSError: what else prevents the run as a whole; see `athena_async.jobs.runner.Job.run`.
    """
    finished = Finished(Report(started_s=anyio.current_time()))
    async with _service(run) as config, AthenaClient(config) as client:
        await _check_reach(client)
        finished.report.started_s = anyio.current_time()
        sink = run.open_sink()
        job = Job(client, run.source, sink, finished.report, limits=run.limits, left_out=run.left_out)
        await _watched(run, job, finished)
        finished.sent_bytes = client.stats().sent_bytes
    return finished


async def _watched(run: ClassifyRun, job: Job, finished: Finished) -> None:
    """The job, with an ear for signals and progress on show."""
    try:
        async with anyio.create_task_group() as watchers:
            watchers.start_soon(_obey_signals, run, job.stop, finished, watchers.cancel_scope)
            if run.progress is not None:
                watchers.start_soon(_show, run, finished)
            await job.run()
            watchers.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise first_error(group) from None


async def _check_reach(client: AthenaClient) -> None:
    try:
        await client.list_deployments()
    except RpcError as error:
        if error.code in _OUT_OF_REACH:
            raise


@asynccontextmanager
async def _service(run: ClassifyRun) -> AsyncIterator[ClientConfig]:
    if not run.emulator:
        yield run.config
        return
    from athena_async.cli.local import local_emulator

    async with local_emulator() as endpoint:
        yield dataclasses.replace(run.config, endpoints=(endpoint,))


async def _obey_signals(run: ClassifyRun, stop: Stop, finished: Finished, everything: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for number in signals:
            if finished.signal_number is not None:
                stop.set(f"{number.name} twice")
                everything.cancel()
                return
            finished.signal_number = number
            stop.set(number.name)
            if run.progress is not None:
                wait = f"waiting up to {run.limits.drain_timeout_s:g} s for images in flight"
                run.progress.print(Text(f"{number.name}: {wait}; a second one ends at once"), soft_wrap=True)


async def _show(run: ClassifyRun, finished: Finished) -> None:
    """Progress, and the walk ahead that counts the files."""
    assert run.progress is not None
    counted = Counted()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(show_progress, finished.report, counted, run.progress)
        seen = await run.source.count(lambda count: None)
        counted.total_count = finished.total_count = seen
