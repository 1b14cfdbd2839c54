"""The fault matrix over real sockets: the client, a TCP proxy that misbehaves, and the emulator as judge."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from athena_async import AthenaClient, Outcome, PoolConfig, RetryConfig
from athena_async.emulator import Emulator, ServiceModel
from athena_async.events import BatchSent, Event, PoolResized, StreamClosed, StreamOpened
from tests.faults.world import IMAGES, config, in_flight, inputs, of_kind, resends, world
from tests.waits import until

pytestmark = pytest.mark.anyio


async def test_without_a_fault_nothing_is_sent_twice() -> None:
    async with world(latency_s=0.01) as (emulator, _proxy, client, _seen):
        results = await client.classify_many(inputs(1000))
        assert all(result.ok for result in results)
        assert resends(emulator) == client.stats().resent_count == 0


async def test_a_reset_while_idle_resends_nothing() -> None:
    async with world() as (emulator, proxy, client, _seen):
        await client.classify_many(inputs(10))
        assert proxy.reset()
        results = await client.classify_many(inputs(10))
        assert all(result.ok for result in results)
        assert resends(emulator) == 0


async def test_a_reset_with_batches_in_flight_takes_the_answers_that_the_deployment_holds() -> None:
    async with world(latency_s=0.5) as (emulator, proxy, client, seen):
        work = asyncio.create_task(client.classify_many(inputs(48)))
        await in_flight(client)
        proxy.reset()
        results = await work
        assert all(result.ok for result in results)
        assert any(isinstance(event, StreamClosed) and event.possibly_sent for event in seen)
        assert resends(emulator) == 0, "the answers were kept for us: nothing had to be asked again"


async def test_requests_that_a_dying_stream_lost_are_sent_again_once() -> None:
    async with world() as (emulator, _proxy, client, _seen):
        emulator.faults.update(drop_loses_request=True)
        emulator.faults.inject("drop_streams", 2)
        results = await client.classify_many(inputs())
        assert all(result.ok for result in results)
        stats = client.stats()
        assert 0 < stats.resent_count <= IMAGES
        assert max(emulator.audit.sends().values()) <= 2


async def test_at_most_once_never_sends_again_and_says_unknown() -> None:
    retry = RetryConfig(at_most_once=True, grace_min_s=0.2, grace_max_s=1.0)
    async with world(retry=retry) as (emulator, _proxy, client, _seen):
        emulator.faults.update(drop_loses_request=True)
        emulator.faults.inject("drop_streams", 1)
        results = await client.classify_many(inputs())
        unknown = [result for result in results if result.outcome is Outcome.UNKNOWN]
        assert unknown
        assert all(result.ok for result in results if result not in unknown)
        assert all(result.attempts == 1 for result in results)
        assert client.stats().resent_count == 0


async def test_a_server_that_half_closes_with_images_open_is_a_disconnect() -> None:
    async with world() as (emulator, _proxy, client, seen):
        emulator.faults.inject("half_close", 1)
        results = await client.classify_many(inputs())
        assert all(result.ok for result in results)
        assert any(isinstance(event, StreamClosed) and event.possibly_sent for event in seen)


async def test_a_stream_that_hangs_keeps_no_room_from_the_others() -> None:
    async with world() as (emulator, _proxy, client, _seen):
        emulator.faults.inject("blackhole", 1)
        # What hangs is one batch, until it is given up in half a minute. The others go another way meanwhile.
        assert await asyncio.wait_for(take(client, IMAGES - 50), 10.0) == IMAGES - 50
        await client.aclose(drain_timeout_s=0.0)


async def take(client: AthenaClient, count: int) -> int:
    """Takes so many results of all images, and leaves the rest."""
    taken = 0
    async for result in client.stream(inputs()):
        assert result.ok
        taken += 1
        if taken == count:
            break
    return taken


async def test_an_omitted_answer_is_asked_for_again() -> None:
    async with world() as (emulator, _proxy, client, _seen):
        emulator.faults.inject("omit", 1)
        pool = PoolConfig(channels=2, probe_interval_s=0.1, silence_timeout_s=1.0)
        async with AthenaClient(replace(client.config, pool=pool)) as impatient:
            results = await impatient.classify_many(inputs())
        assert all(result.ok for result in results)
        assert resends(emulator) > 0


async def test_duplicates_reordering_and_foreign_answers_are_told_apart() -> None:
    async with world(latency_s=0.01) as (emulator, _proxy, client, _seen):
        emulator.faults.update(duplicate=0.5, reorder=0.5, foreign=0.5)
        results = await client.classify_many(inputs(500))
        assert all(result.ok for result in results)
        stats = client.stats()
        assert stats.late_count > 0
        assert stats.foreign_count > 0
        assert resends(emulator) == 0


async def test_go_away_is_followed_by_a_new_channel_and_nothing_is_sent_twice() -> None:
    """The old stream gets nothing new, and ends once what it carries is answered."""
    pool = PoolConfig(channels=1, probe_interval_s=0.1)
    async with world(latency_s=0.01, pool=pool) as (emulator, _proxy, client, seen):
        emulator.hold()
        carried = asyncio.create_task(client.classify_many(inputs(16)))
        await in_flight(client, 16)
        await emulator.go_away()
        await until(lambda: len(of_kind(seen, StreamOpened)) == 2, 5.0, "no new channel was opened")
        old, new = (event.channel_id for event in of_kind(seen, StreamOpened))
        left = [event for event in of_kind(seen, PoolResized) if event.reason == "server going away"]
        assert left == [] or left[0].at_s >= of_kind(seen, StreamOpened)[1].at_s, "nothing was open meanwhile"
        await asyncio.sleep(0.5)  # two ticks: time enough to end the old stream too soon
        assert of_kind(seen, StreamClosed) == [], "the old stream still has images"
        later = asyncio.create_task(client.classify_many(inputs(40)))
        emulator.release()
        results = await carried + await later
        await until(lambda: of_kind(seen, StreamClosed) != [], 5.0, "the old stream did not end")
        assert all(result.ok and result.attempts == 1 for result in results)
        assert resends(emulator) == 0
        sent = [event.channel_id for event in of_kind(seen, BatchSent)]
        assert sent == [old] + [new] * (len(sent) - 1)
        (closed,) = of_kind(seen, StreamClosed)
        assert (closed.channel_id, closed.code, closed.possibly_sent) == (old, "OK", 0)


async def test_slices_of_seven_bytes_change_nothing() -> None:
    async with world(latency_s=0.01) as (_emulator, proxy, client, _seen):
        proxy.slice_bytes = 7
        results = await client.classify_many(inputs(20))
        assert all(result.ok for result in results)


async def test_a_service_that_is_away_at_first_is_waited_for() -> None:
    async with world() as (_emulator, proxy, client, _seen):
        proxy.refusing = True
        work = asyncio.create_task(client.classify_many(inputs(10)))
        await asyncio.sleep(0.5)
        proxy.refusing = False
        results = await work
        assert all(result.ok for result in results)


async def test_a_connection_that_takes_long_to_make_is_waited_for() -> None:
    """A slow link, or a server too busy for handshakes: an attempt given up early is made again and again."""
    async with world() as (_emulator, proxy, client, seen):
        proxy.pause_s = 1.4
        work = asyncio.create_task(client.classify_many(inputs(10)))
        await until(lambda: of_kind(seen, StreamOpened) != [], 10.0, "no connection was made")
        proxy.pause_s = 0.0
        results = await work
        assert all(result.ok for result in results)
        assert proxy.accepted_count == 2, "one for each channel"


async def test_a_service_that_stays_away_fails_at_the_deadline_and_says_why() -> None:
    async with world(timeout_s=1.0) as (_emulator, proxy, client, _seen):
        proxy.refusing = True
        results = await client.classify_many(inputs(10))
        assert {result.outcome for result in results} == {Outcome.FAILED}
        assert {str(result.error.code) for result in results if result.error} == {"UNAVAILABLE"}
        assert all(result.attempts == 0 for result in results)


async def test_an_emulator_that_is_killed_and_comes_back_loses_nothing_of_ours() -> None:
    async with world(latency_s=0.3) as (emulator, _proxy, client, _seen):
        work = asyncio.create_task(client.classify_many(inputs(64)))
        await in_flight(client)
        await emulator.kill()
        await emulator.start()
        results = await work
        assert all(result.ok for result in results)
        assert max(emulator.audit.sends().values()) <= 2


async def test_a_global_error_never_fails_an_innocent_image() -> None:
    """P8."""
    async with (
        Emulator(affiliates=["good"], model=ServiceModel(fixed_s=0.05, parallelism=64)) as emulator,
        AthenaClient(config(emulator.address, affiliate="good")) as client,
    ):
        images = inputs(200)
        poisoned = {17, 90, 91, 150}
        for index in poisoned:
            images[index] = replace(images[index], affiliate="bad")
        results = await client.classify_many(images)
        failed = {result.index for result in results if not result.ok}
        assert failed == poisoned
        codes = {str(result.error.code) for result in results if result.error is not None}
        assert codes == {"AFFILIATE_NOT_PERMITTED"}


async def test_model_errors_are_retried_twice_and_then_final() -> None:
    async with world(latency_s=0.01, retry=RetryConfig(base_s=0.01, cap_s=0.05)) as (emulator, _proxy, client, _seen):
        emulator.faults.update(image_errors=1.0)
        results = await client.classify_many(inputs(20))
        assert {str(result.error.code) for result in results if result.error} == {"MODEL_ERROR"}
        assert {result.attempts for result in results} == {3}
        assert resends(emulator) == client.stats().resent_count == 40


async def test_a_message_refused_as_too_large_is_split_and_remembered() -> None:
    pytest.importorskip("numpy")
    import numpy as np

    frame = np.zeros((448, 448, 3), np.uint8)
    seen: list[Event] = []
    async with (
        Emulator(max_message_bytes=1_300_000) as emulator,
        AthenaClient(config(emulator.address), observers=[seen.append]) as client,
    ):
        results = await client.classify_many([frame] * 12)
        assert all(result.ok for result in results)
        assert {result.attempts for result in results} == {1}, "refused unread: that was no attempt"
        assert client.stats().controllers[emulator.address].size_bytes < 1_300_000
        refused = sum(isinstance(event, StreamClosed) for event in seen)
        assert refused
        await client.classify_many([frame] * 6)
        assert sum(isinstance(event, StreamClosed) for event in seen) == refused


async def test_an_image_that_alone_is_too_large_is_final() -> None:
    pytest.importorskip("numpy")
    import numpy as np

    frame = np.zeros((448, 448, 3), np.uint8)
    async with (
        Emulator(max_message_bytes=100_000) as emulator,
        AthenaClient(config(emulator.address, timeout_s=10.0)) as client,
    ):
        async with asyncio.timeout(5.0):
            results = await client.classify_many([frame, *inputs(20)])
        assert str(results[0].error and results[0].error.code) == "IMAGE_TOO_LARGE"
        assert all(result.ok for result in results[1:])


async def test_foreign_answers_are_handed_over() -> None:
    """P7: clients of one deployment get each other's answers, and none is dropped."""
    async with Emulator(model=ServiceModel(fixed_s=0.05, parallelism=64)) as emulator:
        shared = config(emulator.address, deployment_id="shared", timeout_s=3.0)
        clients = [AthenaClient(shared) for _ in range(3)]
        async with clients[0], clients[1], clients[2]:
            found: set[str] = set()
            twice: set[str] = set()

            async def collect(client: AthenaClient) -> None:
                async for result in client.foreign_results():
                    twice.update({result.correlation_id} & found)
                    found.add(result.correlation_id)

            collectors = [asyncio.create_task(collect(client)) for client in clients]
            all_results = await asyncio.gather(*(client.classify_many(inputs(100)) for client in clients))
            elsewhere = {r.correlation_id for results in all_results for r in results if not r.ok and r.attempts}
            # On a slow machine an answer may reach its own client after the deadline.
            await until(lambda: len(elsewhere - found) <= sum(client.stats().late_count for client in clients))
            for collector in collectors:
                collector.cancel()
            assert elsewhere
            assert not twice
            assert resends(emulator) == 0, "an answer that another client has is not asked for again"
            assert not any(client.stats().foreign_dropped_count for client in clients)


@pytest.mark.parametrize("code", ["UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "ABORTED"])
async def test_a_stream_that_ends_with_a_status_is_a_disconnect(code: str) -> None:
    async with world() as (emulator, _proxy, client, _seen):
        emulator.faults.update(drop_code=code)
        emulator.faults.inject("drop_streams", 2)
        results = await client.classify_many(inputs())
        assert all(result.ok for result in results)
        assert resends(emulator) == 0, "the requests were read, and the deployment kept their answers"


async def test_a_connection_half_closed_by_the_peer_is_a_disconnect() -> None:
    async with world(latency_s=0.3) as (emulator, proxy, client, _seen):
        work = asyncio.create_task(client.classify_many(inputs()))
        await in_flight(client)
        proxy.half_close()
        results = await work
        assert all(result.ok for result in results)
        assert resends(emulator) == 0


async def test_an_event_loop_that_stood_still_reads_before_it_gives_up_or_resends() -> None:
    async with world(latency_s=0.3, timeout_s=1.0) as (emulator, _proxy, client, _seen):
        work = asyncio.create_task(client.classify_many(inputs(16)))
        await in_flight(client, 16)
        # The emulator shares this loop, so its answers come only after the stall, as late as can be.
        time.sleep(1.5)
        results = await work
        assert all(result.ok for result in results)
        assert resends(emulator) == 0
