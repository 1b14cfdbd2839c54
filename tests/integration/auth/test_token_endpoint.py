"""The token source against a real HTTP server."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from athena_async.auth.credentials import credentials_from_config
from athena_async.auth.token_endpoint import PAUSES, TokenEndpointError, request_token
from athena_async.config import ClientConfig, OAuthConfig
from athena_async.errors import CredentialsError

from .conftest import SECRET, TOKEN, TokenEndpoint

pytestmark = pytest.mark.anyio


def oauth(endpoint: TokenEndpoint, **more: object) -> OAuthConfig:
    values = {"client_id": "team", "client_secret": SECRET, "auth_url": endpoint.url} | more
    return OAuthConfig(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("body", "kind"), [("json", "application/json"), ("form", "application/x-www-form-urlencoded")]
)
async def test_the_request_is_what_the_endpoint_expects(endpoint: TokenEndpoint, body: str, kind: str) -> None:
    grant = await request_token(oauth(endpoint, body=body, audience="a&b"))
    form = {"client_id": "team", "client_secret": SECRET, "audience": "a&b", "grant_type": "client_credentials"}
    assert endpoint.requests == [(kind, form)]
    assert (grant.access_token, grant.lifetime_s) == (f"{TOKEN}-1", 3600.0)


async def test_fifty_callers_make_one_request(endpoint: TokenEndpoint) -> None:
    endpoint.delay_s = 0.05
    credentials = credentials_from_config(ClientConfig(oauth=oauth(endpoint)))
    answers = await asyncio.gather(*(credentials.metadata() for _ in range(50)))
    assert answers == [(("authorization", f"Bearer {TOKEN}-1"),)] * 50
    assert (endpoint.connections, len(endpoint.requests)) == (1, 1)
    await credentials.aclose()


async def test_a_refused_token_makes_one_more_request(endpoint: TokenEndpoint) -> None:
    credentials = credentials_from_config(ClientConfig(oauth=oauth(endpoint)))
    credentials.refused(await credentials.metadata())
    answers = await asyncio.gather(*(credentials.metadata() for _ in range(50)))
    assert set(answers) == {(("authorization", f"Bearer {TOKEN}-2"),)}
    assert len(endpoint.requests) == 2
    await credentials.aclose()


async def test_a_passing_trouble_is_overcome(endpoint: TokenEndpoint) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    endpoint.answers = [(503, ""), (429, "retry-after: 2\r\n")]
    grant = await request_token(oauth(endpoint), sleep=sleep)
    assert grant.access_token == f"{TOKEN}-3"
    assert 0.0 <= pauses[0] <= PAUSES.ceiling_s(0)
    assert 2.0 <= pauses[1] <= 2.0 + PAUSES.ceiling_s(1)


async def test_an_endpoint_that_wants_a_longer_pause_gets_it(endpoint: TokenEndpoint) -> None:
    endpoint.answers = [(429, "retry-after: 30\r\n")]
    with pytest.raises(TokenEndpointError, match="answered 429") as caught:
        await request_token(oauth(endpoint))
    assert caught.value.retry_after_s == 30.0
    assert len(endpoint.requests) == 1


async def test_a_wrong_secret_is_asked_once_and_told_clearly(endpoint: TokenEndpoint) -> None:
    endpoint.answers = [(401, "")]
    with pytest.raises(CredentialsError, match=r"127\.0\.0\.1 answered 401 \(invalid_client\): check oauth") as caught:
        await request_token(oauth(endpoint))
    assert not caught.value.retryable
    assert len(endpoint.requests) == 1


async def test_a_silent_endpoint_is_given_up(endpoint: TokenEndpoint) -> None:
    endpoint.delay_s = 5.0
    with pytest.raises(CredentialsError, match=r"no answer within 0\.05 s") as caught:
        await request_token(oauth(endpoint, timeout_s=0.05))
    assert caught.value.retryable
    assert endpoint.connections == 3


async def test_an_unreachable_endpoint_is_named(endpoint: TokenEndpoint, free_tcp_port: int) -> None:
    config = oauth(endpoint, auth_url=f"http://127.0.0.1:{free_tcp_port}/token")
    with pytest.raises(CredentialsError, match=r"endpoint 127\.0\.0\.1 cannot be reached") as caught:
        await request_token(config)
    assert caught.value.retryable


async def test_an_endless_answer_is_cut_off() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                writer.write(bytes(65536))
                await writer.drain()
        except ConnectionError:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/token"
        with pytest.raises(CredentialsError, match="cannot be reached: ValueError"):
            await request_token(OAuthConfig(client_id="x", client_secret=SECRET, auth_url=url))


async def test_the_endpoint_is_trusted_by_its_own_roots(
    tls_endpoint: TokenEndpoint, ca: trustme.CA, tmp_path: Path
) -> None:
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    grant = await request_token(oauth(tls_endpoint, ca=tmp_path / "ca.pem"))
    assert grant.access_token == f"{TOKEN}-1"


async def test_an_endpoint_of_unknown_roots_gets_no_secret(tls_endpoint: TokenEndpoint) -> None:
    resets: list[dict[str, object]] = []
    loop = asyncio.get_running_loop()
    usual = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: resets.append(context))  # the server's view of it
    try:
        with pytest.raises(CredentialsError, match=r"CERTIFICATE_VERIFY_FAILED.* roots are to stand in oauth\.ca"):
            await request_token(oauth(tls_endpoint))
        assert tls_endpoint.requests == []
        await asyncio.sleep(0.05)
    finally:
        loop.set_exception_handler(usual)
    assert len(resets) <= 1, "it is no use to ask again"


@pytest.mark.parametrize(("content", "words"), [(None, "No such file"), (b"", "no PEM file of certificates")])
async def test_broken_roots_are_named(
    tls_endpoint: TokenEndpoint, tmp_path: Path, content: bytes | None, words: str
) -> None:
    if content is not None:
        (tmp_path / "ca.pem").write_bytes(content)
    with pytest.raises(CredentialsError, match=rf"oauth\.ca .*ca\.pem cannot be used: .*{words}"):
        await request_token(oauth(tls_endpoint, ca=tmp_path / "ca.pem"))


TROUBLES: dict[str, Callable[[TokenEndpoint], object]] = {
    "refused": lambda endpoint: endpoint.answers.extend([(401, "")]),
    "failing": lambda endpoint: endpoint.answers.extend([(500, "")] * 3),
    "redirected": lambda endpoint: endpoint.answers.extend([(307, "location: http://127.0.0.1:1/\r\n")]),
    "garbled": lambda endpoint: endpoint.answers.extend([(999999, "")] * 3),
    "silent": lambda endpoint: setattr(endpoint, "delay_s", 5.0),
    "well": lambda endpoint: None,
}


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_no_output_holds_secret_or_token(
    endpoint: TokenEndpoint, trouble: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Everything at DEBUG, of all libraries; the traceback with its whole chain of causes."""
    TROUBLES[trouble](endpoint)
    caplog.set_level(logging.DEBUG)
    credentials = credentials_from_config(ClientConfig(oauth=oauth(endpoint, timeout_s=0.2)))
    (outcome,) = await asyncio.gather(credentials.metadata(), return_exceptions=True)
    told = ""
    if isinstance(outcome, CredentialsError):
        told = "".join(traceback.format_exception(outcome)) + repr(vars(outcome))
        assert outcome.__context__ is None, "what was being handled holds the request, and so the secret"
    assert endpoint.requests
    assert (told == "") == (trouble == "well")
    captured = capsys.readouterr()
    output = told + caplog.text + captured.out + captured.err + repr(credentials) + repr(vars(credentials))
    assert SECRET not in output
    assert TOKEN not in output
    await credentials.aclose()
