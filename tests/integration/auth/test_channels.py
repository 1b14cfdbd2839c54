"""Credentials on the wire: TLS, mutual TLS, rotation on disk, against a real grpc.aio server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest
import trustme

from athena_async.auth.credentials import KeyFile, Metadata, StaticKey
from athena_async.auth.tls import FileWatch, channel_options, load_channel_credentials
from athena_async.config import TlsConfig
from tests.waits import soon

pytestmark = pytest.mark.anyio

Start = Callable[..., Awaitable[str]]


async def who(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
    """Tells whom the server takes the caller for."""
    names = context.auth_context().get("x509_common_name", [b""])
    metadata = dict(context.invocation_metadata() or ())
    return json.dumps([names[0].decode(), metadata.get("authorization")]).encode()


@pytest.fixture
async def start(ca: trustme.CA) -> AsyncIterator[Start]:
    servers = []

    async def start(name: str, *, mutual: bool = False) -> str:
        server = grpc.aio.server()
        method = {"Who": grpc.unary_unary_rpc_method_handler(who)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", method),))
        leaf = ca.issue_cert(name)
        pair = (leaf.private_key_pem.bytes(), b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
        roots = ca.cert_pem.bytes() if mutual else None
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair], roots, mutual))
        await server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield start
    for server in servers:
        await server.stop(0)


@pytest.fixture
def roots(ca: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(path)
    return path


def write_pair(ca: trustme.CA, folder: Path, name: str) -> None:
    leaf = ca.issue_cert(f"{name}.example", common_name=name)
    (folder / "cert.pem").write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
    leaf.private_key_pem.write_to_path(folder / "key.pem")


@asynccontextmanager
async def connected(endpoint: str, tls: TlsConfig | bool) -> AsyncIterator[grpc.aio.Channel]:
    credentials = await load_channel_credentials(tls)
    async with grpc.aio.secure_channel(endpoint, credentials, options=channel_options(tls)) as channel:
        yield channel


async def ask(channel: grpc.aio.Channel, metadata: Metadata = ()) -> list[str | None]:
    answer: bytes = await channel.unary_unary("/t.T/Who")(b"", metadata=metadata, timeout=10)
    return json.loads(answer)


async def test_given_roots_are_trusted_and_the_token_arrives(start: Start, roots: Path) -> None:
    async with connected(await start("127.0.0.1"), TlsConfig(ca=roots)) as channel:
        assert await ask(channel, await StaticKey("my-key").metadata()) == ["", "Bearer my-key"]


async def test_a_server_of_other_roots_is_refused(start: Start) -> None:
    async with connected(await start("127.0.0.1"), True) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(channel)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_server_by_another_name_needs_the_override(start: Start, roots: Path) -> None:
    endpoint = await start("athena.example")
    async with connected(endpoint, TlsConfig(ca=roots)) as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await ask(channel)
    async with connected(endpoint, TlsConfig(ca=roots, server_name="athena.example")) as channel:
        assert await ask(channel) == ["", None]


async def test_mutual_tls_and_a_rotation_on_disk(start: Start, ca: trustme.CA, roots: Path, tmp_path: Path) -> None:
    write_pair(ca, tmp_path, "first")
    tls = TlsConfig(ca=roots, cert=tmp_path / "cert.pem", key=tmp_path / "key.pem")
    endpoint = await start("127.0.0.1", mutual=True)
    async with connected(endpoint, TlsConfig(ca=roots)) as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await ask(channel)
    watch = FileWatch(tls, poll_s=0.01)
    async with connected(endpoint, tls) as old:
        assert await ask(old) == ["first", None]
        write_pair(ca, tmp_path, "second")
        await soon(watch.wait_changed())
        async with connected(endpoint, tls) as new:
            assert await ask(new) == ["second", None]
            assert await ask(old) == ["first", None], "the old channel serves while it drains"


async def test_a_rotated_key_file_reaches_new_calls(start: Start, roots: Path, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("first\n")
    credentials = KeyFile(path, poll_s=0.01)
    async with connected(await start("127.0.0.1"), TlsConfig(ca=roots)) as channel:
        assert await ask(channel, await credentials.metadata()) == ["", "Bearer first"]
        changed = asyncio.create_task(credentials.wait_changed())
        path.write_text("second\n")
        await soon(changed)
        assert await ask(channel, await credentials.metadata()) == ["", "Bearer second"]
