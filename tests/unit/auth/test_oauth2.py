"""The token source over a made-up endpoint and a clock that is set by hand."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from athena_async.auth.credentials import bearer
from athena_async.auth.oauth2 import BACKOFF, REFUSAL_HOLD_S, ClientCredentialsSource, Token
from athena_async.auth.token_endpoint import Grant, TokenEndpointError
from athena_async.config import OAuthConfig
from athena_async.errors import CredentialsError
from athena_async.events import CredentialsRefreshed, Event
from tests.waits import soon

pytestmark = pytest.mark.anyio

LIFETIME_S = 1000.0
SECRET = "canary-97ab-secret"


class Endpoint:
    """Answers ``token-1``, ``token-2``, … once `open` is set, or fails with `failure`."""

    def __init__(self) -> None:
        self.asked = 0
        self.now = 0.0
        self.failure: CredentialsError | None = None
        self.open = asyncio.Event()
        self.open.set()
        self.cancelled = 0

    def clock(self) -> float:
        return self.now

    async def __call__(self, config: OAuthConfig) -> Grant:
        self.asked += 1
        number = self.asked
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.failure is not None:
            raise self.failure
        return Grant(f"token-{number}", LIFETIME_S)


@pytest.fixture
async def endpoint() -> Endpoint:
    return Endpoint()


@pytest.fixture
async def seen() -> list[Event]:
    return []


@pytest.fixture
async def source(endpoint: Endpoint, seen: list[Event]) -> AsyncIterator[ClientCredentialsSource]:
    config = OAuthConfig(client_id="team", client_secret=SECRET, refresh_fraction=0.25)
    source = ClientCredentialsSource(
        config, emit=seen.append, clock=endpoint.clock, rng=random.Random(7), request=endpoint
    )
    yield source
    await source.aclose()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def reasons(seen: list[Event]) -> list[str]:
    return [event.reason for event in seen if isinstance(event, CredentialsRefreshed)]


def test_a_token_is_renewed_ahead_of_expiry_with_jitter() -> None:
    times = [Token.granted(Grant("t", 1000.0), 50.0, 0.25, jitter, False).refresh_s for jitter in (0.0, 0.5, 1.0)]
    assert times == [800.0, 825.0, 850.0]
    assert Token.granted(Grant("t", 1000.0), 50.0, 0.25, 0.0, False).unusable_s == 1045.0
    assert Token.granted(Grant("t", 10.0), 50.0, 0.25, 0.0, False).unusable_s == 59.0


async def test_fifty_callers_are_one_request(source: ClientCredentialsSource, endpoint: Endpoint) -> None:
    endpoint.open.clear()
    calls = [asyncio.create_task(source.metadata()) for _ in range(50)]
    await settle()
    endpoint.open.set()
    assert await asyncio.gather(*calls) == [bearer("token-1")] * 50
    assert endpoint.asked == 1


async def test_fifty_callers_of_a_failing_endpoint_are_one_request_and_fifty_errors(
    source: ClientCredentialsSource, endpoint: Endpoint
) -> None:
    endpoint.failure = TokenEndpointError("down", retryable=True)
    errors = await asyncio.gather(*(source.metadata() for _ in range(50)), return_exceptions=True)
    assert {str(error) for error in errors} == {"down"}
    assert len({id(error) for error in errors}) == 50, "a shared exception gathers the traceback of every caller"
    assert endpoint.asked == 1


async def test_a_cancelled_caller_does_not_end_the_shared_request(
    source: ClientCredentialsSource, endpoint: Endpoint
) -> None:
    endpoint.open.clear()
    calls = [asyncio.create_task(source.metadata()) for _ in range(3)]
    await settle()
    calls[0].cancel()
    await settle()
    assert calls[0].cancelled()
    endpoint.open.set()
    assert await asyncio.gather(*calls[1:]) == [bearer("token-1")] * 2
    assert (endpoint.asked, endpoint.cancelled) == (1, 0)


async def test_all_callers_cancelled_the_token_is_there_for_the_next(
    source: ClientCredentialsSource, endpoint: Endpoint
) -> None:
    endpoint.open.clear()
    call = asyncio.create_task(source.metadata())
    await settle()
    call.cancel()
    await settle()
    endpoint.open.set()
    assert await source.metadata() == bearer("token-1")
    assert endpoint.asked == 1


async def test_within_its_last_quarter_a_token_is_renewed_in_the_background(
    source: ClientCredentialsSource, endpoint: Endpoint, seen: list[Event]
) -> None:
    await source.metadata()
    endpoint.now = 749.0
    await source.metadata()
    await settle()
    assert endpoint.asked == 1
    endpoint.open.clear()
    endpoint.now = 801.0
    assert [await source.metadata() for _ in range(50)] == [bearer("token-1")] * 50, "the old one is still valid"
    await settle()
    endpoint.open.set()
    await settle()
    assert await source.metadata() == bearer("token-2")
    assert endpoint.asked == 2
    assert reasons(seen) == ["first", "ahead of expiry"]


async def test_an_expired_token_is_not_handed_out(source: ClientCredentialsSource, endpoint: Endpoint) -> None:
    await source.metadata()
    endpoint.now = 995.5
    assert await source.metadata() == bearer("token-2")


async def test_while_the_endpoint_is_down_the_old_token_serves_and_requests_are_few(
    source: ClientCredentialsSource, endpoint: Endpoint
) -> None:
    await source.metadata()
    endpoint.failure = TokenEndpointError("down", retryable=True)
    for endpoint.now in range(801, 995):
        assert await source.metadata() == bearer("token-1")
        await settle()
    assert 3 <= endpoint.asked - 1 <= 25
    endpoint.now = 996.0 + BACKOFF.cap_s
    with pytest.raises(CredentialsError, match="down") as caught:
        await source.metadata()
    assert caught.value.retryable
    endpoint.failure = None
    endpoint.now += BACKOFF.cap_s
    assert await source.metadata() != bearer("token-1")


async def test_after_a_failure_calls_raise_at_once_until_the_pause_is_over(
    source: ClientCredentialsSource, endpoint: Endpoint
) -> None:
    endpoint.failure = TokenEndpointError("slow down", retryable=True, retry_after_s=30.0)
    for _ in range(50):
        with pytest.raises(CredentialsError, match="slow down"):
            await source.metadata()
    assert endpoint.asked == 1
    endpoint.now, endpoint.failure = 31.1, None
    assert await source.metadata() == bearer("token-2")


async def test_a_refused_token_is_replaced_once_by_one_request(
    source: ClientCredentialsSource, endpoint: Endpoint, seen: list[Event]
) -> None:
    old = await source.metadata()
    for _ in range(50):
        source.refused(old)
    assert await asyncio.gather(*(source.metadata() for _ in range(50))) == [bearer("token-2")] * 50
    source.refused(old)
    assert await source.metadata() == bearer("token-2"), "a late refusal of the old token has cost the new one"
    assert endpoint.asked == 2
    assert reasons(seen) == ["first", "refused"]


async def test_a_successor_that_is_refused_too_is_a_clear_error_and_no_storm(
    source: ClientCredentialsSource, endpoint: Endpoint
) -> None:
    source.refused(await source.metadata())
    source.refused(await source.metadata())
    for _ in range(50):
        with pytest.raises(CredentialsError, match=r"just issued: check oauth\.audience") as caught:
            await source.metadata()
        assert not caught.value.retryable
    assert endpoint.asked == 2
    endpoint.now += REFUSAL_HOLD_S
    assert await source.metadata() == bearer("token-3"), "it never tried again"


async def test_a_token_that_served_long_may_be_refused_again(
    source: ClientCredentialsSource, endpoint: Endpoint
) -> None:
    source.refused(await source.metadata())
    served = await source.metadata()
    endpoint.now += REFUSAL_HOLD_S
    source.refused(served)
    assert await source.metadata() == bearer("token-3")


async def test_a_wait_ends_with_a_renewed_token_but_not_with_the_first(
    source: ClientCredentialsSource, endpoint: Endpoint
) -> None:
    waiting = asyncio.create_task(source.wait_changed())
    await source.metadata()
    await settle()
    assert not waiting.done()
    source.refused(await source.metadata())
    await source.metadata()
    await soon(waiting)
    waiting = asyncio.create_task(source.wait_changed())
    await settle()
    assert not waiting.done(), "the same change was told twice"
    waiting.cancel()


async def test_the_wait_itself_renews_in_time() -> None:
    asked = 0

    async def request(config: OAuthConfig) -> Grant:
        nonlocal asked
        asked += 1
        return Grant(f"token-{asked}", 0.2)

    source = ClientCredentialsSource(OAuthConfig(client_id="x", client_secret="y"), request=request)
    await source.metadata()
    await soon(source.wait_changed())
    await soon(source.wait_changed())
    assert asked == 3
    await source.aclose()


async def test_closing_ends_the_request_and_tells_its_callers(
    source: ClientCredentialsSource, endpoint: Endpoint
) -> None:
    endpoint.open.clear()
    call = asyncio.create_task(source.metadata())
    await settle()
    await source.aclose()
    with pytest.raises(CredentialsError, match="closed"):
        await call
    with pytest.raises(CredentialsError, match="closed"):
        await source.metadata()
    assert endpoint.cancelled == 1
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "athena-token"]


async def test_no_repr_shows_a_secret_or_token(source: ClientCredentialsSource, endpoint: Endpoint) -> None:
    await source.metadata()
    endpoint.now = 5.0
    shown = repr(source) + repr(Grant("token-1", 1.0)) + repr(Token.granted(Grant("token-1", 1.0), 0, 0.2, 0, False))
    assert "token-1" not in shown
    assert SECRET not in shown
    assert repr(source) == "ClientCredentialsSource('team', 990 s left, asking=False, failures=0)"
