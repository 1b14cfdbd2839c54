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


@dataclass(frozen=True, slots=True)
class LostBatch:
    """The open images of one request. ``unsent``: the service cannot have read it."""

    tickets: list[Ticket]
    request_bytes: int
    unsent: bool


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
