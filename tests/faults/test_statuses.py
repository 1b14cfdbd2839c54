"""Statuses of whole calls: which are final, which are waited out, and that images are kept meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest

from athena_async import AthenaClient, ClientConfig, OAuthConfig, Outcome, PoolConfig, wire
from athena_async.emulator import Emulator, ServiceModel
from athena_async.events import CredentialsRefreshed, Event
from athena_async.results import Classification
from tests.faults.world import config, in_flight, inputs, resends, world
from tests.waits import until

pytestmark = pytest.mark.anyio


def at_rest(client: AthenaClient) -> bool:
    """No channel has a call still to be refused."""
    return {channel.state for channel in client.stats().channels} == {"IDLE"}


@pytest.mark.parametrize("code", ["PERMISSION_DENIED", "INVALID_ARGUMENT"])
async def test_a_final_status_is_told_at_once_and_nothing_is_sent(code: str) -> None:
    async with world() as (emulator, _proxy, client, _seen):
        emulator.faults.update(refuse=1.0, refuse_code=code)
        async with asyncio.timeout(5.0):
            results = await client.classify_many(inputs(50))
        assert {result.outcome for result in results} == {Outcome.FAILED}
        assert {str(result.error.code) for result in results if result.error} == {code}
        assert {result.attempts for result in results} == {0}
        assert emulator.audit.billed_count == 0
        await until(lambda: at_rest(client))
        emulator.faults.update(refuse=0.0)
        assert all(result.ok for result in await client.classify_many(inputs(50)))
        assert emulator.faults.counts["refuse"] == 2, "one try on each channel"


async def test_unavailable_calls_are_tried_again_until_one_is_let_in() -> None:
    async with world() as (emulator, _proxy, client, _seen):
        emulator.faults.inject("refuse", 6)
        results = await client.classify_many(inputs(50))
        assert all(result.ok for result in results)
        assert resends(emulator) == 0


async def test_a_service_that_is_full_is_waited_for() -> None:
    """RESOURCE_EXHAUSTED: what it accepted is answered, the rest goes later, and no image fails for it."""
    model = ServiceModel(per_image_s=0.002, parallelism=1, queue_limit_images=40)
    async with (
        Emulator(model=model) as emulator,
        AthenaClient(config(emulator.address)) as client,
    ):
        results = await client.classify_many(inputs(300))
        assert all(result.ok for result in results), {str(r.error) for r in results if not r.ok}
        assert emulator.audit.billed_count == 300


class PushingBack:
    """A service whose first call ends with RESOURCE_EXHAUSTED and a request to wait ``pushback_ms``."""

    def __init__(self, pushback_ms: int) -> None:
        self.pushback_ms = pushback_ms
        self.calls_s: list[float] = []

    async def classify(self, _requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> None:
        self.calls_s.append(asyncio.get_running_loop().time())
        if len(self.calls_s) == 1:
            metadata = (("grpc-retry-pushback-ms", str(self.pushback_ms)),)
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", metadata)
        while isinstance(request := await context.read(), bytes):
            _, given = wire.read_request(request)
            answers = [wire.Answer(i.correlation_id, (Classification("UnknownCSAM-Ducks", 1.0),), None) for i in given]
            if answers:
                await context.write(wire.write_response(answers))

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        server = grpc.aio.server()
        handler = grpc.stream_stream_rpc_method_handler(self.classify)
        service = grpc.method_handlers_generic_handler("athena.ClassifierService", {"Classify": handler})
        server.add_generic_rpc_handlers((service,))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        yield f"127.0.0.1:{port}"
        await server.stop(0)


async def test_a_server_that_asks_to_wait_is_left_alone_so_long() -> None:
    service = PushingBack(900)
    async with service.listening() as address:
        settings = config(address, pool=PoolConfig(channels=1, max_channels=1))
        async with AthenaClient(settings) as client:
            assert all(result.ok for result in await client.classify_many(inputs(10)))
    assert service.calls_s[1] - service.calls_s[0] >= 0.9


@asynccontextmanager
async def with_tokens(**overrides: object) -> AsyncIterator[tuple[Emulator, AthenaClient, list[Event]]]:
    """An emulator that asks for tokens and has a token endpoint, and a client with the right credentials."""
    pytest.importorskip("joserfc")
    seen: list[Event] = []
    async with Emulator(
        model=ServiceModel(fixed_s=0.2, parallelism=64),
        oauth_port=0,
        oauth_clients={"team": "a-secret"},
        token_lifetime_s=600.0,
    ) as emulator:
        oauth = OAuthConfig(client_id="team", client_secret="a-secret", auth_url=f"{emulator.oauth_url}/oauth/token")
        settings: ClientConfig = config(emulator.address, oauth=oauth, **overrides)
        async with AthenaClient(settings, observers=[seen.append]) as client:
            yield emulator, client, seen


def refreshes(seen: list[Event]) -> int:
    return sum(isinstance(event, CredentialsRefreshed) for event in seen)


async def test_a_token_revoked_with_images_in_flight_is_renewed_once_and_nothing_is_lost() -> None:
    async with with_tokens() as (emulator, client, seen):
        work = asyncio.create_task(client.classify_many(inputs(200)))
        await in_flight(client)
        emulator.revoke_tokens()
        emulator.drop_streams()
        results = await work
        assert all(result.ok for result in results), {str(r.error) for r in results if not r.ok}
        assert refreshes(seen) == 2, "the first, and one for all channels together"
        assert resends(emulator) == 0


async def test_tokens_that_are_refused_for_good_fail_clearly_and_the_images_are_intact() -> None:
    async with with_tokens() as (emulator, client, seen):
        images = inputs(50)
        emulator.faults.update(expired_tokens=1.0)
        async with asyncio.timeout(8.0):
            results = await client.classify_many(images)
        assert {str(result.error.code) for result in results if result.error} == {"UNAUTHENTICATED"}
        assert {result.outcome for result in results} == {Outcome.FAILED}
        assert {result.attempts for result in results} == {0}
        assert refreshes(seen) <= 4, "each refused token is renewed once, not once for each image or channel"
        await until(lambda: at_rest(client))
        asked = emulator.faults.counts["expired_tokens"]
        again = await client.classify_many(images)
        assert not any(result.ok for result in again), "for a minute nobody is asked again"
        assert emulator.faults.counts["expired_tokens"] == asked
        emulator.faults.update(expired_tokens=0.0)
        async with AthenaClient(client.config) as another:
            assert all(result.ok for result in await another.classify_many(images))


async def test_a_token_endpoint_that_is_down_for_a_while_is_waited_for() -> None:
    async with with_tokens() as (emulator, client, _seen):
        emulator.faults.update(token_errors=1.0)
        work = asyncio.create_task(client.classify_many(inputs(50)))
        await until(lambda: emulator.faults.counts["token_errors"] > 0)
        assert client.stats().sent_count == 0
        emulator.faults.update(token_errors=0.0)
        assert all(result.ok for result in await work)


async def test_a_token_endpoint_that_stays_down_fails_at_the_deadline_and_says_so() -> None:
    async with with_tokens(timeout_s=2.0) as (emulator, client, _seen):
        emulator.faults.update(token_errors=1.0)
        results = await client.classify_many(inputs(50))
        assert {result.outcome for result in results} == {Outcome.FAILED}
        assert {result.attempts for result in results} == {0}
        assert {str(result.error.code) for result in results if result.error} == {"UNAVAILABLE"}
        assert all("token" in result.error.message for result in results if result.error)
        assert 1 <= emulator.faults.counts["token_errors"] <= 60, "backoff, whatever the number of images"
