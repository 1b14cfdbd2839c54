"""What a caller gets back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from athena_async.errors import ClassificationError

PCSAM_LABEL = "UnknownCSAM-PCSAM"
ENTROPY_LABEL = "UnknownCSAM-Entropy"
KNOWN_PREFIX = "KnownCSAM-"
UNKNOWN_PREFIX = "UnknownCSAM-"

_MEASURES = frozenset({PCSAM_LABEL, ENTROPY_LABEL})


class Outcome(StrEnum):
    """How an image ended. Each accepted image ends exactly once."""

    CLASSIFIED = "CLASSIFIED"
    """The service answered with classifications."""
    FAILED = "FAILED"
    """It is known that no classification exists: see the error."""
    UNKNOWN = "UNKNOWN"
    """Sent, but not answered in time: it may have been classified, and billed."""


class Classification(NamedTuple):
    """One label of an answer. ``weight`` is the service's float as it came, mostly 0 to 1."""

    label: str
    weight: float


@dataclass(slots=True)
class ClassificationResult:
    """The one result of one image. Treat it as a value; it is not frozen only because making a frozen
    dataclass takes three times as long, and a million of them are made.

    Attributes:
        correlation_id: the id under which the image was sent.
        index: position of the image in its call, from 0; -1 for foreign results.
        outcome: see `Outcome`.
        classifications: labels in the service's order; empty unless CLASSIFIED.
        error: why there are none; None where CLASSIFIED.
        attempts: how often the image was handed to the network; above 1 each may have been billed.
        latency_s: seconds from acceptance by the client to this result.
    """

    correlation_id: str
    index: int
    outcome: Outcome
    classifications: tuple[Classification, ...] = ()
    error: ClassificationError | None = None
    attempts: int = 0
    latency_s: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the image was classified."""
        return self.outcome is Outcome.CLASSIFIED

    @property
    def scores(self) -> Mapping[str, float]:
        """Label to weight, in the service's order."""
        return dict(self.classifications)

    @property
    def top(self) -> Classification | None:
        """The class of the model with the greatest weight; None without any.

        Entropy, PCSAM and hash matches are no classes of the model and do not take part.
        """
        classes = [c for c in self.classifications if c.label.startswith(UNKNOWN_PREFIX) and c.label not in _MEASURES]
        return max(classes, key=lambda c: c.weight, default=None)

    @property
    def pcsam(self) -> float | None:
        """Weight of ``UnknownCSAM-PCSAM``, or None where the service left it out."""
        return self._weight(PCSAM_LABEL)

    @property
    def entropy(self) -> float | None:
        """Weight of ``UnknownCSAM-Entropy`` (may exceed 1), or None where the service left it out."""
        return self._weight(ENTROPY_LABEL)

    @property
    def known_match(self) -> bool:
        """Whether a hash of the image is on the service's list of known images."""
        return any(c.weight > 0 for c in self.classifications if c.label.startswith(KNOWN_PREFIX))

    def raise_for_error(self) -> ClassificationResult:
        """Returns the result itself where CLASSIFIED.

        Raises:
            ClassificationError: the image's error, in every other case.
        """
        if self.error is not None:
            raise self.error
        return self

    def _weight(self, label: str) -> float | None:
        return next((c.weight for c in self.classifications if c.label == label), None)


@dataclass(frozen=True, slots=True)
class DeploymentInfo:
    """One row of ListDeployments: its id and how many answers wait in it for any client."""

    deployment_id: str
    backlog: int


@dataclass(frozen=True, slots=True)
class DrainReport:
    """What `AthenaClient.aclose` left undone.

    Attributes:
        failed: correlation ids of images that were never sent, or whose every send was answered with an error.
        unknown: correlation ids of images that were sent and not answered: possibly classified and billed.
    """

    failed: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def left_count(self) -> int:
        return len(self.failed) + len(self.unknown)
