"""The way to one endpoint, step by step, so that the first broken step names itself."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import anyio

from athena_async.cli.findings import Finding, State
from athena_async.config import ClientConfig, TlsConfig
from athena_async.errors import AthenaError, CredentialsError, ErrorCode, RpcError

_STEP_TIMEOUT_S = 10.0
_PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")

_REMEDIES = {
    ErrorCode.UNAUTHENTICATED: "The token is wrong, expired or of another audience: check ATHENA_API_KEY or OAUTH_*.",
    ErrorCode.PERMISSION_DENIED: "The token is good, but not for this: ask whoever issued it.",
    ErrorCode.UNIMPLEMENTED: "Something else than Athena answers there: check the endpoint.",
    ErrorCode.UNAVAILABLE: "Something answers there that does not speak gRPC this way: check TLS and the port.",
}


async def endpoint_findings(config: ClientConfig, endpoint: str) -> AsyncIterator[Finding]:
    """Name, connection, TLS, and a ListDeployments with the configured token; stops at the first broken step."""
    section = f"Endpoint {endpoint}"
    host, _, port = endpoint.rpartition(":")
    host = host.strip("[]")
    proxy = next((name for name in _PROXY_VARIABLES if os.environ.get(name)), None)
    if proxy is not None:
        yield Finding(section, "proxy", State.NOTE, f"gRPC connects through {proxy}; the direct steps are left out")
    else:
        for step in (_resolve, _connect, _handshake):
            finding = await step(section, config, host, int(port))
            if finding is not None:
                yield finding
                if finding.state is State.BROKEN:
                    return
    yield await _list_deployments(section, config, endpoint)


async def _resolve(section: str, config: ClientConfig, host: str, port: int) -> Finding:
    try:
        with anyio.fail_after(_STEP_TIMEOUT_S):
            found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError) as error:
        remedy = "Check the spelling of the host, and this machine's DNS."
        return Finding(section, "name", State.BROKEN, f"{host} has no address: {_reason(error)}", remedy)
    addresses = sorted({str(address[4][0]) for address in found})
    return Finding(section, "name", State.OK, ", ".join(addresses))


async def _connect(section: str, config: ClientConfig, host: str, port: int) -> Finding:
    try:
        await _open(host, port, None, None)
    except (OSError, TimeoutError) as error:
        remedy = "Check the port, that the service runs, and firewalls on the way."
        return Finding(section, "connection", State.BROKEN, _reason(error), remedy)
    return Finding(section, "connection", State.OK, "TCP connection opened")


async def _handshake(section: str, config: ClientConfig, host: str, port: int) -> Finding | None:
    if config.tls is False:
        return Finding(section, "TLS", State.NOTE, "off: nothing is encrypted")
    tls = config.tls if isinstance(config.tls, TlsConfig) else TlsConfig()
    try:
        context = await anyio.to_thread.run_sync(_tls_context, tls)
        subject = await _open(host, port, context, tls.server_name or host)
    except ssl.SSLCertVerificationError as error:
        remedy = "Name the roots with --ca, or the expected name with --server-name."
        return Finding(section, "TLS", State.BROKEN, f"certificate not accepted: {error.verify_message}", remedy)
    except (OSError, TimeoutError) as error:
        remedy = "Check that the port speaks TLS (or say --no-tls), and the certificate files."
        return Finding(section, "TLS", State.BROKEN, _reason(error), remedy)
    return Finding(section, "TLS", State.OK, subject)


async def _open(host: str, port: int, context: ssl.SSLContext | None, server_name: str | None) -> str:
    """Opens a connection and closes it again; tells the version of TLS and the protocol agreed on."""
    with anyio.fail_after(_STEP_TIMEOUT_S):
        _, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=server_name)
    tls: ssl.SSLObject | None = writer.get_extra_info("ssl_object")
    agreed = f"{tls.version()}, {tls.selected_alpn_protocol() or 'no ALPN'}" if tls is not None else ""
    writer.transport.abort()
    return agreed


def _tls_context(tls: TlsConfig) -> ssl.SSLContext:
    """The roots that gRPC would use, and the client's certificate."""
    roots = Path(tls.ca) if tls.ca is not None else _grpc_roots()
    context = ssl.create_default_context(cafile=str(roots) if roots is not None else None)
    context.set_alpn_protocols(["h2"])
    if tls.cert is not None:
        context.load_cert_chain(tls.cert, tls.key)
    return context


def _grpc_roots() -> Path | None:
    chosen = os.environ.get("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH")
    roots = Path(chosen) if chosen else Path(str(files("grpc"))) / "_cython" / "_credentials" / "roots.pem"
    return roots if roots.is_file() else None


async def _list_deployments(section: str, config: ClientConfig, endpoint: str) -> Finding:
    from athena_async.client import AthenaClient

    has_token = any((config.api_key, config.api_key_file, config.oauth))
    try:
        async with AthenaClient(replace(config, endpoints=(endpoint,))) as client:
            found = await client.list_deployments()
    except RpcError as error:
        return Finding(section, "token", State.BROKEN, str(error), _remedy(error.code, has_token=has_token))
    except CredentialsError as error:
        return Finding(section, "token", State.BROKEN, str(error), "Check OAUTH_*, and that its address is in reach.")
    except AthenaError as error:
        return Finding(section, "token", State.BROKEN, str(error))
    accepted = "token accepted" if has_token else "no token needed"
    return Finding(section, "token", State.OK, f"{accepted}; {len(found):,} deployments")


def _remedy(code: ErrorCode, *, has_token: bool) -> str:
    if code is ErrorCode.UNAUTHENTICATED and not has_token:
        return "No token is configured: set ATHENA_API_KEY, or OAUTH_CLIENT_ID and OAUTH_CLIENT_SECRET."
    return _REMEDIES.get(code, "")


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {_STEP_TIMEOUT_S:g} s"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
