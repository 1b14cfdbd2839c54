"""Tokens, the token endpoint and TLS, over sockets."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import httpx2
import pytest

from athena_async.emulator import Emulator, ManualClock

pytestmark = pytest.mark.anyio

CLIENTS = {"id": "secret"}
GRANT = {
    "client_id": "id",
    "client_secret": "secret",
    "audience": "crisp-athena-live",
    "grant_type": "client_credentials",
}


CONTINUE = (
    b"POST /oauth/token HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
    b"Expect: 100-continue\r\nConnection: close\r\n\r\n"
)


async def raw_exchange(emulator: Emulator, head: bytes) -> list[bytes]:
    """The status lines that a head, and the body {} once it is asked for, are answered with."""
    host, _, port = str(emulator.oauth_url).removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(head)
    found = [(await reader.readuntil(b"\r\n")).rstrip(b"\r\n")]
    if b" 100 " in found[0]:
        writer.write(b"{}")
        await reader.readuntil(b"\r\n")
        found.append((await reader.readuntil(b"\r\n")).rstrip(b"\r\n"))
    await reader.read()
    writer.close()
    await writer.wait_closed()
    return found


async def ask(stub: Any, lab: SimpleNamespace, metadata: Any) -> grpc.StatusCode:
    call = stub.ClassifySingle(lab.item("one"), metadata=metadata)
    assert "canary" not in (await call.details() or "")
    code: grpc.StatusCode = await call.code()
    return code


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        (("authorization", "Bearer canary"),),
        (("authorization", "Basic key"),),
        (("authorization", "Bearer"),),
        (("authorization", "key"),),
        (("authorization", "Bearer canary.canary.canary"),),
        (("x-api-key", "key"),),
    ],
)
async def test_a_call_without_a_token_that_counts_is_unauthenticated(lab: SimpleNamespace, metadata: Any) -> None:
    async with Emulator(api_keys=("key",), oauth_clients=CLIENTS) as emulator, lab.connect(emulator.address) as stub:
        assert await ask(stub, lab, metadata) is grpc.StatusCode.UNAUTHENTICATED
        assert (await lab.status_of(stub.Classify(metadata=metadata)))[0] is grpc.StatusCode.UNAUTHENTICATED
        assert len(emulator.audit) == 0


async def test_a_token_of_the_endpoint_counts_until_it_expires(lab: SimpleNamespace) -> None:
    clock = ManualClock()
    async with (
        Emulator(oauth_port=0, oauth_clients=CLIENTS, clock=clock, token_lifetime_s=600.0) as emulator,
        lab.connect(emulator.address) as stub,
        httpx2.AsyncClient(trust_env=False) as http,
    ):
        answer = (await http.post(f"{emulator.oauth_url}/oauth/token", json=GRANT)).json()
        assert answer["expires_in"] == 600
        metadata = lab.bearer(answer["access_token"])
        assert await ask(stub, lab, metadata) is grpc.StatusCode.OK
        clock.advance(601.0)
        assert await ask(stub, lab, metadata) is grpc.StatusCode.UNAUTHENTICATED
        form = (await http.post(f"{emulator.oauth_url}/oauth/token", data=GRANT)).json()
        assert await ask(stub, lab, lab.bearer(form["access_token"])) is grpc.StatusCode.OK
        emulator.revoke_tokens()
        assert await ask(stub, lab, lab.bearer(form["access_token"])) is grpc.StatusCode.UNAUTHENTICATED


async def test_tokens_of_another_emulator_or_audience_are_unauthenticated(lab: SimpleNamespace) -> None:
    async with (
        Emulator(oauth_clients=CLIENTS) as other,
        Emulator(oauth_clients=CLIENTS) as emulator,
        lab.connect(emulator.address) as stub,
    ):
        foreign = other.tokens.issue("id", "http://issuer")
        assert await ask(stub, lab, lab.bearer(foreign)) is grpc.StatusCode.UNAUTHENTICATED
        audience = emulator.tokens.issue("id", "http://issuer", audience="other")
        assert await ask(stub, lab, lab.bearer(audience)) is grpc.StatusCode.UNAUTHENTICATED
        expired = emulator.tokens.issue("id", "http://issuer", lifetime_s=-10.0)
        assert await ask(stub, lab, lab.bearer(expired)) is grpc.StatusCode.UNAUTHENTICATED


async def test_the_endpoint_over_a_socket(lab: SimpleNamespace) -> None:
    async with (
        Emulator(oauth_port=0, oauth_clients=CLIENTS) as emulator,
        httpx2.AsyncClient(trust_env=False, base_url=str(emulator.oauth_url)) as http,
    ):
        discovery = (await http.get("/.well-known/openid-configuration")).json()
        assert discovery["issuer"] == emulator.oauth_url
        basic = {"grant_type": "client_credentials", "audience": GRANT["audience"]}
        assert (await http.post(discovery["token_endpoint"], data=basic, auth=("id", "secret"))).status_code == 200
        assert (await http.post(discovery["token_endpoint"], data=basic, auth=("id", "wrong"))).status_code == 401
        assert (await http.get(discovery["jwks_uri"])).json()["keys"][0]["kty"] == "RSA"
        assert (await http.head("/.well-known/openid-configuration")).content == b""
        assert (await http.get("/nothing")).status_code == 404
        assert await raw_exchange(emulator, CONTINUE) == [b"HTTP/1.1 100 ", b"HTTP/1.1 401 Unauthorized"]
        assert await raw_exchange(emulator, b"nonsense\r\n\r\n") == [b"HTTP/1.1 400 Bad Request"]
        assert (await http.post("/oauth/token", content=b"x" * 2_000_000)).status_code == 413


async def test_everything_over_tls(lab: SimpleNamespace, tmp_path: Path) -> None:
    async with Emulator(tls_dir=tmp_path, oauth_port=0, oauth_tls=True, oauth_clients=CLIENTS) as emulator:
        assert str(emulator.oauth_url).startswith("https://")
        assert emulator.ca is not None
        trust = ssl.create_default_context(cafile=str(emulator.ca))
        async with httpx2.AsyncClient(trust_env=False, verify=trust) as http:
            for host in ("127.0.0.1", "localhost"):
                url = str(emulator.oauth_url).replace("127.0.0.1", host)
                discovery = (await http.get(f"{url}/.well-known/openid-configuration")).json()
                assert discovery["issuer"] == url
                token = (await http.post(discovery["token_endpoint"], json=GRANT)).json()["access_token"]
                credentials = grpc.ssl_channel_credentials(emulator.ca.read_bytes())
                address = emulator.address.replace("127.0.0.1", host)
                async with lab.connect(address, credentials=credentials) as stub:
                    assert await ask(stub, lab, lab.bearer(token)) is grpc.StatusCode.OK


async def test_plaintext_and_strangers_are_refused_by_tls(lab: SimpleNamespace, tmp_path: Path) -> None:
    async with Emulator(tls_dir=tmp_path) as emulator:
        async with lab.connect(emulator.address) as stub:
            assert await ask(stub, lab, None) is grpc.StatusCode.UNAVAILABLE
        async with Emulator(tls_dir=tmp_path / "other") as other:
            assert other.ca is not None
            credentials = grpc.ssl_channel_credentials(other.ca.read_bytes())
            async with lab.connect(emulator.address, credentials=credentials) as stub:
                assert await ask(stub, lab, None) is grpc.StatusCode.UNAVAILABLE


async def test_mutual_tls_asks_for_a_certificate(lab: SimpleNamespace, tmp_path: Path) -> None:
    async with Emulator(tls_dir=tmp_path, mtls=True) as emulator:
        assert emulator.ca is not None
        ca = emulator.ca.read_bytes()
        pair = (tmp_path / "client.key").read_bytes(), (tmp_path / "client.pem").read_bytes()
        for credentials, expected in (
            (grpc.ssl_channel_credentials(ca), grpc.StatusCode.UNAVAILABLE),
            (grpc.ssl_channel_credentials(ca, *pair), grpc.StatusCode.OK),
        ):
            async with lab.connect(emulator.address, credentials=credentials) as stub:
                assert await ask(stub, lab, None) is expected


async def test_health_and_reflection_ask_for_no_token(lab: SimpleNamespace) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    async with Emulator(api_keys=("key",)) as emulator, grpc.aio.insecure_channel(emulator.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "athena.ClassifierService"):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
