"""A token endpoint on a real socket, and certificates."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

import pytest
import trustme

SECRET = "canary-client-secret-40c7"
TOKEN = "canary-token-e2f9"


@dataclass
class TokenEndpoint:
    """A small HTTP server. ``answers`` are given in turn as (status, extra headers); then tokens.

    The bodies of its errors repeat what was sent, secret and all, as careless servers do.
    """

    answers: list[tuple[int, str]] = field(default_factory=list)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    delay_s: float = 0.0
    lifetime_s: float = 3600.0
    connections: int = 0
    port: int = 0
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/oauth/token"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
            body = await reader.readexactly(int(headers["content-length"]))
            kind = headers["content-type"]
            form = json.loads(body) if kind == "application/json" else dict(parse_qsl(body.decode()))
            self.requests.append((kind, form))
            await asyncio.sleep(self.delay_s)
            writer.write(self.answer(form))
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client gave up before it had sent all
        finally:
            writer.close()

    def answer(self, form: dict[str, str]) -> bytes:
        number = len(self.requests)
        status, extra = self.answers.pop(0) if self.answers else (200, "")
        granted = {"access_token": f"{TOKEN}-{number}", "expires_in": self.lifetime_s, "token_type": "Bearer"}
        refused = {"error": "invalid_client", "error_description": f"no such pair: {form}", "access_token": TOKEN}
        body = json.dumps(granted if status == 200 else refused).encode()
        return f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n{extra}connection: close\r\n\r\n".encode() + body


@pytest.fixture
async def endpoint() -> AsyncIterator[TokenEndpoint]:
    endpoint = TokenEndpoint()
    server = await asyncio.start_server(endpoint.serve, "127.0.0.1", 0)
    endpoint.port = server.sockets[0].getsockname()[1]
    async with server:
        yield endpoint


@pytest.fixture(scope="session")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def tls_endpoint(ca: trustme.CA) -> AsyncIterator[TokenEndpoint]:
    endpoint = TokenEndpoint(scheme="https")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    server = await asyncio.start_server(endpoint.serve, "127.0.0.1", 0, ssl=context)
    endpoint.port = server.sockets[0].getsockname()[1]
    async with server:
        yield endpoint
