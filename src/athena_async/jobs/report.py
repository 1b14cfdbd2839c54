"""What became of a run: tallies that stay small however many files there were."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from athena_async.errors import ErrorCode
from athena_async.jobs.records import LOCAL_FAULTS, SERVICE_FAULTS, Record, shown_path
from athena_async.results import ClassificationResult, Outcome

MAX_FAILURES_KEPT = 1000

_BUCKETS_PER_E = 50


class Quantiles:
    """Quantiles of positive numbers in bounded memory, within 1 % of the true value.

    Buckets grow by the factor e^(1/50), and the middle of a bucket stands for it.
    """

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._total = 0

    def __repr__(self) -> str:
        return f"Quantiles(count={self._total}, p50={self.at(0.5):.4g}, p95={self.at(0.95):.4g})"

    def add(self, value: float) -> None:
        self._counts[math.floor(math.log(max(value, 1e-9)) * _BUCKETS_PER_E)] += 1
        self._total += 1

    def at(self, fraction: float) -> float:
        """The value that ``fraction`` of all values (0 to 1) do not exceed; NaN without any."""
        rank = max(1, math.ceil(fraction * self._total))
        for bucket in sorted(self._counts):
            rank -= self._counts[bucket]
            if rank <= 0:
                return math.exp((bucket + 0.5) / _BUCKETS_PER_E)
        return math.nan


@dataclass(frozen=True, slots=True)
class Failure:
    """A file that got no classification."""

    path: str
    outcome: Outcome
    code: ErrorCode
    message: str


@dataclass(slots=True)
class Report:
    """The state of a run, brought up to date as it goes.

    Attributes:
        skipped: outcomes of files that earlier runs had settled.
        outcomes, errors: counts of this run's results.
        failures: the first `MAX_FAILURES_KEPT` of those without a classification.
        unreadable: paths that could not be looked at, with the reason; bounded like ``failures``.
        unreadable_count: all of them.
        latency: of classified images, acceptance to result.
        source_bytes: sizes of the files whose images were sent.
        resent_count: images that were sent more than once.
        left_count: images taken up and not settled when the run was stopped.
        stopped: why the run ended before its files did; None when it did not.
        refused_in_a_row: latest answers that are one of `SERVICE_FAULTS`, without a break.
        started_s, ended_s: event loop's clock.
    """

    started_s: float
    ended_s: float | None = None
    skipped: Counter[Outcome] = field(default_factory=Counter)
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    errors: Counter[ErrorCode] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    unreadable_count: int = 0
    latency: Quantiles = field(default_factory=Quantiles)
    source_bytes: int = 0
    resent_count: int = 0
    left_count: int = 0
    stopped: str | None = None
    refused_in_a_row: int = 0

    @property
    def settled_count(self) -> int:
        """Images that got a result in this run."""
        return self.outcomes.total()

    @property
    def done_count(self) -> int:
        """Files that have a result, of this run or an earlier one."""
        return self.outcomes.total() + self.skipped.total()

    def add(self, record: Record) -> None:
        entry, result = record
        self.outcomes[result.outcome] += 1
        self.source_bytes += entry.size_bytes if result.attempts else 0
        self.resent_count += result.attempts > 1
        if result.ok:
            self.latency.add(result.latency_s)
            self.refused_in_a_row = 0
        else:
            self._add_failure(shown_path(entry.path), result)

    def _add_failure(self, path: str, result: ClassificationResult) -> None:
        code, message = ErrorCode.INTERNAL, "no reason was given"
        if result.error is not None:
            code, message = result.error.code, result.error.message
        self.errors[code] += 1
        if code not in LOCAL_FAULTS:
            self.refused_in_a_row = self.refused_in_a_row + 1 if code in SERVICE_FAULTS else 0
        if len(self.failures) < MAX_FAILURES_KEPT:
            self.failures.append(Failure(path, result.outcome, code, message))

    def add_unreadable(self, path: str, error: OSError) -> None:
        self.unreadable_count += 1
        if len(self.unreadable) < MAX_FAILURES_KEPT:
            self.unreadable.append((shown_path(path), error.strerror or type(error).__name__))

    def rate(self, now: float) -> float:
        """Images settled per second over the whole run."""
        elapsed = (now if self.ended_s is None else self.ended_s) - self.started_s
        return self.settled_count / elapsed if elapsed > 0 else 0.0

    @property
    def is_refused(self) -> bool:
        """Whether nothing was classified, and the service or the access to it is why."""
        refused = sum(self.errors[code] for code in SERVICE_FAULTS)
        return not self.outcomes[Outcome.CLASSIFIED] and refused > 0

    @property
    def is_complete(self) -> bool:
        """Whether every file was looked at and has a classification, of this run or an earlier one."""
        skipped_count = self.skipped.total() - self.skipped[Outcome.CLASSIFIED]
        return not (self.errors or skipped_count or self.unreadable_count or self.left_count or self.stopped)
