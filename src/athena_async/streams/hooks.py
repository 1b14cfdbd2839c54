"""What a session tells whoever holds it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from athena_async import wire
from athena_async.streams.loss import Loss
from athena_async.streams.ticket import Batch

if TYPE_CHECKING:
    from athena_async.streams.session import Session


@dataclass(frozen=True, slots=True)
class Hooks:
    """News of one session. All are called on the event loop and must not block."""

    opened: Callable[[Session], None]
    received: Callable[[Session, wire.Response], None]
    writing: Callable[[Session, Batch], None]
    """A batch left the outbox: from now on its images may have been sent."""
    wrote: Callable[[Session, int, float], None]
    """Bytes and the seconds that gRPC took to accept them."""
    batch_finished: Callable[[Session, Batch, float], None]
    """All images of a batch are answered."""
    batch_over: Callable[[Session, Batch], None]
    """A batch is in flight no more, answered or given up."""
    lost: Callable[[Session, Loss], None]
    rested: Callable[[Session], None]
    """The stream ended in peace, with nothing on it: it is not read any more."""
    room: Callable[[], None]
    may_rest: Callable[[], bool]
    """Whether an idle stream may be closed."""
