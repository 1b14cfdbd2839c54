"""``athena-async classify``."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from athena_async.cli.exits import SIGNALLED
from athena_async.cli.local import LOCAL
from athena_async.cli.options import Connection, with_connection
from athena_async.cli.run import ClassifyRun, Finished, run_classification
from athena_async.cli.summary import print_records, print_summary, stopped_line
from athena_async.jobs.ledger import RetryChoice
from athena_async.jobs.records import Record
from athena_async.jobs.runner import RunLimits
from athena_async.jobs.sinks import NoSink, Sink, StreamSink, open_output, own_files
from athena_async.jobs.sources import file_source

_STANDARD_OUTPUT = "-"
_MAX_RECORDS_SHOWN = 20


class FewRecords(NoSink):
    """Keeps the records of a small run, to be shown where no output was asked for; none of a large one."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.is_small = True

    def write(self, records: Sequence[Record]) -> None:
        self.is_small = self.is_small and len(self.records) + len(records) <= _MAX_RECORDS_SHOWN
        self.records = [*self.records, *records] if self.is_small else []


Paths = Annotated[
    list[Path], typer.Argument(metavar="PATH", help="Image files, and directories of them.", show_default=False)
]
Recursive = Annotated[bool, typer.Option("--recursive", "-r", help="Descend into directories.")]
Match = Annotated[
    list[str],
    typer.Option(
        "--match",
        metavar="PATTERN",
        help="Take only files of directories whose name fits, such as '*.jpg'; repeatable. Without it every "
        "file is taken: a format is told by content, not by name.",
        show_default=False,
    ),
]
Output = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Keep results: FILE.jsonl (one line per image), FILE.parquet, or - for lines on standard output. "
        "A ledger beside the file knows what is settled.",
        show_default=False,
    ),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with the output's earlier run, whatever ended it; or begin a first.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output's earlier run.")]
RetryFailed = Annotated[
    bool,
    typer.Option(
        "--retry-failed/--keep-failed", help="With --resume: again what failed for no fault of the file itself."
    ),
]
RetryUnknown = Annotated[
    bool,
    typer.Option(
        "--retry-unknown/--keep-unknown",
        help="With --resume: again what was sent and never answered; it may be billed twice.",
    ),
]
Emulate = Annotated[
    bool, typer.Option("--emulator", help="Classify with a local emulator started for this run, not the service.")
]
DrainTimeout = Annotated[
    float,
    typer.Option(
        "--drain-timeout",
        metavar="SECONDS",
        min=0,
        help="On Ctrl-C or SIGTERM: wait so long for images in flight. A second signal ends at once.",
    ),
]
StopAfter = Annotated[
    int,
    typer.Option(
        "--stop-after",
        metavar="COUNT",
        min=0,
        help="Stop when so many images in a row fail because of the service or the access to it; 0 never.",
    ),
]
ShowProgress = Annotated[bool, typer.Option("--progress/--no-progress", help="Show progress on stderr.")]


@with_connection
def classify(
    *,
    paths: Paths,
    connection: Connection,
    recursive: Recursive = False,
    match: Match = [],  # noqa: B006 - never changed
    output: Output = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    retry_failed: RetryFailed = True,
    retry_unknown: RetryUnknown = False,
    emulator: Emulate = False,
    drain_timeout_s: DrainTimeout = 30.0,
    refusals: StopAfter = 100,
    progress: ShowProgress = True,
) -> None:
    """Classify images: files, or directories of any size.

    Each image ends once: CLASSIFIED, FAILED (known to have no classification) or UNKNOWN (sent, not answered
    in time). One broken image fails alone. The exit code is 0 when all were classified and 1 when some were not.

    Examples:

        athena-async classify photo.jpg

        athena-async classify photos/ --recursive --output results.jsonl --resume
    """
    from athena_async import run as run_loop

    source = file_source(paths, recursive=recursive, patterns=match)
    config = connection.client_config(**LOCAL) if emulator else connection.client_config()
    choice = RetryChoice(failed=retry_failed, unknown=retry_unknown)
    few = FewRecords()
    _check_output(output, resume=resume, overwrite=overwrite)
    run = ClassifyRun(
        config=config,
        emulator=emulator,
        source=source,
        open_sink=lambda: _open_sink(output, few, resume=resume, overwrite=overwrite, choice=choice),
        limits=RunLimits(refusals=refusals, drain_timeout_s=drain_timeout_s),
        left_out=own_files(os.path.abspath(output)) if output else frozenset(),
        progress=Console(stderr=True) if progress else None,
    )
    try:
        finished = run_loop(run_classification(run))
    except BrokenPipeError:  # whoever read our lines has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(SIGNALLED + signal.SIGPIPE) from None
    _tell(finished, few.records, output)
    raise typer.Exit(finished.exit_code)


def _check_output(output: str | None, *, resume: bool, overwrite: bool) -> None:
    if resume and overwrite:
        raise typer.BadParameter("--resume and --overwrite exclude each other")
    if output in (None, _STANDARD_OUTPUT) and (resume or overwrite):
        raise typer.BadParameter(f"{'--resume' if resume else '--overwrite'} needs --output with a file")


def _open_sink(output: str | None, few: FewRecords, *, resume: bool, overwrite: bool, choice: RetryChoice) -> Sink:
    if output is None:
        return few
    if output == _STANDARD_OUTPUT:
        return StreamSink(sys.stdout.buffer)
    return open_output(output, resume=resume, overwrite=overwrite, choice=choice)


def _tell(finished: Finished, records: Sequence[Record], output: str | None) -> None:
    """Results and summary; on stderr where lines stand on standard output."""
    console = Console(stderr=output == _STANDARD_OUTPUT)
    if records:
        print_records(console, records)
    print_summary(console, finished.report, finished.sent_bytes)
    stopped = stopped_line(finished.report, finished.total_count, can_resume=output not in (None, _STANDARD_OUTPUT))
    if stopped is not None:
        sys.stderr.write(f"athena-async: {stopped}\n")
