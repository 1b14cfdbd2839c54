"""A small HTTP/1.1 server: h11 reads the protocol, asyncio the sockets.

h11 is pure Python without dependencies and has settled; a web framework would bring ten packages for
six routes. Requests are bounded in size and time; connections are kept alive as clients wish.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Self
from urllib.parse import urlsplit

from athena_async.errors import MissingExtraError

try:
    import h11
except ImportError:
    raise MissingExtraError("the emulator", "emulator") from None

_MAX_BODY_BYTES = 1024 * 1024
_READ_BYTES = 64 * 1024
_REQUEST_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Request:
    """One request. ``headers`` have lower-case names; ``path`` is without its query."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    origin: str

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").split(";")[0].strip().lower()


@dataclass(frozen=True, slots=True)
class Response:
    """One response; ``body`` is sent as JSON."""

    status: int
    body: object = field(repr=False)
    headers: tuple[tuple[str, str], ...] = ()


Handler = Callable[[Request], Awaitable[Response]]


class HttpServer:
    """Serves one handler. Invariant: after `aclose` no connection is open.

    Args:
        tls: None serves plain HTTP.
    """

    def __init__(self, handler: Handler, tls: ssl.SSLContext | None = None) -> None:
        self._handler = handler
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.port = 0

    @classmethod
    async def listen(cls, handler: Handler, host: str, port: int, tls: ssl.SSLContext | None = None) -> Self:
        """Listens; port 0 picks one.

        Raises:
            OSError: the port is in use.
        """
        server = cls(handler, tls)
        server._server = await asyncio.start_server(server._connected, host, port, ssl=tls)
        server.port = server._server.sockets[0].getsockname()[1]
        return server

    @property
    def scheme(self) -> str:
        return "http" if self._tls is None else "https"

    async def aclose(self) -> None:
        """Closes every connection, the answered and the unanswered."""
        if self._server is None:
            return
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER)
        try:
            while True:
                async with asyncio.timeout(_REQUEST_TIMEOUT_S):
                    request = await self._receive(connection, reader, writer)
                if request is None:
                    break
                await _send(connection, writer, request.method, await self._handler(request))
                if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                    break
                connection.start_next_cycle()
        except h11.RemoteProtocolError as error:
            await _refuse(connection, writer, error.error_status_hint)
        except (TimeoutError, OSError):
            return  # the client is gone, or does not come to the point
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _receive(
        self, connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Request | None:
        """The next request whole, or None where the client has ended the connection."""
        head: h11.Request | None = None
        body = bytearray()
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                if connection.they_are_waiting_for_100_continue:
                    go_on = h11.InformationalResponse(status_code=100, headers=[])
                    writer.write(connection.send(go_on) or b"")
                connection.receive_data(await reader.read(_READ_BYTES))
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > _MAX_BODY_BYTES:
                    raise h11.RemoteProtocolError("the body is too large", error_status_hint=413)
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                return self._request(head, bytes(body))
            else:
                return None

    def _request(self, head: h11.Request, body: bytes) -> Request:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
        target = urlsplit(head.target.decode("latin-1"))
        host = headers.get("host", f"127.0.0.1:{self.port}")
        return Request(head.method.decode(), target.path, target.query, headers, body, f"{self.scheme}://{host}")


async def _send(connection: h11.Connection, writer: asyncio.StreamWriter, method: str, response: Response) -> None:
    body = json.dumps(response.body).encode() + b"\n"
    headers = [
        ("content-type", "application/json"),
        ("content-length", str(len(body))),
        ("cache-control", "no-store"),
        *response.headers,
    ]
    reason = HTTPStatus(response.status).phrase.encode()
    out = connection.send(h11.Response(status_code=response.status, headers=headers, reason=reason)) or b""
    out += connection.send(h11.Data(data=body if method != "HEAD" else b"")) or b""
    out += connection.send(h11.EndOfMessage()) or b""
    writer.write(out)
    await writer.drain()


async def _refuse(connection: h11.Connection, writer: asyncio.StreamWriter, status: int) -> None:
    if connection.our_state in (h11.IDLE, h11.SEND_RESPONSE):
        with contextlib.suppress(OSError, h11.LocalProtocolError):
            await _send(connection, writer, "", Response(status, {"error": "bad_request"}, (("connection", "close"),)))
