"""Who is guilty of a global error: it fails a whole request, and names neither request nor image.

Nothing new is sent while answers still come for the innocent. What is then unanswered is suspect and is settled
one image at a time, over a call whose answer can only be its own. A plain value.
"""

from __future__ import annotations

from collections.abc import Iterable

from athena_async.streams.ticket import Batch, Ticket
from athena_async.wire import ServiceError


class Inquest:
    """The images in flight when a global error came.

    Invariants: a suspect leaves by its answer, whatever it says, or when it is known that the service never read
    it; with as many errors as requests without any answer, the other requests are innocent.
    """

    def __init__(self, error: ServiceError, in_flight: Iterable[Batch], orphans: Iterable[Ticket], now: float) -> None:
        self.error = error
        self.progress_s = now
        self._error_count = 1
        self._batches = list(in_flight)
        self._orphans = list(orphans)
        # An image that left its batch before was answered, even where it waits to be sent again.
        self._cleared = {ticket for batch in self._batches for ticket in batch.tickets if ticket.batch is not batch}

    def __repr__(self) -> str:
        return f"Inquest({self.error.code}, {self._error_count} errors, {len(self.suspects())} suspects)"

    def another(self, error: ServiceError, now: float) -> None:
        """One more global error came meanwhile."""
        self.error = error
        self._error_count += 1
        self.progress_s = now

    def answered(self, tickets: Iterable[Ticket], now: float) -> None:
        """These images were answered: the rest may be yet."""
        self._cleared.update(tickets)
        self.progress_s = now

    def unread(self, tickets: Iterable[Ticket]) -> None:
        """The service never read these: they are sent again as they are."""
        self._cleared.update(tickets)

    def is_over(self, now: float, quiet_s: float) -> bool:
        """Whether no more answers are to be expected for the innocent."""
        return now - self.progress_s >= quiet_s or not self.suspects() or self._is_certain()

    def suspects(self) -> list[Ticket]:
        """Images that may belong to a failed request. Answered requests are cleared, when the count says so."""
        orphans = self._open(self._orphans)
        silent = self._silent()
        certain = len(silent) <= self._error_count and not orphans
        return [
            ticket for batch in (silent if certain else self._batches) for ticket in self._open(batch.tickets)
        ] + orphans

    def _open(self, tickets: Iterable[Ticket]) -> list[Ticket]:
        return [ticket for ticket in tickets if not ticket.settled and ticket not in self._cleared]

    def _silent(self) -> list[Batch]:
        """Requests of which no image is answered: a failed one answers none."""
        return [batch for batch in self._batches if self._cleared.isdisjoint(batch.tickets)]

    def _is_certain(self) -> bool:
        """As many silent requests as errors, and nothing else open."""
        silent = self._silent()
        others_open = any(self._open(batch.tickets) for batch in self._batches if batch not in silent)
        return len(silent) <= self._error_count and not others_open and not self._open(self._orphans)
