"""How much the client holds at once: images and bytes; producers wait when either is reached."""

from __future__ import annotations

import asyncio
import math
from collections import deque

from athena_async.errors import ClientClosedError


class InFlightLimit:
    """A semaphore of two dimensions, first come first served.

    Invariants: ``images <= max_images`` and ``size_bytes <= max_bytes``, but for a single image larger than
    ``max_bytes``, which is let in alone; nobody overtakes a waiter; every grant is released once.
    """

    def __init__(self, max_images: int, max_bytes: int) -> None:
        self.max_images = max_images
        self.max_bytes = max_bytes
        self.images = 0
        self.size_bytes = 0
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._closed = False

    def __repr__(self) -> str:
        return (
            f"InFlightLimit({self.images}/{self.max_images} images, {self.size_bytes}/{self.max_bytes} bytes, "
            f"{len(self._waiters)} waiting)"
        )

    def try_acquire(self, size_bytes: int) -> bool:
        """Takes a place for one image of this size, if there is one and nobody waits for it."""
        if self._waiters or self._closed or not self._fits(size_bytes):
            return False
        self.images += 1
        self.size_bytes += size_bytes
        return True

    async def acquire(self, size_bytes: int) -> None:
        """Waits for a place. Cancelling gives up the wait, and the place if it was just granted.

        Raises:
            ClientClosedError: the client was closed meanwhile.
        """
        if self.try_acquire(size_bytes):
            return
        self._check_open()
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter = (size_bytes, granted)
        self._waiters.append(waiter)
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                self.release(1, size_bytes)
            elif waiter in self._waiters:
                self._waiters.remove(waiter)
                self._grant()
            raise

    def adjust(self, difference_bytes: int) -> None:
        """An image turned out larger or smaller than thought."""
        self.size_bytes += difference_bytes
        if difference_bytes < 0:
            self._grant()

    def release(self, images: int, size_bytes: int) -> None:
        """Gives places back."""
        self.images -= images
        self.size_bytes -= size_bytes
        self._grant()

    def close(self) -> None:
        """Whoever waits, or will, gets ClientClosedError."""
        self._closed = True
        while self._waiters:
            _, granted = self._waiters.popleft()
            if not granted.done():
                granted.set_exception(ClientClosedError("the client was closed"))

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosedError("the client was closed")

    def _fits(self, size_bytes: int) -> bool:
        if not self.images:
            return True
        return self.images < self.max_images and self.size_bytes + size_bytes <= self.max_bytes

    def _grant(self) -> None:
        while self._waiters and self._fits(self._waiters[0][0]):
            size_bytes, granted = self._waiters.popleft()
            if granted.done():
                continue
            self.images += 1
            self.size_bytes += size_bytes
            granted.set_result(None)


class ImageLimit:
    """The largest image that the service takes, as far as it refused any: one for all its endpoints, which are alike.

    For good: an image above it would cost the stream that it is sent on, and whoever raises the server's limit can open
    the client anew.
    """

    def __init__(self) -> None:
        self._size_bytes = math.inf

    def __repr__(self) -> str:
        return f"ImageLimit({self._size_bytes} bytes)"

    def takes(self, size_bytes: int) -> bool:
        """Whether an image of this size may be sent, as far as is known."""
        return size_bytes <= self._size_bytes

    def refused(self, size_bytes: int, limit_bytes: int | None) -> None:
        """A request of ``size_bytes`` was refused: nothing as large, nor larger than ``limit_bytes``, where the server
        said what it takes."""
        self._size_bytes = min(self._size_bytes, size_bytes - 1, math.inf if limit_bytes is None else limit_bytes)
