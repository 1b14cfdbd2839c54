"""What endpoints are asked beside the batches: an endpoint that is dead keeps nobody from the others' answers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from athena_async import AthenaClient, BreakerConfig, ClientConfig, ErrorCode, PoolConfig, RetryConfig
from athena_async.channels.channel import CallFailed, Metadata, Transport
from athena_async.testing import FakeAthena, Input
from tests.simulation.runs import hash_inputs
from tests.virtual_time import run_virtual

GOOD, BAD, WORSE = ENDPOINTS = ("good:1", "bad:1", "worse:1")


class LosingAthena(FakeAthena):
    """One service behind several endpoints, of which some never say what it holds. It loses the first request.

    Attributes:
        asked: when each endpoint was asked what the deployment holds.
    """

    def __init__(self, *silent: str) -> None:
        super().__init__()
        self.asked: dict[str, list[float]] = {endpoint: [] for endpoint in ENDPOINTS}
        self.lost_images = 0
        self._silent = silent
        self._asking: set[str] = set()

    async def connect(self, endpoint: str) -> Transport:
        transport = await super().connect(endpoint)
        answer = transport.list_deployments

        async def list_deployments(*, timeout_s: float, metadata: Metadata) -> bytes:
            assert endpoint not in self._asking, "asked again before it answered"
            self.asked[endpoint].append(asyncio.get_running_loop().time())
            self._asking.add(endpoint)
            try:
                if endpoint in self._silent:
                    await asyncio.sleep(timeout_s)
                    raise CallFailed(ErrorCode.DEADLINE_EXCEEDED, "no answer")
                return await answer(timeout_s=timeout_s, metadata=metadata)
            finally:
                self._asking.discard(endpoint)

        transport.list_deployments = list_deployments  # type: ignore[method-assign]
        return transport

    def received(self, inputs: Sequence[Input]) -> None:
        if self.lost_images:
            super().received(inputs)
        else:
            self.lost_images = len(inputs)
            asyncio.get_running_loop().call_soon(self.drop)


async def lose_and_recover(service: LosingAthena, ejected: Sequence[str], panic_fraction: float = 0.1) -> float:
    """Classifies images whose first request is lost; returns the seconds that it took. Leaves no task behind."""
    before = asyncio.all_tasks()
    settings = ClientConfig(
        endpoints=ENDPOINTS,
        affiliate="acme",
        tls=False,
        timeout_s=300.0,
        breaker=BreakerConfig(ejection_base_s=300.0, panic_fraction=panic_fraction),
        pool=PoolConfig(probe_interval_s=1.0),
        retry=RetryConfig(grace_min_s=0.5, grace_max_s=100.0),
    )
    clock = asyncio.get_running_loop().time
    async with AthenaClient(settings, connect=service.connect, seed=1) as client:
        assert client._engine is not None
        for endpoint in ejected:
            assert client._engine.flow.health.failed(endpoint, "told so", clock(), at_once=True)
        await asyncio.sleep(10.0)
        begun_s = clock()
        assert all(result.ok for result in await client.classify_many(hash_inputs(10)))
        took_s = clock() - begun_s
        assert client.stats().resent_count == service.lost_images > 0
    assert asyncio.all_tasks() == before
    return took_s


def test_dead_endpoints_are_probed_side_by_side_and_delay_no_recovery() -> None:
    async def scene() -> None:
        service = LosingAthena(BAD, WORSE)
        assert await lose_and_recover(service, ejected=(BAD, WORSE)) < 2.0
        # A probe is given up after 5 s, so that two are under way when the client is closed.
        assert service.asked[BAD] == service.asked[WORSE] == [1.0, 7.0]

    run_virtual(scene())


def test_an_endpoint_that_does_not_say_what_the_deployment_holds_is_asked_last_next_time() -> None:
    async def scene() -> None:
        service = LosingAthena(GOOD, BAD)
        assert 12.0 < await lose_and_recover(service, ejected=()) < 15.0
        assert [len(times) for times in service.asked.values()] == [1, 1, 1]
        asked = sorted(service.asked, key=lambda endpoint: service.asked[endpoint][0])
        assert tuple(asked) == ENDPOINTS

    run_virtual(scene())


def test_an_endpoint_is_asked_one_thing_at_a_time_though_it_is_both_ejected_and_used() -> None:
    async def scene() -> None:
        service = LosingAthena(*ENDPOINTS)
        await lose_and_recover(service, ejected=(BAD, WORSE), panic_fraction=1.0)
        assert min(len(times) for times in service.asked.values()) > 5

    run_virtual(scene())
