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

    Invariants: a suspect leaves by its answer; with as many errors as requests without any answer, the
    other requests are innocent.
    """

    def __init__(self, error: ServiceError, in_flight: Iterable[Batch], orphans: Iterable[Ticket], now: float) -> None:
        self.error = error
        self.progress_s = now
        self._error_count = 1
        self._batches = list(in_flight)
        self._orphans = list(orphans)

    def __repr__(self) -> str:
        return f"Inquest({self.error.code}, {self._error_count} errors, {len(self.suspects())} suspects)"

    def another(self, error: ServiceError, now: float) -> None:
        """One more global error came meanwhile."""
        self.error = error
        self._error_count += 1
        self.progress_s = now

    def progress(self, now: float) -> None:
        """Some image was answered: the rest may be yet."""
        self.progress_s = now

    def is_over(self, now: float, quiet_s: float) -> bool:
        """Whether no more answers are to be expected for the innocent."""
        return now - self.progress_s >= quiet_s or not self.suspects() or self._is_certain()

    def suspects(self) -> list[Ticket]:
        """Images that may belong to a failed request. Answered requests are cleared, when the count says so."""
        orphans = [ticket for ticket in self._orphans if not ticket.settled]
        silent = self._silent()
        if len(silent) <= self._error_count and not orphans:
            return [ticket for batch in silent for ticket in batch.tickets if not ticket.settled]
        unsettled = [t for batch in self._batches for t in batch.tickets if not t.settled]
        return list(dict.fromkeys(unsettled + orphans))

    def _silent(self) -> list[Batch]:
        """Requests of which no image is answered: a failed one answers none."""
        return [batch for batch in self._batches if not any(ticket.settled for ticket in batch.tickets)]

    def _is_certain(self) -> bool:
        """As many silent requests as errors, and nothing else open."""
        silent = self._silent()
        others_open = any(
            not ticket.settled for batch in self._batches if batch not in silent for ticket in batch.tickets
        )
        return len(silent) <= self._error_count and not others_open and not any(not t.settled for t in self._orphans)
