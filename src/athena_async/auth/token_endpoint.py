"""One round of requests to an OAuth2 token endpoint. Nothing it raises repeats what the endpoint answered."""

from __future__ import annotations

import asyncio
import importlib
import json
import random
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from athena_async.config import OAuthConfig
from athena_async.errors import CredentialsError
from athena_async.resilience.backoff import Backoff

if TYPE_CHECKING:
    import httpx2

ATTEMPTS = 3
PAUSES = Backoff(base_s=0.2, cap_s=1.0)
"""Between the attempts of one round."""
LONGEST_WAIT_S = 2.0
"""The longest pushback that is waited for within a round."""
DEFAULT_LIFETIME_S = 300.0
"""Of a token whose answer does not tell; RFC 6749 only recommends to."""

_LARGEST_BODY_BYTES = 256 * 1024
_LONGEST_TOKEN = 16 * 1024
_LONGEST_PUSHBACK_S = 300.0
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})

_KNOWN_ERRORS = frozenset(
    {
        "access_denied",
        "invalid_client",
        "invalid_grant",
        "invalid_request",
        "invalid_scope",
        "server_error",
        "temporarily_unavailable",
        "unauthorized_client",
        "unsupported_grant_type",
    }
)
"""Only these are repeated in a message: any other text of the endpoint may hold what was sent to it."""


class TokenEndpointError(CredentialsError):
    """The endpoint gave no token. ``retry_after_s`` is how long it asks us to stay away."""

    def __init__(self, message: str, *, retryable: bool, retry_after_s: float = 0.0) -> None:
        super().__init__(message, retryable=retryable)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Grant:
    """What the endpoint gave: a token and its lifetime in seconds."""

    access_token: str = field(repr=False)
    lifetime_s: float


async def request_token(
    config: OAuthConfig,
    *,
    rng: random.Random | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Grant:
    """Asks for a token, up to three times where asking again soon may help.

    Args:
        config: the endpoint and who asks; ``timeout_s`` bounds each attempt.
        rng: the source of jitter between the attempts.
        sleep: waits between them.

    Raises:
        TokenEndpointError: there is no token; the message names the host and what to check.
        CredentialsError: ``oauth.ca`` is no readable PEM file.
    """
    rng = random.Random() if rng is None else rng  # noqa: S311 (jitter)
    verify = await asyncio.to_thread(_prepared, config)
    import httpx2

    async with httpx2.AsyncClient(verify=verify, timeout=config.timeout_s) as client:
        attempt = 0
        while True:
            try:
                return await _attempt(client, config)
            except TokenEndpointError as error:
                if attempt + 1 == ATTEMPTS or not _soon_better(error):
                    raise
                pause_s = PAUSES.delay_s(attempt, rng, error.retry_after_s)
            attempt += 1
            await sleep(pause_s)


def _soon_better(error: TokenEndpointError) -> bool:
    """An endpoint that asks for a longer pause gets it from the caller."""
    return error.retryable and error.retry_after_s <= LONGEST_WAIT_S


def _prepared(config: OAuthConfig) -> ssl.SSLContext:
    """Whom to trust. Runs in a thread: the first import and a system's roots take 100 ms and more."""
    importlib.import_module("httpx2")
    try:
        return ssl.create_default_context(cafile=config.ca)
    except ssl.SSLError:
        reason = "it is no PEM file of certificates"
    except OSError as error:
        reason = error.strerror or type(error).__name__
    raise CredentialsError(f"oauth.ca {config.ca} cannot be used: {reason}")


async def _attempt(client: httpx2.AsyncClient, config: OAuthConfig) -> Grant:
    """One request, and the token in its answer."""
    import httpx2

    form = {
        "client_id": config.client_id,
        "client_secret": config.client_secret,
        "audience": config.audience,
        "grant_type": "client_credentials",
    }
    body = {"json": form} if config.body == "json" else {"data": form}
    headers = {"accept": "application/json"}
    try:
        async with (
            asyncio.timeout(config.timeout_s),
            client.stream("POST", config.auth_url, headers=headers, **body) as response,  # type: ignore[arg-type]
        ):
            answer = await _bounded(response)
            problem = None
    except TimeoutError:
        problem = f"no answer within {config.timeout_s:g} s"
    except httpx2.ConnectError as error:
        problem = str(error) or "ConnectError"  # of the system or TLS; other errors may repeat the answer
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        problem = type(error).__name__
    host = urlsplit(config.auth_url).hostname or ""
    if problem is None:
        return read_grant(host, response.status_code, answer, _pushback_s(response.headers.get("retry-after", "")))
    # Raised here, where no exception is being handled: those above hold the request, and so the secret.
    distrusted = "CERTIFICATE_VERIFY_FAILED" in problem
    remedy = ": its roots are to stand in oauth.ca" if distrusted else ""
    message = f"the token endpoint {host} cannot be reached: {problem}{remedy}"
    raise TokenEndpointError(message, retryable=not distrusted)


async def _bounded(response: httpx2.Response) -> bytes:
    body = b""
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > _LARGEST_BODY_BYTES:
            raise ValueError("the answer is too large")
    return body


def _pushback_s(header: str) -> float:
    """Retry-After in seconds (its form as a date is rare for token endpoints and reads as none)."""
    return min(float(header), _LONGEST_PUSHBACK_S) if header.isascii() and header.isdecimal() else 0.0


def read_grant(host: str, status: int, body: bytes, pushback_s: float = 0.0) -> Grant:
    """The token in an answer.

    Raises:
        TokenEndpointError: the answer is an error, or not what RFC 6749, section 5.1 describes.
    """
    answer = _object(body)
    if status != 200:
        code = answer.get("error")
        told = f" ({code})" if isinstance(code, str) and code in _KNOWN_ERRORS else ""
        retryable = status in _TRANSIENT
        remedy = "" if retryable else ": check oauth.client_id, oauth.client_secret, oauth.audience and oauth.auth_url"
        message = f"the token endpoint {host} answered {status}{told}{remedy}"
        raise TokenEndpointError(message, retryable=retryable, retry_after_s=pushback_s)
    token, lifetime_s = answer.get("access_token"), _lifetime_s(answer.get("expires_in"))
    kind = answer.get("token_type", "Bearer")
    if not _is_token(token) or lifetime_s is None or not isinstance(kind, str) or kind.lower() != "bearer":
        message = f"the token endpoint {host} answered without a usable bearer token: check oauth.auth_url"
        raise TokenEndpointError(message, retryable=False)
    return Grant(str(token), lifetime_s)


def _object(body: bytes) -> dict[str, object]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _is_token(value: object) -> bool:
    return (
        isinstance(value, str)
        and 0 < len(value) <= _LONGEST_TOKEN
        and value.isascii()
        and value.isprintable()
        and " " not in value
    )


def _lifetime_s(value: object) -> float | None:
    """``expires_in``, which some endpoints write as text; None where it is no time."""
    if value is None:
        return DEFAULT_LIFETIME_S
    try:
        seconds = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else 0.0
    except (ValueError, OverflowError):
        return None
    return seconds if 0 < seconds < float("inf") else None
