"""Waits that end: each fails, with its reason, when what it waits for does not come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def until(holds: Callable[[], bool], limit_s: float = 10.0, otherwise: str = "it did not come about") -> float:
    """Waits until it holds. Returns the seconds that it took; fails with ``otherwise`` beyond ``limit_s``."""
    began_s = time.monotonic()
    while not holds():
        assert time.monotonic() - began_s <= limit_s, f"{otherwise} within {limit_s:g} s"
        await asyncio.sleep(0.01)
    return time.monotonic() - began_s


async def soon(awaited: Awaitable[T], limit_s: float = 5.0, otherwise: str = "it did not end") -> T:
    """What is awaited returns; fails with ``otherwise`` beyond ``limit_s``."""
    try:
        async with asyncio.timeout(limit_s) as limit:
            return await awaited
    except TimeoutError:
        if not limit.expired():
            raise
        raise AssertionError(f"{otherwise} within {limit_s:g} s") from None
