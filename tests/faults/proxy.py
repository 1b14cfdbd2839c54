"""A TCP proxy that does to connections what networks do: resets, holes, half-closes, slices, slowness."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import weakref
from types import TracebackType
from typing import Self


class FaultProxy:
    """Forwards to ``host:port`` until told otherwise. ``buffer_bytes``: what its kernel takes in from a client unread.
    Connections go to the ``targets`` in turn, of which it has one to begin with.

    Invariants: while ``hole`` is set bytes are taken and go nowhere, in both directions; once ``carried_bytes`` exceeds
    ``stall_after_bytes`` no more bytes are taken; every connection has two tasks, which end with it or the proxy.
    """

    def __init__(self, target: str, buffer_bytes: int | None = None) -> None:
        self.targets = [target]
        self._buffer_bytes = buffer_bytes
        self._listener = socket.socket()
        self._accepting: asyncio.Task[None] | None = None
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._finished: weakref.WeakSet[asyncio.StreamWriter] = weakref.WeakSet()
        self.hole = False
        self.refusing = False
        self.slice_bytes = 64 * 1024
        self.pause_s = 0.0
        self.accepted_count = 0
        self.carried_bytes = 0
        self.stall_after_bytes: int | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def is_stalled(self) -> bool:
        """Whether it takes no more bytes, so that those of its peers pile up in their kernels."""
        return self.stall_after_bytes is not None and self.carried_bytes > self.stall_after_bytes

    async def __aenter__(self) -> Self:
        self._listener.bind(("127.0.0.1", 0))
        if self._buffer_bytes is not None:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffer_bytes)
        self._listener.listen()
        self._listener.setblocking(False)
        self._accepting = asyncio.create_task(self._accept_all())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._accepting is not None
        self._listener.shutdown(socket.SHUT_RD)  # ends the accepting between two connections, as cancelling would not
        await self._accepting
        self._listener.close()
        self.reset()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def reset(self) -> int:
        """RST on every connection, as after a crash. Returns how many there were."""
        pairs = list(self._pairs)
        for pair in pairs:
            for writer in pair:
                sock = writer.get_extra_info("socket")
                if sock is not None:
                    with contextlib.suppress(OSError):
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
        self._pairs.clear()
        return len(pairs)

    def half_close(self) -> None:
        """FIN towards the client on every connection; what it sends is still carried."""
        for client, _ in self._pairs:
            if client not in self._finished:
                self._finished.add(client)
                client.write_eof()

    async def _accept_all(self) -> None:
        """Until the listener is shut down. `asyncio.start_server` loses a connection that comes as it is closed."""
        while True:
            try:
                accepted, _ = await asyncio.get_running_loop().sock_accept(self._listener)
            except OSError:
                return
            await self._accept(*await asyncio.open_connection(sock=accepted))

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            writer.transport.abort()
            return
        self.accepted_count += 1
        try:
            host, _, port = self.targets[self.accepted_count % len(self.targets)].rpartition(":")
            up_reader, up_writer = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.transport.abort()
            return
        pair = (writer, up_writer)
        self._pairs.add(pair)
        for source, target in ((reader, up_writer), (up_reader, writer)):
            task = asyncio.create_task(self._carry(source, target))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(lambda _task: self._end(pair))

    def _end(self, pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter]) -> None:
        self._pairs.discard(pair)
        for writer in pair:
            writer.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, OSError):
            while data := await reader.read(self.slice_bytes):
                self.carried_bytes += len(data)
                while self.is_stalled:
                    await asyncio.sleep(0.01)
                if self.pause_s:
                    await asyncio.sleep(self.pause_s)
                if not self.hole and writer not in self._finished:
                    writer.write(data)
                    await writer.drain()
