"""What happened, as frozen values. Components emit them; only the adapters in `observability` act on them.

No event holds image bytes, tokens or plain image hashes. Everything is told per batch, not per image.
Pass observers to the client: ``AthenaClient(config, observers=[...])``; an observer is called on the
event loop, must not block, and what it raises is reported to the loop's exception handler.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from athena_async.errors import ErrorCode
from athena_async.results import Outcome


@dataclass(frozen=True, slots=True)
class Event:
    """Root of all events. ``at_s`` is the event loop's clock."""

    at_s: float


@dataclass(frozen=True, slots=True)
class Opened(Event):
    """The client is open. ``own`` tells that it made the deployment id itself, a new one for each run."""

    deployment_id: str
    affiliate: str
    own: bool


@dataclass(frozen=True, slots=True)
class ImagesAccepted(Event):
    count: int


@dataclass(frozen=True, slots=True)
class ImagesPrepared(Event):
    """A chunk left preprocessing: ``source_bytes`` of original files became ``frame_bytes`` to send."""

    count: int
    failed: int
    source_bytes: int
    frame_bytes: int
    duration_s: float


@dataclass(frozen=True, slots=True)
class BatchSent(Event):
    """A channel's writer took a batch: it is on its way. ``resent`` of its images had been sent before."""

    endpoint: str
    channel_id: int
    images: int
    size_bytes: int
    resent: int


@dataclass(frozen=True, slots=True)
class BatchAnswered(Event):
    """The last image of a batch was answered. ``correlation_id`` is that of its first image, for tracing."""

    endpoint: str
    channel_id: int
    images: int
    size_bytes: int
    latency_s: float
    correlation_id: str


@dataclass(frozen=True, slots=True)
class ImagesSettled(Event):
    """Images got their one result. ``latency_s`` is that of the slowest, ``errors`` counts by code."""

    outcomes: Mapping[Outcome, int]
    errors: Mapping[ErrorCode, int]
    latency_s: float


@dataclass(frozen=True, slots=True)
class StreamOpened(Event):
    endpoint: str
    channel_id: int


@dataclass(frozen=True, slots=True)
class StreamClosed(Event):
    """A stream ended; ``possibly_sent`` images now wait for recovery."""

    endpoint: str
    channel_id: int
    code: str
    message: str
    possibly_sent: int


@dataclass(frozen=True, slots=True)
class EndpointEjected(Event):
    endpoint: str
    reason: str
    ejected_s: float


@dataclass(frozen=True, slots=True)
class EndpointReturned(Event):
    endpoint: str


@dataclass(frozen=True, slots=True)
class PoolResized(Event):
    endpoint: str
    channels: int
    reason: str


@dataclass(frozen=True, slots=True)
class ImagesRecovered(Event):
    """Images of a lost stream were answered after all (``answered``) or are sent again (``resent``)."""

    answered: int
    resent: int


@dataclass(frozen=True, slots=True)
class GlobalErrorReceived(Event):
    """A whole request failed, which the service does not name; ``suspects`` are settled one at a time."""

    endpoint: str
    code: ErrorCode
    message: str
    suspects: int


@dataclass(frozen=True, slots=True)
class StrayAnswers(Event):
    """Answers that settle nothing here: late or duplicate ones, or those of other clients."""

    late: int
    foreign: int
    foreign_dropped: int


@dataclass(frozen=True, slots=True)
class CredentialsRefreshed(Event):
    reason: str


@dataclass(frozen=True, slots=True)
class EncodingChanged(Event):
    """The ``auto`` encoding chose another one."""

    encoding: str
    reason: str


@dataclass(frozen=True, slots=True)
class Drained(Event):
    """`AthenaClient.aclose` ended; ``left`` images were unsettled at its deadline."""

    left: int


Observer = Callable[[Event], None]
