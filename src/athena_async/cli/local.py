"""A local emulator for the length of one command."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from athena_async.errors import MissingExtraError

LOCAL: Mapping[str, object] = {
    "endpoints": ("127.0.0.1:1",),
    "tls": False,
    "api_key": None,
    "api_key_file": None,
    "oauth": None,
}
"""Overrides of `ClientConfig` for it: no credentials of the real service, and an endpoint that is still to be known."""


@asynccontextmanager
async def local_emulator() -> AsyncIterator[str]:
    """Runs an emulator on a free loopback port, and yields its ``host:port``.

    Raises:
        MissingExtraError: the ``emulator`` extra is not installed.
    """
    try:
        import numpy  # noqa: F401 - the emulator needs it only once an image comes

        from athena_async.emulator import Emulator
    except ModuleNotFoundError:
        raise MissingExtraError("the emulator", "emulator") from None
    async with Emulator() as emulator:
        yield emulator.address
