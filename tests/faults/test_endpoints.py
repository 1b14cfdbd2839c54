"""Endpoints that come and go: the breaker's states as events and stats show them."""

from __future__ import annotations

import asyncio
import statistics

import pytest

from athena_async import AthenaClient, BatchingConfig, BreakerConfig, ClientConfig, PoolConfig, RetryConfig
from athena_async.emulator import Emulator, ServiceModel
from athena_async.events import BatchAnswered, BatchSent, EndpointEjected, EndpointReturned, Event
from tests.faults.proxy import FaultProxy
from tests.faults.world import config, inputs, resends
from tests.waits import until

pytestmark = pytest.mark.anyio

BREAKER = BreakerConfig(failures=2, ejection_base_s=0.4, ejection_max_s=2.0)


def of(endpoint: str, seen: list[Event]) -> list[str]:
    """What happened to an endpoint: ejected, returned, or sent a batch."""
    kinds = {EndpointEjected: "ejected", EndpointReturned: "returned", BatchSent: "sent"}
    return [kinds[type(e)] for e in seen if type(e) in kinds and e.endpoint == endpoint]  # type: ignore[attr-defined]


def probes(history: list[str]) -> list[int]:
    """Batches sent between each ejection and what followed on it."""
    counts: list[int] = []
    ejected = False
    for what in history:
        if what == "sent":
            if ejected:
                counts[-1] += 1
        else:
            ejected = what == "ejected"
            if ejected:
                counts.append(0)
    return counts


class Load:
    """Calls of 100 images, one after the other, until told to stop; every image must be classified."""

    def __init__(self, client: AthenaClient) -> None:
        self._client = client
        self._stop = False
        self.images = 0

    async def __aenter__(self) -> Load:
        self._task = asyncio.create_task(self._run())
        return self

    async def _run(self) -> None:
        while not self._stop:
            results = await self._client.classify_many(inputs(100))
            assert all(result.ok for result in results), {str(r.error) for r in results if not r.ok}
            self.images += len(results)

    async def __aexit__(self, *_: object) -> None:
        self._stop = True
        await self._task


def states(client: AthenaClient) -> list[str]:
    return [str(endpoint.state) for endpoint in client.stats().endpoints]


async def flap(client: AthenaClient, good: Emulator, bad: Emulator, load: Load, seen: list[Event]) -> None:
    """One endpoint goes away until it is ejected, while the other serves, and comes back."""
    returns = of(bad.address, seen).count("returned")
    bad.faults.update(refuse=1.0)
    bad.drop_streams()
    await until(lambda: states(client)[1] == "OPEN")
    assert states(client)[0] == "CLOSED"
    served = load.images
    await until(lambda: load.images > served + 100)
    # The probe takes long enough for a second one, were there any.
    bad.model = ServiceModel(fixed_s=0.5, parallelism=8)
    bad.faults.update(refuse=0.0)
    await until(lambda: of(bad.address, seen).count("returned") > returns)
    bad.model = good.model


async def test_an_endpoint_that_flaps_is_ejected_probed_once_at_a_time_and_returns() -> None:
    seen: list[Event] = []
    model = ServiceModel(fixed_s=0.01, parallelism=8)
    async with Emulator(model=model) as good, Emulator(model=model, deployments=good.deployments) as bad:
        both = config(good.address, endpoints=(good.address, bad.address), breaker=BREAKER)
        async with AthenaClient(both, observers=[seen.append]) as client, Load(client) as load:
            await flap(client, good, bad, load, seen)
            await flap(client, good, bad, load, seen)
        history = of(bad.address, seen)
        assert history.count("ejected") >= 2
        assert max(probes(history)) == 1, history
        assert not any(isinstance(e, EndpointEjected) and e.endpoint == good.address for e in seen)
        times_s = [event.ejected_s for event in seen if isinstance(event, EndpointEjected)]
        assert all(0.4 <= time_s <= 2.0 for time_s in times_s)


async def test_a_half_open_endpoint_gets_one_probe_at_a_time_though_many_batches_wait() -> None:
    """With a fixed size the batch controller lets all batches go at once: the breaker alone holds them back."""
    seen: list[Event] = []
    batching = BatchingConfig(fixed_size=5, max_batches_in_flight=8)
    quick, slow = ServiceModel(fixed_s=0.05, parallelism=8), ServiceModel(fixed_s=0.4, parallelism=8)
    async with (
        Emulator(model=quick) as good,
        Emulator(model=slow, deployments=good.deployments) as bad,
        FaultProxy(bad.address) as proxy,
    ):
        both = config(
            good.address,
            endpoints=(good.address, proxy.address),
            breaker=BREAKER,
            batching=batching,
            retry=RetryConfig(grace_min_s=0.3, grace_max_s=0.5),
        )
        async with AthenaClient(both, observers=[seen.append]) as client:
            work = asyncio.create_task(client.classify_many(inputs(1000)))
            await until(lambda: of(proxy.address, seen).count("sent") >= 8, otherwise="it never had many batches")
            proxy.refusing = True
            proxy.reset()
            await until(lambda: states(client)[1] == "OPEN", otherwise="it was not ejected")
            proxy.refusing = False
            await until(lambda: states(client)[1] == "HALF_OPEN", otherwise="it may not be probed")
            assert client.stats().ready_count > 100, "nothing has to be held back"
            await until(lambda: "returned" in of(proxy.address, seen), otherwise="it did not come back")
            results = await work
        assert all(result.ok for result in results), {str(r.error) for r in results if not r.ok}
        history = of(proxy.address, seen)
        assert probes(history) == [1], history
        assert history[history.index("returned") :].count("sent") >= 8, "a sound endpoint may have many again"


async def test_answers_that_went_into_another_endpoints_dead_stream_are_soon_missed() -> None:
    """The deployment writes an answer to any of its streams. Those that sent the requests live, and know of no loss."""
    model = ServiceModel(fixed_s=0.05, parallelism=8)
    async with (
        Emulator(model=model) as living,
        Emulator(model=model, deployments=living.deployments) as dying,
        FaultProxy(dying.address) as proxy,
    ):
        both = config(living.address, endpoints=(living.address, proxy.address), timeout_s=60.0)
        async with AthenaClient(both) as client, Load(client) as load:
            await until(lambda: load.images >= 200)
            proxy.hole = True
            await asyncio.sleep(0.5)
            proxy.refusing = True
            proxy.reset()
            await until(lambda: client.stats().orphan_count == 0 < client.stats().resent_count)
            served = load.images
            await until(lambda: load.images >= served + 200, otherwise="images of it still wait")
        assert max(living.audit.sends().values()) <= 2


async def test_latency_is_the_sending_endpoints_wherever_the_answer_came() -> None:
    """Of two endpoints of one deployment each answer comes on whichever stream waits."""
    seen: list[Event] = []
    quick, slow = ServiceModel(fixed_s=0.01, parallelism=8), ServiceModel(fixed_s=0.5, parallelism=8)
    async with (
        Emulator(model=quick) as one,
        Emulator(model=slow, deployments=one.deployments) as other,
    ):
        both = config(one.address, endpoints=(one.address, other.address), batching=BatchingConfig(fixed_size=5))
        async with AthenaClient(both, observers=[seen.append]) as client:
            results = await client.classify_many(inputs(600))
        assert all(result.ok for result in results)
    latencies = {
        address: [e.latency_s for e in seen if isinstance(e, BatchAnswered) and e.endpoint == address]
        for address in (one.address, other.address)
    }
    assert min(len(found) for found in latencies.values()) >= 10, "one of them had next to nothing"
    assert min(latencies[other.address]) >= 0.5
    assert statistics.median(latencies[one.address]) < 0.25


async def test_errors_of_images_count_against_no_endpoint() -> None:
    seen: list[Event] = []
    async with Emulator() as one, Emulator(deployments=one.deployments) as other:
        for emulator in (one, other):
            emulator.faults.update(image_errors=1.0)
        both = config(one.address, endpoints=(one.address, other.address), breaker=BREAKER)
        async with AthenaClient(both, observers=[seen.append]) as client:
            results = await client.classify_many(inputs(300))
            assert states(client) == ["CLOSED", "CLOSED"]
        assert not any(result.ok for result in results)
        assert not any(isinstance(event, EndpointEjected) for event in seen)


async def test_the_last_endpoint_is_never_ejected() -> None:
    async with Emulator() as one, Emulator(deployments=one.deployments) as other:
        settings: ClientConfig = config(one.address, endpoints=(one.address, other.address), breaker=BREAKER)
        async with AthenaClient(settings) as client:
            for emulator in (one, other):
                emulator.faults.update(refuse=1.0)
            work = asyncio.create_task(client.classify_many(inputs(50)))
            await until(lambda: "OPEN" in states(client))
            for _ in range(50):
                assert "CLOSED" in states(client)
                await asyncio.sleep(0.02)
            for emulator in (one, other):
                emulator.faults.update(refuse=0.0)
            assert all(result.ok for result in await work)


async def test_a_backend_that_is_added_gets_its_share_of_renewed_channels() -> None:
    """Behind a balancer of connections; where a name has several addresses each channel takes one by chance."""
    pool = PoolConfig(channels=2, max_age_s=0.5)
    async with (
        Emulator() as old,
        Emulator(deployments=old.deployments) as new,
        FaultProxy(old.address) as front,
        AthenaClient(config(front.address, pool=pool)) as client,
    ):
        assert all(result.ok for result in await client.classify_many(inputs(50)))
        front.targets.append(new.address)

        async def until_it_gets_some() -> None:
            while not new.audit.total:
                assert all(result.ok for result in await client.classify_many(inputs(50)))
                await asyncio.sleep(0.05)

        await asyncio.wait_for(until_it_gets_some(), 10.0)
        assert client.stats().resent_count == resends(old) == resends(new) == 0
