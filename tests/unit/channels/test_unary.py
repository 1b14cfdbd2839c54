from __future__ import annotations

import asyncio
import random

import pytest

from athena_async import wire
from athena_async._proto.athena import models_pb2
from athena_async.channels.channel import Access, CallFailed, Metadata
from athena_async.channels.unary import UnaryCalls
from athena_async.errors import CredentialsError, ErrorCode
from tests.unit.streams.fakes import ENDPOINT, FakeAccess, FakeTransport, good, settle
from tests.virtual_time import run_virtual

pytestmark = pytest.mark.anyio

FRAME = wire.frame_input("acme", "an-id", wire.Payload(b"pixels", wire.ImageFormat.RAW_UINT8_BGR))
REFUSED = CallFailed(ErrorCode.UNAUTHENTICATED, "token expired")


def single_answer() -> bytes:
    message = models_pb2.ClassificationOutput(correlation_id="an-id")
    message.classifications.add(label="UnknownCSAM-Ducks", weight=0.5)
    return message.SerializeToString()


def deployments(**backlogs: int) -> bytes:
    rows = [models_pb2.Deployment(deployment_id=name, backlog=backlog) for name, backlog in backlogs.items()]
    return models_pb2.ListDeploymentsResponse(deployments=rows).SerializeToString()


def made(*answers: bytes | CallFailed, token: bool = True) -> tuple[UnaryCalls, FakeTransport, FakeAccess]:
    transport = FakeTransport()
    transport.unary_answers.extend(answers)
    access = FakeAccess(transport, token=token)
    return UnaryCalls(access.access()), transport, access


async def code_of(unary: UnaryCalls) -> ErrorCode:
    with pytest.raises(CallFailed) as caught:
        await unary.classify_single(ENDPOINT, FRAME, 5.0)
    return caught.value.code


async def test_asks_and_reads_on_one_channel_per_endpoint() -> None:
    unary, transport, access = made(single_answer(), deployments(one=3, two=0))
    assert await unary.classify_single(ENDPOINT, FRAME, 5.0) == good("an-id")
    assert models_pb2.ClassificationInput.FromString(transport.unary_requests[0]).data == b"pixels"
    assert [(row.deployment_id, row.backlog) for row in await unary.list_deployments(ENDPOINT, 5.0)] == [
        ("one", 3),
        ("two", 0),
    ]
    assert access.connected == [ENDPOINT]


async def test_a_refused_token_is_renewed_and_tried_once_more() -> None:
    unary, _, access = made(REFUSED, single_answer())
    assert await unary.classify_single(ENDPOINT, FRAME, 5.0) == good("an-id")
    assert access.refused_tokens == [(("authorization", "Bearer 1"),)]
    unary, transport, access = made(REFUSED, REFUSED, single_answer())
    assert await code_of(unary) is ErrorCode.UNAUTHENTICATED
    assert len(transport.unary_requests) == 2
    unary, transport, _ = made(REFUSED, token=False)
    assert await code_of(unary) is ErrorCode.UNAUTHENTICATED
    assert len(transport.unary_requests) == 1, "without a token there is nothing to renew"


async def test_other_failures_are_raised_at_once() -> None:
    unary, transport, _ = made(CallFailed(ErrorCode.UNAVAILABLE, "down"))
    assert await code_of(unary) is ErrorCode.UNAVAILABLE
    assert len(transport.unary_requests) == 1


@pytest.mark.parametrize(("retryable", "code"), [(True, ErrorCode.UNAVAILABLE), (False, ErrorCode.UNAUTHENTICATED)])
async def test_credentials_that_cannot_be_had_fail_the_call(retryable: bool, code: ErrorCode) -> None:
    unary, transport, access = made()
    access.failure = CredentialsError("no token", retryable=retryable)
    assert await code_of(unary) is code
    assert transport.unary_requests == []


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\x05ab", b"\x0a\x02\xff\xfe"])
async def test_bytes_that_are_no_answer_fail_the_call_and_are_not_quoted(data: bytes) -> None:
    """Raised as they are, protobuf's errors would end the task that asks for the deployment's backlog."""
    unary, _, _ = made(data, data)
    with pytest.raises(CallFailed, match="bytes that are no answer") as caught:
        await unary.list_deployments(ENDPOINT, 5.0)
    assert caught.value.code is ErrorCode.INTERNAL
    assert await code_of(unary) is ErrorCode.INTERNAL


async def test_renewing_takes_a_new_channel() -> None:
    unary, transport, access = made(single_answer(), single_answer())
    await unary.classify_single(ENDPOINT, FRAME, 5.0)
    await unary.renew()
    assert transport.closed == 1
    await unary.classify_single(ENDPOINT, FRAME, 5.0)
    assert access.connected == [ENDPOINT] * 2


async def test_after_closing_no_channel_is_opened() -> None:
    """A retry may come after the client was closed; the channel that it opened would never be closed."""
    unary, transport, access = made(single_answer(), single_answer())
    await unary.classify_single(ENDPOINT, FRAME, 5.0)
    await unary.aclose()
    assert await code_of(unary) is ErrorCode.CLOSED
    assert (access.connected, transport.closed) == ([ENDPOINT], 1)


class HeldTransport(FakeTransport):
    """Answers when it is told to; calls under way when it is closed fail, as gRPC's do."""

    def __init__(self) -> None:
        super().__init__()
        self.told = asyncio.Event()

    async def classify_single(self, data: bytes, *, timeout_s: float, metadata: Metadata) -> bytes:
        self.unary_requests.append(data)
        await self.told.wait()
        if self.closed:
            raise CallFailed(ErrorCode.UNAVAILABLE, "the channel was closed on this side")
        return single_answer()

    async def aclose(self) -> None:
        await super().aclose()
        self.told.set()


class HeldAccess:
    """A new channel with each connection."""

    def __init__(self, transport: type[HeldTransport] = HeldTransport) -> None:
        self.made: list[HeldTransport] = []
        self._transport = transport

    def access(self) -> Access:
        return Access(self._connect, self._authorize, lambda _metadata: None)

    @property
    def closed(self) -> list[int]:
        return [transport.closed for transport in self.made]

    async def _connect(self, _endpoint: str) -> HeldTransport:
        self.made.append(self._transport())
        return self.made[-1]

    async def _authorize(self) -> Metadata:
        return ()


async def ask(unary: UnaryCalls) -> asyncio.Task[wire.Answer]:
    """A call that is under way."""
    task = asyncio.create_task(unary.classify_single(ENDPOINT, FRAME, 5.0))
    await settle()
    return task


async def test_renewing_leaves_calls_under_way_their_channel() -> None:
    access = HeldAccess()
    unary = UnaryCalls(access.access())
    first, second = await ask(unary), await ask(unary)
    await unary.renew()
    third = await ask(unary)
    assert access.closed == [0, 0]
    access.made[1].told.set()
    assert await third == good("an-id")
    first.cancel()
    await settle()
    assert access.closed == [0, 0], "a call is under way on the old one, and the new one is in use"
    access.made[0].told.set()
    assert await second == good("an-id")
    assert access.closed == [1, 0]
    assert [len(transport.unary_requests) for transport in access.made] == [2, 1], "nothing was asked twice"
    await unary.renew()
    assert access.closed == [1, 1]


def test_a_channel_that_grew_old_is_renewed_with_the_next_call() -> None:
    async def scene() -> None:
        access = HeldAccess()
        unary = UnaryCalls(access.access(), 100.0, random.Random(1))
        first = await ask(unary)
        await asyncio.sleep(79.0)
        second = await ask(unary)
        assert len(access.made) == 1, "an age is drawn within a fifth of the maximum"
        await asyncio.sleep(42.0)
        third = await ask(unary)
        assert [len(transport.unary_requests) for transport in access.made] == [2, 1]
        assert access.closed == [0, 0], "calls are under way on the old one"
        for transport in access.made:
            transport.told.set()
        await asyncio.gather(first, second, third)
        assert access.closed == [1, 0]
        await asyncio.sleep(121.0)
        last = await ask(unary)
        access.made[2].told.set()
        await last
        assert access.closed == [1, 1, 0]
        await unary.aclose()
        assert access.closed == [1, 1, 1]

    run_virtual(scene())


async def test_closing_ends_calls_under_way_on_renewed_channels_too() -> None:
    access = HeldAccess()
    unary = UnaryCalls(access.access())
    tasks = [await ask(unary)]
    await unary.renew()
    tasks.append(await ask(unary))
    await unary.aclose()
    assert access.closed == [1, 1]
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(end) for end in ends] == [CallFailed] * 2
    assert access.closed == [1, 1]


def test_closing_while_an_old_channel_is_closed_opens_none_in_its_place() -> None:
    class SlowToClose(HeldTransport):
        async def aclose(self) -> None:
            await asyncio.sleep(1.0)
            await super().aclose()

    async def scene() -> None:
        access = HeldAccess(SlowToClose)
        unary = UnaryCalls(access.access(), 100.0, random.Random(1))
        first = await ask(unary)
        access.made[0].told.set()
        await first
        await asyncio.sleep(121.0)
        second = await ask(unary)
        await unary.aclose()
        with pytest.raises(CallFailed):
            await second
        assert access.closed == [1]

    run_virtual(scene())


class SlowAccess:
    """Connects when it is told to."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.made: list[FakeTransport] = []

    def access(self) -> Access:
        return Access(self._connect, self._authorize, lambda _metadata: None)

    async def _connect(self, endpoint: str) -> FakeTransport:
        await self.gate.wait()
        transport = FakeTransport()
        transport.unary_answers.extend([single_answer()] * 2)
        self.made.append(transport)
        return transport

    async def _authorize(self) -> Metadata:
        return ()


async def test_two_first_calls_at_once_leave_one_channel() -> None:
    access = SlowAccess()
    unary = UnaryCalls(access.access())
    asking = [asyncio.create_task(unary.classify_single(ENDPOINT, FRAME, 5.0)) for _ in range(2)]
    await settle()
    access.gate.set()
    assert await asyncio.gather(*asking) == [good("an-id")] * 2
    assert [transport.closed for transport in access.made] == [0, 1]
    await unary.aclose()
    assert [transport.closed for transport in access.made] == [1, 1]


async def test_a_channel_that_comes_after_closing_is_closed() -> None:
    access = SlowAccess()
    unary = UnaryCalls(access.access())
    asking = asyncio.create_task(unary.classify_single(ENDPOINT, FRAME, 5.0))
    await settle()
    await unary.aclose()
    access.gate.set()
    with pytest.raises(CallFailed):
        await asking
    assert [transport.closed for transport in access.made] == [1]


async def test_a_channel_that_was_being_made_at_a_renewal_is_not_used() -> None:
    """It has the certificate of before."""
    access = SlowAccess()
    unary = UnaryCalls(access.access())
    asking = asyncio.create_task(unary.classify_single(ENDPOINT, FRAME, 5.0))
    await settle()
    await unary.renew()
    access.gate.set()
    assert await asking == good("an-id")
    assert [(transport.closed, len(transport.unary_requests)) for transport in access.made] == [(1, 0), (0, 1)]
