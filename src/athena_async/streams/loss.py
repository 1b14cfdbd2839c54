"""What is known of the images on a stream that ended."""

from __future__ import annotations

from dataclasses import dataclass

from athena_async.channels.channel import CallFailed
from athena_async.errors import ErrorCode
from athena_async.streams.ticket import Ticket

REFUSALS = frozenset(
    {
        ErrorCode.UNAUTHENTICATED,
        ErrorCode.PERMISSION_DENIED,
        ErrorCode.UNIMPLEMENTED,
        ErrorCode.NOT_FOUND,
        ErrorCode.INVALID_ARGUMENT,
    }
)
"""Codes with which an endpoint turns a call away: trying again alone will not help."""

NOT_THE_ENDPOINTS_FAULT = frozenset(
    {
        ErrorCode.UNAUTHENTICATED,
        ErrorCode.PERMISSION_DENIED,
        ErrorCode.INVALID_ARGUMENT,
        ErrorCode.RESOURCE_EXHAUSTED,
        ErrorCode.CLOSED,
    }
)
"""Codes that say nothing of an endpoint's health: the fault is the request's, the caller's, or ours."""


@dataclass(frozen=True, slots=True)
class LostBatch:
    """The open images of one request. ``unsent``: the service cannot have read it. ``was_read``: it has."""

    tickets: list[Ticket]
    request_bytes: int
    unsent: bool
    was_read: bool = False


@dataclass(frozen=True, slots=True)
class Loss:
    """A stream that ended, and what was on it.

    Attributes:
        batches: requests with open images, oldest first.
        failure: why.
        refused: the endpoint turned the call away for good; trying again alone will not help.
        silent_s: for how long it had owed answers and brought none.
        was_open: the service may have written answers to it, whichever stream their requests came on.
    """

    batches: list[LostBatch]
    failure: CallFailed
    refused: bool
    silent_s: float = 0.0
    was_open: bool = False

    @property
    def refused_size(self) -> tuple[int, int | None] | None:
        """Bytes of a request that the server refused as too large, and what it allows where it said so.

        Where it did not name the request's size either, the largest that it did not answer is too large if any is.
        """
        refused = self.failure.refused_size
        if refused is None:
            return None
        sizes = [lost.request_bytes for lost in self.batches if not lost.unsent and not lost.was_read]
        sent_bytes = max(sizes, default=None) if refused.sent_bytes is None else refused.sent_bytes
        return None if sent_bytes is None else (sent_bytes, refused.allowed_bytes)
