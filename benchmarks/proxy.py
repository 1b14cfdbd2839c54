"""A slow link: a TCP proxy with bounded bandwidth and added latency, in a process of its own.

``python -m benchmarks.proxy --to 127.0.0.1:50051 --mbit-per-s 50 --latency-ms 20``; the bandwidth is that of each
direction, shared by all connections. Its socket buffers are small, so that bytes wait in the client, as on a real
slow link.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import socket
from dataclasses import dataclass

from benchmarks import children

CHUNK_BYTES = 16 * 1024
_SOCKET_BUFFER_BYTES = 64 * 1024


@dataclass(slots=True)
class TokenBucket:
    """When bytes may pass, as a value: at most ``bytes_per_s`` in the long run, ``burst_bytes`` at once.

    ``free_at_s`` is when all that was let pass so far has gone through.
    """

    bytes_per_s: float
    burst_bytes: int = 4 * CHUNK_BYTES
    free_at_s: float = float("-inf")

    def take(self, size_bytes: int, now_s: float) -> float:
        """Books so many bytes; returns for how many seconds their sender must wait."""
        burst_s = self.burst_bytes / self.bytes_per_s
        self.free_at_s = max(self.free_at_s, now_s - burst_s) + size_bytes / self.bytes_per_s
        return max(0.0, self.free_at_s - now_s)


class _Link:
    """One direction of all connections."""

    def __init__(self, bytes_per_s: float, latency_s: float) -> None:
        self._bucket = TokenBucket(bytes_per_s) if bytes_per_s else None
        self._latency_s = latency_s

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carries one connection's bytes until it ends."""
        loop = asyncio.get_running_loop()
        while data := await reader.read(CHUNK_BYTES if self._bucket else 16 * CHUNK_BYTES):
            if self._bucket is not None:
                await asyncio.sleep(self._bucket.take(len(data), loop.time()))
            if self._latency_s:
                loop.call_later(self._latency_s, writer.write, data)
            else:
                writer.write(data)
                await writer.drain()
        loop.call_later(self._latency_s, writer.close)


async def _serve(to: tuple[str, int], bytes_per_s: float, latency_s: float, announce: children.Announce) -> None:
    up, down = _Link(bytes_per_s, latency_s), _Link(bytes_per_s, latency_s)

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        outer = socket.socket()
        outer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_BYTES)
        outer.setblocking(False)
        await asyncio.get_running_loop().sock_connect(outer, to)
        far_reader, far_writer = await asyncio.open_connection(sock=outer, limit=_SOCKET_BUFFER_BYTES)
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):  # cancelled as the process ends
            await asyncio.gather(up.carry(reader, far_writer), down.carry(far_reader, writer))

    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BUFFER_BYTES)
    listener.bind(("127.0.0.1", 0))
    server = await asyncio.start_server(connect, sock=listener, limit=_SOCKET_BUFFER_BYTES)
    async with server:
        announce(listener.getsockname()[1])
        await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(
        description="A TCP proxy on loopback with the bandwidth and latency of a slow link."
    )
    parser.add_argument("--to", required=True, help="host:port that it leads to")
    parser.add_argument("--mbit-per-s", type=float, default=0.0, help="bandwidth of each direction; 0 has no limit")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="added to each direction")
    given = parser.parse_args()
    host, _, port = given.to.rpartition(":")
    children.run(functools.partial(_serve, (host, int(port)), given.mbit_per_s * 125_000, given.latency_ms / 1000))


if __name__ == "__main__":
    main()
