"""The life of a stream, in one table. Nothing else decides what follows on what.

| state | meaning |
| --- | --- |
| IDLE | no call; one is opened on demand |
| CONNECTING | a call is being opened |
| OPEN | batches may be written |
| DRAINING | no new batches; answers are still read |
| BACKOFF | the last call failed; waiting before the next |
| CLOSED | over for good |
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    IDLE = "IDLE"
    CONNECTING = "CONNECTING"
    OPEN = "OPEN"
    DRAINING = "DRAINING"
    BACKOFF = "BACKOFF"
    CLOSED = "CLOSED"


class Input(StrEnum):
    DEMAND = "DEMAND"
    """Images wait for a stream."""
    CONNECTED = "CONNECTED"
    LOST = "LOST"
    """The call failed, was refused, or the server ended it with images open."""
    RESTED = "RESTED"
    """The call ended without images: idle timeout, or the server's half-close."""
    WAITED = "WAITED"
    """The backoff is over."""
    DRAIN = "DRAIN"
    """Finish what is in flight, then end: renewal, shrinking, shutdown."""
    DRAINED = "DRAINED"
    CLOSE = "CLOSE"
    """End at once."""


TABLE: dict[tuple[State, Input], State] = {
    (State.IDLE, Input.DEMAND): State.CONNECTING,
    (State.IDLE, Input.DRAIN): State.CLOSED,
    (State.IDLE, Input.CLOSE): State.CLOSED,
    (State.CONNECTING, Input.CONNECTED): State.OPEN,
    (State.CONNECTING, Input.LOST): State.BACKOFF,
    (State.CONNECTING, Input.DRAIN): State.CLOSED,
    (State.CONNECTING, Input.CLOSE): State.CLOSED,
    (State.OPEN, Input.LOST): State.BACKOFF,
    (State.OPEN, Input.RESTED): State.IDLE,
    (State.OPEN, Input.DRAIN): State.DRAINING,
    (State.OPEN, Input.CLOSE): State.CLOSED,
    (State.DRAINING, Input.DRAIN): State.DRAINING,
    (State.DRAINING, Input.DRAINED): State.CLOSED,
    (State.DRAINING, Input.RESTED): State.CLOSED,
    (State.DRAINING, Input.LOST): State.CLOSED,
    (State.DRAINING, Input.CLOSE): State.CLOSED,
    (State.BACKOFF, Input.WAITED): State.IDLE,
    (State.BACKOFF, Input.DEMAND): State.BACKOFF,
    (State.BACKOFF, Input.DRAIN): State.CLOSED,
    (State.BACKOFF, Input.CLOSE): State.CLOSED,
    (State.CLOSED, Input.CLOSE): State.CLOSED,
    (State.CLOSED, Input.DRAIN): State.CLOSED,
    (State.CLOSED, Input.DEMAND): State.CLOSED,
    # Demand changes nothing where a call is there or on its way.
    (State.CONNECTING, Input.DEMAND): State.CONNECTING,
    (State.OPEN, Input.DEMAND): State.OPEN,
    (State.DRAINING, Input.DEMAND): State.DRAINING,
}


class IllegalTransition(RuntimeError):
    """A fault of this library: an input that its state does not know."""


def after(state: State, given: Input) -> State:
    """The state that follows.

    Raises:
        IllegalTransition: the table has no row for this pair.
    """
    try:
        return TABLE[state, given]
    except KeyError:
        raise IllegalTransition(f"{given} in state {state}") from None
