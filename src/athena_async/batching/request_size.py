"""How many bytes a request may have: what the server takes, and what the link is known to carry in time."""

from __future__ import annotations

from typing import Final

from athena_async.config import MiB

_FIRST_BYTES: Final = MiB
"""One raw frame. At 1 Mbit/s it takes 5 s."""
_LEAST_BYTES: Final = MiB // 16


class RequestSize:
    """A bound that is told how requests fared.

    Slow start, as TCP does it with segments (RFC 5681): nobody knows a new link, and on one of 2 Mbit/s a request of
    4 MiB takes 17 s, in which no ping comes through. So the bound begins small and doubles with each answer to a
    request that used it, as long as one of twice the size would be answered within ``patience_s``: a request that
    takes longer on the link can look like a dead peer, from which nothing is read.

    Invariants: 1 <= ``size_bytes`` <= ``limit_bytes``; below each size that the server refused, for good.
    """

    def __init__(self, limit_bytes: int, patience_s: float, *, slow_start: bool) -> None:
        self._accepted_bytes = limit_bytes
        self._window_bytes = _FIRST_BYTES if slow_start else limit_bytes
        self._patience_s = patience_s
        self._slow_start = slow_start
        self._largest_answered_bytes = 0

    def __repr__(self) -> str:
        return f"RequestSize({self.size_bytes} bytes, the server takes {self._accepted_bytes})"

    @property
    def size_bytes(self) -> int:
        """The bound as it is now. A single image may be larger."""
        return min(self._accepted_bytes, self._window_bytes)

    def answered(self, size_bytes: int, latency_s: float, *, limited: bool = False) -> None:
        """A request was answered in full after ``latency_s``. ``limited``: the application had no more to send, so
        that the bound was not what held it back, and stays."""
        self._largest_answered_bytes = max(self._largest_answered_bytes, size_bytes)
        used = 2 * size_bytes >= self._window_bytes and not limited
        if used and 2 * latency_s <= self._patience_s and self._window_bytes < self._accepted_bytes:
            self._window_bytes *= 2

    def timed_out(self) -> None:
        """A request was given up, or its connection was, since nothing came for long."""
        if self._slow_start:
            self._window_bytes = max(_LEAST_BYTES, self.size_bytes // 2)

    def refused(self, size_bytes: int, limit_bytes: int | None) -> bool:
        """A request of ``size_bytes`` was refused as too large; returns whether that lowers the bound.

        ``limit_bytes`` is what the server said it takes, None where it did not. The next bound is then the
        largest size that was answered, or half of what was refused.
        """
        bound = limit_bytes if limit_bytes is not None else max(self._largest_answered_bytes, size_bytes // 2)
        if bound >= size_bytes:  # the server counts otherwise than we do, or lowered its limit
            bound = size_bytes // 2
        if bound >= self._accepted_bytes:
            return False
        self._accepted_bytes = max(1, bound)
        return True
