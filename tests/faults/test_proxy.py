"""The proxy that the fault tests stand on: it leaves nothing behind, whenever it ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket

import pytest

from tests.faults.proxy import FaultProxy

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("turns", range(6))
async def test_a_connection_that_comes_as_it_ends_is_closed(turns: int) -> None:
    """However many turns of the event loop lie between the two."""
    target = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port = target.sockets[0].getsockname()[1]
    with socket.socket() as caller:
        async with target, FaultProxy(f"127.0.0.1:{port}") as proxy:
            host, _, proxy_port = proxy.address.rpartition(":")
            await asyncio.sleep(0.05)
            caller.connect((host, int(proxy_port)))
            for _ in range(turns):
                await asyncio.sleep(0)
        caller.settimeout(5.0)
        with contextlib.suppress(ConnectionResetError):
            assert caller.recv(1) == b""
    gc.collect()  # a connection that was forgotten complains here
