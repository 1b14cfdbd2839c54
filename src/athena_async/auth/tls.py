"""TLS towards the service: certificates for channels, noticing their rotation, and gRPC's talkative tracers."""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from athena_async.auth._files import Signature, signature
from athena_async.config import TlsConfig
from athena_async.errors import ConfigError, CredentialsError


@dataclass(frozen=True, slots=True)
class _Pems:
    """The contents of the configured files."""

    ca: bytes | None
    cert: bytes | None
    key: bytes | None = field(repr=False)


async def load_channel_credentials(tls: bool | TlsConfig) -> grpc.ChannelCredentials | None:
    """Reads and checks the certificates, in a thread, for a new channel.

    Args:
        tls: True for gRPC's own roots, a `TlsConfig`, or False for plaintext.

    Returns:
        What `grpc.aio.secure_channel` takes; None for plaintext.

    Raises:
        CredentialsError: a file is missing or broken, or certificate and key do not belong
            together (retryable, as they may be in the midst of a rotation).
    """
    if isinstance(tls, bool):
        return grpc.ssl_channel_credentials() if tls else None
    pems = await asyncio.to_thread(_load, tls)
    return grpc.ssl_channel_credentials(pems.ca, pems.key, pems.cert)


def channel_options(tls: bool | TlsConfig) -> tuple[tuple[str, str], ...]:
    """The channel arguments that ``tls`` needs: the name expected in the server's certificate."""
    if isinstance(tls, bool) or tls.server_name is None:
        return ()
    return (("grpc.ssl_target_name_override", tls.server_name),)


class FileWatch:
    """Tells when the files of a `TlsConfig` were replaced by others that load.

    - Make it before the files are loaded: no change in between is missed.
    - A change is told only once all files load, and certificate and key belong together: a half-written
      pair is waited out, as is a broken one. ``problem`` tells why a change is held back.
    - The files may be rewritten, renamed into place, or be links that are swapped.

    Args:
        tls: whose files are watched.
        poll_s: seconds between two looks, which happen in a thread.
    """

    def __init__(self, tls: TlsConfig, poll_s: float = 1.0) -> None:
        self._tls = tls
        self._poll_s = poll_s
        self._signatures = _signatures(tls)
        self.problem: str | None = None

    async def wait_changed(self) -> None:
        """Returns once the files have changed since it last returned (at first: since the watch was made)."""
        if not self._signatures:
            await asyncio.Event().wait()
        while True:
            await asyncio.sleep(self._poll_s)
            found, self.problem = await asyncio.to_thread(_look, self._tls, self._signatures)
            if found is not None:
                self._signatures = found
                return

    def __repr__(self) -> str:
        return f"FileWatch({len(self._signatures)} files, problem={self.problem!r})"


def _signatures(tls: TlsConfig) -> tuple[Signature | None, ...]:
    return tuple(signature(path) for path in (tls.ca, tls.cert, tls.key) if path is not None)


def _look(
    tls: TlsConfig, known: tuple[Signature | None, ...]
) -> tuple[tuple[Signature | None, ...] | None, str | None]:
    """The new signatures once new files load, else None; and why files that changed do not."""
    found = _signatures(tls)
    if found == known:
        return None, None
    try:
        _load(tls)
    except CredentialsError as error:
        return None, str(error)
    return (found, None) if found == _signatures(tls) else (None, "the files are being written")


def _load(tls: TlsConfig) -> _Pems:
    pems = _read(tls)
    if pems.ca is not None:
        _check_certificates("tls.ca", tls.ca, pems.ca)
    if pems.cert is not None and pems.key is not None:
        _check_certificates("tls.cert", tls.cert, pems.cert)
        _check_pair(tls, pems.key)
        if _read(tls) != pems:
            raise CredentialsError(f"{_pair(tls)} changed while they were read", retryable=True)
    return pems


def _read(tls: TlsConfig) -> _Pems:
    return _Pems(*(_content(f"tls.{name}", getattr(tls, name)) for name in ("ca", "cert", "key")))


def _content(name: str, path: str | os.PathLike[str] | None) -> bytes | None:
    try:
        return None if path is None else Path(path).read_bytes()
    except OSError as error:
        raise CredentialsError(f"{name} {path} cannot be read: {error.strerror}", retryable=True) from None


def _check_certificates(name: str, path: object, pem: bytes) -> None:
    text = pem.decode("ascii", "ignore")  # names of authorities stand in comments, in any script
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError):
        remedy = "it must consist of whole blocks from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----"
        raise CredentialsError(f"{name} {path} holds no valid PEM certificates: {remedy}", retryable=True) from None


def _check_pair(tls: TlsConfig, key: bytes) -> None:
    if tls.cert is None:
        return
    if b"ENCRYPTED" in key:
        raise CredentialsError(f"tls.key {tls.key} has a password: write it without one (openssl pkey -in … -out …)")
    try:
        # The password is never asked for: without one here, OpenSSL would ask at the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(tls.cert, tls.key, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            problem = f"{_pair(tls)} do not belong together: the key must be the certificate's own"
        else:
            remedy = "it must be a PEM private key, from -----BEGIN PRIVATE KEY----- to its END"
            problem = f"tls.key {tls.key} cannot be used ({error.reason}): {remedy}"
        raise CredentialsError(problem, retryable=True) from None
    except OSError as error:
        raise CredentialsError(f"{_pair(tls)} cannot be read: {error.strerror}", retryable=True) from None


def _pair(tls: TlsConfig) -> str:
    return f"tls.cert {tls.cert} and tls.key {tls.key}"


TELLING_TRACERS = ("api", "chttp2_hpack_parser", "secure_endpoint", "tcp", "event_engine_endpoint_data")
"""Tracers that print metadata or the bytes on the wire.

The first three were seen to print a bearer token with grpcio 1.76 and 1.85; the others are documented to
print bytes (https://github.com/grpc/grpc/blob/master/doc/trace_flags.md). All others were tried and did not.
"""


def check_grpc_trace(environ: Mapping[str, str], *, allow: bool = False) -> None:
    """Refuses a GRPC_TRACE with which gRPC would print tokens to stderr.

    Read as gRPC reads it: names and patterns (``*``, ``?``), or ``all``, separated by commas and
    without blanks; ``-`` in front switches off; of several that fit a tracer the last one counts.

    Raises:
        ConfigError: a tracer of `TELLING_TRACERS` is on, and ``allow`` is not set.
    """
    value = environ.get("GRPC_TRACE", "")
    on: set[str] = set()
    for entry in value.split(","):
        fitting = {name for name in TELLING_TRACERS if _fits(entry.removeprefix("-"), name)}
        on = on - fitting if entry.startswith("-") else on | fitting
    if on and not allow:
        allowed = f"without {', '.join(sorted(on))}, which print tokens (or set allow_grpc_trace)"
        raise ConfigError("GRPC_TRACE", value, allowed)


def _fits(pattern: str, name: str) -> bool:
    if pattern == "all":
        return True
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), name) is not None
