"""What each call of the client promises beside results: what it raises, shows and ends with."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from athena_async import (
    AthenaClient,
    BatchingConfig,
    ClassificationError,
    ClientClosedError,
    ClientConfig,
    ErrorCode,
    ImageInput,
    Outcome,
    RetryConfig,
    RpcError,
)
from athena_async.emulator import Emulator, EmulatorConfig, FaultPlan, ServiceModel
from athena_async.events import BatchSent, Event, ImagesAccepted, ImagesSettled, Opened
from tests.integration.client.world import (
    MD5,
    assert_classified,
    codes,
    config,
    distance,
    hashes,
    photograph,
    service,
    until,
)

pytestmark = pytest.mark.anyio

PHOTO = photograph("astronaut.png")


async def test_classify_returns_the_result_or_raises_its_error(client: AthenaClient) -> None:
    result = await client.classify(PHOTO)
    assert result.ok
    assert result.index == 0
    assert result.top is not None
    assert result.pcsam is not None
    assert result.latency_s > 0
    with pytest.raises(ClassificationError) as raised:
        await client.classify(b"no image")
    assert raised.value.code is ErrorCode.UNSUPPORTED_FORMAT
    with pytest.raises(ClassificationError) as raised:
        await client.classify(ImageInput(data=b"no image", correlation_id="mine"))
    assert raised.value.correlation_id == "mine"


async def test_classify_raises_what_the_service_says() -> None:
    faults = FaultPlan(image_errors=1.0, image_error_code="MODEL_ERROR")
    retry = RetryConfig(base_s=0.01, cap_s=0.02)
    async with service(EmulatorConfig(faults=faults), retry=retry) as (client, emulator):
        with pytest.raises(ClassificationError) as raised:
            await client.classify(PHOTO)
        assert raised.value.code is ErrorCode.MODEL_ERROR
        assert raised.value.retryable
        assert emulator.audit.total == 3, "two retries after the first"


async def test_an_image_without_answer_in_time_is_unknown() -> None:
    async with service(EmulatorConfig(model=ServiceModel(fixed_s=30.0)), timeout_s=0.5) as (client, _):
        (result,) = await client.classify_many(hashes(1))
        assert result.outcome is Outcome.UNKNOWN
        assert codes([result]) == [ErrorCode.DEADLINE_EXCEEDED]
        assert "may have been classified" in str(result.error)
        with pytest.raises(ClassificationError):
            await client.classify(hashes(1)[0])


async def test_classify_single_is_a_call_of_its_own(client: AthenaClient) -> None:
    single, streamed = await client.classify_single(PHOTO), await client.classify(PHOTO)
    assert distance(single, streamed) < 1e-6
    (known,) = (await client.classify_single(ImageInput(md5=MD5, correlation_id="mine"))).classifications
    assert known == ("KnownCSAM-MD5", 0.0)
    with pytest.raises(ClassificationError) as raised:
        await client.classify_single(b"no image")
    assert raised.value.code is ErrorCode.UNSUPPORTED_FORMAT
    assert client.stats().in_flight_bytes == 0, "places in the limit were given back"


async def test_classify_single_opens_no_stream() -> None:
    async with service(EmulatorConfig(affiliates=("acme",))) as (client, emulator):
        await client.classify_single(PHOTO)
        with pytest.raises(ClassificationError) as raised:
            await client.classify_single(ImageInput(data=object(), affiliate="stranger"))
        assert raised.value.code is ErrorCode.INVALID_INPUT
        with pytest.raises(ClassificationError) as raised:
            await client.classify_single(ImageInput(path=PHOTO, affiliate="stranger"))
        assert raised.value.code is ErrorCode.AFFILIATE_NOT_PERMITTED
        assert emulator.live_streams == 0
        assert {record.rpc for record in emulator.audit.records} == {"ClassifySingle"}


async def test_deployments_are_listed_with_their_backlog() -> None:
    async with service(deployment_id="ours") as (client, emulator):
        assert client.stats().backlog is None
        assert await client.list_deployments() == []
        assert client.stats().backlog == 0
        emulator.hold()
        waiting = asyncio.ensure_future(client.classify_many(hashes(7)))
        await until(lambda: emulator.audit.total == 7)
        (row,) = await client.list_deployments()
        assert (row.deployment_id, row.backlog) == ("ours", 7)
        assert client.stats().backlog == 7
        emulator.release()
        assert_classified(await waiting, 7)
        (row,) = await client.list_deployments()
        assert (row.deployment_id, row.backlog) == ("ours", 0)


async def test_deployments_of_nobody_are_an_error() -> None:
    async with service() as (client, emulator):
        await emulator.stop()
        with pytest.raises(RpcError) as raised:
            await client.list_deployments()
        assert raised.value.code is ErrorCode.UNAVAILABLE


async def test_stats_tell_where_images_are() -> None:
    many_at_once = BatchingConfig(fixed_size=50)  # the adaptive one begins with a single batch in flight
    async with service(deployment_id="ours", batching=many_at_once) as (client, emulator):
        before = client.stats()
        assert (before.accepted_count, before.settled_count, before.in_flight_bytes) == (0, 0, 0)
        assert (before.deployment_id, before.channels, before.backlog) == ("ours", (), None)
        emulator.hold()
        waiting = asyncio.ensure_future(client.classify_many([*hashes(20), b"no image", PHOTO]))
        await until(lambda: emulator.audit.total == 21)
        during = client.stats()
        assert (during.accepted_count, during.settled_count) == (22, 1)
        assert (during.preparing_count, during.ready_count, during.sent_count, during.orphan_count) == (0, 0, 21, 0)
        assert during.in_flight_bytes > during.sent_bytes / 2 > 0
        assert sum(channel.images for channel in during.channels) == 21
        emulator.release()
        await waiting
        after = client.stats()
    assert after.outcomes == {Outcome.CLASSIFIED: 21, Outcome.FAILED: 1}
    assert after.errors == {ErrorCode.UNSUPPORTED_FORMAT: 1}
    assert (after.settled_count, after.sent_count, after.in_flight_bytes) == (22, 0, 0)
    assert (after.resent_count, after.late_count, after.foreign_count, after.foreign_dropped_count) == (0, 0, 0, 0)
    assert [health.endpoint for health in after.endpoints] == [emulator.address]
    assert all(channel.state == "OPEN" and channel.size_bytes == 0 for channel in after.channels)
    assert client.stats().settled_count == 22, "the last word stays readable"


async def test_no_image_in_flight_is_missing_from_the_stats() -> None:
    seen: list[tuple[int, int]] = []
    opened: list[AthenaClient] = []

    def note(event: Event) -> None:
        if isinstance(event, BatchSent):
            now = opened[0].stats()
            places = now.preparing_count + now.ready_count + now.sent_count + now.orphan_count
            seen.append((places, now.accepted_count - now.settled_count))

    async with Emulator() as emulator, AthenaClient(config(emulator), observers=[note]) as client:
        opened.append(client)
        assert_classified(await client.classify_many([PHOTO] * 12), 12)
    assert seen[0] == (12, 12)
    assert [pair for pair in seen if pair[0] != pair[1]] == []


async def test_answers_to_another_client_are_handed_over() -> None:
    """One client asks, and its answers are held until another one of the same deployment is all that is connected."""
    async with Emulator() as emulator:
        emulator.hold()
        asking = AthenaClient(config(emulator, deployment_id="shared"))
        async with AthenaClient(config(emulator, deployment_id="shared")) as reading:
            async with asking:
                waiting = asyncio.ensure_future(asking.classify_many(hashes(5)))
                await until(lambda: emulator.audit.total == 5)
                report = await asking.aclose(drain_timeout_s=0.0)
            asked = await waiting
            assert {result.outcome for result in asked} == {Outcome.UNKNOWN}
            ids = [result.correlation_id for result in asked]
            assert (report.failed, sorted(report.unknown)) == ((), sorted(ids))
            await until(lambda: emulator.live_streams == 0)  # an answer written to a dying stream would be gone
            emulator.release()
            found = [result async for result in first(reading.foreign_results(), 5)]
            assert sorted(result.correlation_id for result in found) == sorted(ids)
            assert all(result.ok and result.index == -1 for result in found)
            assert reading.stats().foreign_count == 5
            assert_classified(await reading.classify_many(hashes(5)), 5)
            ending = asyncio.ensure_future(anext(reading.foreign_results()))
            await asyncio.sleep(0)
        with pytest.raises(StopAsyncIteration):
            await ending


async def first(source: Any, count: int) -> Any:
    """The first ``count`` of an endless generator, which is closed then."""
    for _ in range(count):
        yield await anext(source)
    await source.aclose()


async def calls(client: AthenaClient) -> list[BaseException]:
    """What each call raises."""
    found: list[BaseException] = []
    for call in (
        client.classify(PHOTO),
        client.classify_many([PHOTO]),
        client.classify_single(PHOTO),
        client.list_deployments(),
        anext(client.stream([PHOTO])),
        anext(client.foreign_results()),
    ):
        with pytest.raises(ClientClosedError) as raised:
            await call
        found.append(raised.value)
    return found


async def test_a_client_that_is_not_open_says_so() -> None:
    async with Emulator() as emulator:
        client = AthenaClient(config(emulator))
        assert repr(client).endswith("closed)")
        with pytest.raises(ClientClosedError, match="never entered"):
            client.stats()
        assert {str(error) for error in await calls(client)} == {
            "the client is not open: use `async with AthenaClient(...)`"
        }
        assert (await client.aclose()).left_count == 0
        async with client:
            assert repr(client).endswith("open)")
            with pytest.raises(ClientClosedError, match="entered once"):
                await client.__aenter__()
            assert (await client.classify(PHOTO)).ok, "the second attempt to enter did no harm"
        assert {str(error) for error in await calls(client)} == {"the client was closed"}
        with pytest.raises(ClientClosedError, match="entered once"):
            await client.__aenter__()


async def test_leaving_waits_for_what_is_in_flight() -> None:
    async with service(EmulatorConfig(model=ServiceModel(fixed_s=0.3))) as (client, emulator):
        waiting = asyncio.ensure_future(client.classify_many(hashes(50)))
        await until(lambda: emulator.audit.total or client.stats().sent_count)
        report = await client.aclose()
        assert report.left_count == 0
        assert_classified(await waiting, 50)


async def test_whoever_closes_second_waits_for_the_first() -> None:
    """A handler of signals drains while the program's own block is left: the loop must not end under it."""
    async with service() as (client, emulator):
        emulator.hold()
        waiting = asyncio.ensure_future(client.classify_many(hashes(5)))
        await until(lambda: emulator.audit.total == 5)
        first = asyncio.ensure_future(client.aclose(drain_timeout_s=5.0))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(client.aclose(drain_timeout_s=0.0))
        await asyncio.sleep(0.05)
        assert not first.done()
        assert not second.done()
        emulator.release()
        assert ((await first).left_count, (await second).left_count) == (0, 0)
        assert_classified(await waiting, 5)


async def test_closing_fails_what_waits_to_be_sent_again_after_an_error() -> None:
    """The service said that there is no score, so it is not unknown whether there is."""
    faults = FaultPlan(image_errors=1.0, image_error_code="MODEL_ERROR")
    async with service(EmulatorConfig(faults=faults), retry=RetryConfig(base_s=8.0), timeout_s=60.0) as (
        client,
        emulator,
    ):
        waiting = asyncio.ensure_future(client.classify_many(hashes(1)))
        await until(lambda: client.stats().sent_bytes and not client.stats().sent_count)
        report = await client.aclose(drain_timeout_s=0.0)
        (result,) = await waiting
    assert (result.outcome, result.attempts) == (Outcome.FAILED, 1)
    assert (report.failed, report.unknown) == ((result.correlation_id,), ())


async def test_observers_get_events_and_a_failing_one_harms_nobody() -> None:
    seen: list[Event] = []
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    def failing(event: Event) -> None:
        raise ValueError(f"no liking for {type(event).__name__}")

    async with (
        Emulator() as emulator,
        AthenaClient(config(emulator, deployment_id="ours"), observers=[failing, seen.append]) as client,
    ):
        assert_classified(await client.classify_many([*hashes(30), PHOTO]), 31)
    assert isinstance(seen[0], Opened)
    assert seen[0].deployment_id == "ours"
    assert sum(event.count for event in seen if isinstance(event, ImagesAccepted)) == 31
    assert sum(event.images for event in seen if isinstance(event, BatchSent)) == 31
    assert sum(sum(event.outcomes.values()) for event in seen if isinstance(event, ImagesSettled)) == 31
    assert len(reported) == len(seen)
    assert {context["message"] for context in reported} >= {"an observer failed on Opened"}
    assert all(isinstance(context["exception"], ValueError) for context in reported)


async def test_a_service_that_is_away_is_no_hindrance_to_entering() -> None:
    async with AthenaClient(ClientConfig(endpoints=("127.0.0.1:9",), tls=False, timeout_s=0.5)) as client:
        results = await client.classify_many(hashes(3))
    assert {result.outcome for result in results} == {Outcome.FAILED}, "nothing can have been sent"
    assert set(codes(results)) == {ErrorCode.UNAVAILABLE}
    assert all(result.attempts == 0 for result in results)
