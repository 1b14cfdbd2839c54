"""What a run comes to, for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from rich.console import Console
from rich.table import Table
from rich.text import Text

from athena_async.cli.text import duration, latency, printable, rate, short_path, size
from athena_async.jobs.records import Record, shown_path
from athena_async.jobs.report import Report
from athena_async.results import Outcome

MAX_FAILURES_SHOWN = 20


def summary_rows(report: Report, sent_bytes: int) -> Iterator[tuple[str, str]]:
    """Name and value of each line.

    Args:
        report: of a run that has ended.
        sent_bytes: what the client wrote to the network.
    """
    ended_s = report.started_s if report.ended_s is None else report.ended_s
    yield "images", f"{report.settled_count:,} in {duration(ended_s - report.started_s)}: {rate(report.rate(ended_s))}"
    for outcome in Outcome:
        yield outcome.value, f"{report.outcomes[outcome]:,}"
    if report.skipped:
        outcomes = ", ".join(f"{count:,} {outcome}" for outcome, count in report.skipped.most_common())
        yield "skipped", f"settled in an earlier run: {outcomes}"
    if report.resent_count:
        yield "resent", f"{report.resent_count:,} images were sent more than once"
    if report.outcomes[Outcome.CLASSIFIED]:
        yield "latency", f"p50 {latency(report.latency.at(0.5))}, p95 {latency(report.latency.at(0.95))}"
    if report.source_bytes:
        yield "bytes", saved(report.source_bytes, sent_bytes)


def saved(source_bytes: int, sent_bytes: int) -> str:
    """How the bytes on the network compare with the files that they stand for."""
    compared = f"{size(source_bytes)} of files, {size(sent_bytes)} sent: "
    if sent_bytes <= source_bytes:
        return compared + f"{size(source_bytes - sent_bytes)} saved ({1 - sent_bytes / source_bytes:.0%})"
    return compared + f"{size(sent_bytes - source_bytes)} more (small files grow to 448x448 pixels)"


def failure_lines(report: Report) -> Iterator[str]:
    """Each file without a classification, by name and reason; the first `MAX_FAILURES_SHOWN` of them."""
    for failure in islice(report.failures, MAX_FAILURES_SHOWN):
        label = failure.code if failure.outcome is Outcome.FAILED else f"{failure.outcome} {failure.code}"
        yield f"{short_path(failure.path)}  {label}: {printable(failure.message)}"
    total = report.outcomes[Outcome.FAILED] + report.outcomes[Outcome.UNKNOWN]
    if total > MAX_FAILURES_SHOWN:
        by_code = ", ".join(f"{code} {count:,}" for code, count in report.errors.most_common())
        yield f"... {total:,} in all: {by_code}"
    for path, reason in islice(report.unreadable, MAX_FAILURES_SHOWN):
        yield f"{short_path(path)}  unreadable: {printable(reason)}"
    if report.unreadable_count > MAX_FAILURES_SHOWN:
        yield f"... {report.unreadable_count:,} unreadable in all"


def stopped_line(report: Report, total_count: int | None, *, can_resume: bool) -> str | None:
    """What a run that was stopped left undone; None for one that was not."""
    if report.stopped is None:
        return None
    of = f" of {total_count:,}" if total_count is not None else ""
    left = f"{report.left_count:,} in flight given up" + ("; --resume goes on from here" if can_resume else "")
    return printable(f"stopped ({report.stopped}): {report.done_count:,}{of} files done, {left}")


def print_summary(console: Console, report: Report, sent_bytes: int) -> None:
    console.print(Text("Summary", style="bold"))
    for name, value in summary_rows(report, sent_bytes):
        console.print(Text.assemble((f"  {name:<11}", "cyan"), value), soft_wrap=True)
    lines = list(failure_lines(report))
    if lines:
        console.print(Text("Not classified", style="bold"))
    for line in lines:
        console.print(Text("  " + line), soft_wrap=True)


def print_records(console: Console, records: Sequence[Record]) -> None:
    """A table of single results."""
    table = Table("file", "top", "weight", "PCSAM", "entropy", "known", box=None, pad_edge=False)
    for entry, result in records:
        top = result.top
        table.add_row(
            Text(short_path(shown_path(entry.path)), overflow="fold"),
            Text(printable(top.label) if top else result.outcome.value),
            _number(top.weight if top else None),
            _number(result.pcsam),
            _number(result.entropy),
            "yes" if result.known_match else "no",
        )
    console.print(table)


def _number(weight: float | None) -> str:
    return "-" if weight is None else f"{weight:.3f}"
