"""OAuth2 client credentials (RFC 6749, section 4.4): one token, shared by all calls, renewed ahead of expiry."""

from __future__ import annotations

import asyncio
import importlib.util
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from athena_async.auth.credentials import Metadata, bearer
from athena_async.auth.token_endpoint import Grant, TokenEndpointError, request_token
from athena_async.config import OAuthConfig
from athena_async.errors import CredentialsError, MissingExtraError
from athena_async.events import CredentialsRefreshed, Observer
from athena_async.resilience.backoff import Backoff

BACKOFF = Backoff(base_s=1.0, cap_s=60.0)
"""Between rounds of requests while the endpoint fails; within a round the requests have retries of their own."""

REFUSAL_HOLD_S = 60.0
"""A token that replaced a refused one and is refused within this time ends the asking for as long."""

_JITTER = 0.2
_LONGEST_MARGIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Token:
    """A token and its times on the source's clock.

    Attributes:
        metadata: what a call sends.
        issued_s: when it was asked for, so that its life never ends later than the endpoint thinks.
        refresh_s: from here on a successor is fetched in the background.
        unusable_s: from here on no call may begin with it.
        after_refusal: it replaced one that the service refused.
    """

    metadata: Metadata = field(repr=False)
    issued_s: float
    refresh_s: float
    unusable_s: float
    after_refusal: bool

    @classmethod
    def granted(cls, grant: Grant, now: float, fraction: float, jitter: float, after_refusal: bool) -> Token:
        """``jitter``, 0 to 1, moves the refresh up to a fifth of the remaining ``fraction`` back."""
        left_s = grant.lifetime_s * fraction * (1.0 - _JITTER * jitter)
        margin_s = min(_LONGEST_MARGIN_S, 0.1 * grant.lifetime_s)
        expires_s = now + grant.lifetime_s
        return cls(bearer(grant.access_token), now, expires_s - left_s, expires_s - margin_s, after_refusal)


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why there is no token, as text: many callers raise it, each in an exception of its own."""

    message: str
    retryable: bool
    retry_after_s: float = 0.0

    def error(self) -> CredentialsError:
        return CredentialsError(self.message, retryable=self.retryable)


_REFUSED_AGAIN = _Failure(
    "the service refuses a token that was just issued: check oauth.audience and what the client id may use", False
)


class ClientCredentialsSource:
    """Bearer tokens of a token endpoint.

    - At most one round of requests is under way, however many calls wait for it; cancelling a
      caller, or all of them, does not end it.
    - A token is handed out until shortly before it expires, also while its renewal fails.
    - A refused token is never handed out again. A refused successor ends the asking for a minute.
    - After a failed round nothing is asked until a growing, jittered pause is over; calls raise at once.

    Args:
        config: endpoint and client.
        emit: is told of each new token.
        clock: seconds, monotonic.
        rng: the source of jitter.
        request: asks the endpoint; raises `CredentialsError`.

    Raises:
        MissingExtraError: the extra ``oauth`` is not installed.
    """

    def __init__(
        self,
        config: OAuthConfig,
        *,
        emit: Observer | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        request: Callable[[OAuthConfig], Awaitable[Grant]] = request_token,
    ) -> None:
        if importlib.util.find_spec("httpx2") is None:
            raise MissingExtraError("oauth", "oauth")
        self._config = config
        self._emit = emit
        self._clock = clock
        self._rng = random.Random() if rng is None else rng  # noqa: S311 (jitter)
        self._request = request
        self._token: Token | None = None
        self._after_refusal = False
        self._flight: asyncio.Task[_Failure | None] | None = None
        self._failures = 0
        self._failure: _Failure | None = None
        self._ask_again_s = float("-inf")
        self._news = asyncio.Event()
        self._changes = 0
        self._changes_told = 0
        self._closed = False

    async def metadata(self) -> Metadata:
        while True:
            now = self._clock()
            if self._token is not None and now < self._token.unusable_s:
                self._refresh_if_due(now)
                return self._token.metadata
            if self._failure is not None and now < self._ask_again_s:
                raise self._failure.error()
            await self._outcome(self._refresh("first" if self._token is None else "expired"))

    def refused(self, metadata: Metadata) -> None:
        token, now = self._token, self._clock()
        if token is None or metadata != token.metadata:
            return  # it has been replaced since
        self._token = None
        if token.after_refusal and now - token.issued_s < REFUSAL_HOLD_S:
            self._failure, self._ask_again_s = _REFUSED_AGAIN, now + REFUSAL_HOLD_S
        self._after_refusal = True
        self._tell()

    async def wait_changed(self) -> None:
        while self._changes == self._changes_told:
            now = self._clock()
            self._refresh_if_due(now)
            news = self._news
            try:
                async with asyncio.timeout(self._due_in_s(now)):
                    await news.wait()
            except TimeoutError:
                continue
        self._changes_told = self._changes

    async def aclose(self) -> None:
        self._closed = True
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.wait({self._flight})

    def _refresh_if_due(self, now: float) -> None:
        if self._token is not None and now >= max(self._token.refresh_s, self._ask_again_s):
            self._refresh("ahead of expiry")

    def _due_in_s(self, now: float) -> float | None:
        """Until the next refresh may begin; None while it is news that must come first."""
        if self._token is None or self._flight is not None:
            return None
        return max(self._token.refresh_s, self._ask_again_s) - now

    def _refresh(self, reason: str) -> asyncio.Task[_Failure | None]:
        """The one round that is under way, begun where there is none."""
        if self._closed:
            raise CredentialsError("the client is closed")
        if self._flight is None:
            name = "athena-token"
            self._flight = asyncio.create_task(self._ask("refused" if self._after_refusal else reason), name=name)
        return self._flight

    async def _outcome(self, flight: asyncio.Task[_Failure | None]) -> None:
        await asyncio.wait({flight})  # unlike awaiting the task, being cancelled here does not cancel it
        if flight.cancelled():
            raise CredentialsError("the client is closed")
        failure = flight.result()
        if failure is not None:
            raise failure.error()

    async def _ask(self, reason: str) -> _Failure | None:
        asked_s = self._clock()
        try:
            grant = await self._request(self._config)
        except CredentialsError as error:
            pushback_s = error.retry_after_s if isinstance(error, TokenEndpointError) else 0.0
            return self._failed(_Failure(str(error), error.retryable, pushback_s))
        else:
            self._granted(grant, asked_s, reason)
            return None
        finally:
            self._flight = None
            self._tell()

    def _failed(self, failure: _Failure) -> _Failure:
        pause_s = BACKOFF.delay_s(self._failures, self._rng, failure.retry_after_s)
        self._failures += 1
        self._failure, self._ask_again_s = failure, self._clock() + pause_s
        return failure

    def _granted(self, grant: Grant, asked_s: float, reason: str) -> None:
        jitter, again = self._rng.random(), reason != "first"
        self._token = Token.granted(grant, asked_s, self._config.refresh_fraction, jitter, self._after_refusal)
        self._after_refusal = False
        self._failures, self._failure = 0, None
        self._ask_again_s = float("-inf")
        self._changes += again
        if self._emit is not None:
            self._emit(CredentialsRefreshed(asyncio.get_running_loop().time(), reason))

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def __repr__(self) -> str:
        token = "none" if self._token is None else f"{self._token.unusable_s - self._clock():.0f} s left"
        asking = self._flight is not None
        return f"ClientCredentialsSource({self._config.client_id!r}, {token}, {asking=}, failures={self._failures})"
