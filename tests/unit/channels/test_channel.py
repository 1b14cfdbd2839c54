"""What grpc.aio makes of a call, and what the channel makes of that: a real server, port 0."""

from __future__ import annotations

import asyncio
import functools
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import grpc
import pytest

from athena_async import wire
from athena_async.channels.channel import CLIENT_METADATA, CallFailed, GrpcTransport, Metadata, channel_options
from athena_async.config import PoolConfig
from athena_async.errors import ErrorCode
from tests.waits import soon

pytestmark = pytest.mark.anyio

Stream = Callable[[Any], Awaitable[None]]
TOKEN: Metadata = (("authorization", "Bearer a-token-that-is-secret"),)


class Service(grpc.GenericRpcHandler):
    """Plays the scene that a test sets."""

    def __init__(self) -> None:
        self.stream: Stream = self._silent
        self.unary: Callable[[bytes, Any], Awaitable[bytes]] = self._echo
        self.endpoint = ""
        self.metadata: dict[str, str] = {}
        self.cancelled = asyncio.Event()
        self.called = asyncio.Event()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        self.metadata = dict(details.invocation_metadata)
        if details.method == wire.CLASSIFY:
            return grpc.stream_stream_rpc_method_handler(self._stream)
        return grpc.unary_unary_rpc_method_handler(self._unary)

    async def _stream(self, _requests: Any, context: Any) -> None:
        self.called.set()
        try:
            await self.stream(context)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def _unary(self, request: bytes, context: Any) -> bytes:
        self.called.set()
        try:
            return await self.unary(request, context)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def _silent(self, context: Any) -> None:
        await asyncio.Event().wait()

    async def _echo(self, request: bytes, context: Any) -> bytes:
        return request


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[Service, GrpcTransport]]:
    """A server, and a channel to it."""
    service = Service()
    server = grpc.aio.server(handlers=[service])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    service.endpoint = f"127.0.0.1:{port}"
    transport = GrpcTransport(service.endpoint, PoolConfig(), None)
    try:
        yield service, transport
    finally:
        await transport.aclose()
        await server.stop(None)


async def failure_of(operation: Awaitable[object]) -> CallFailed:
    with pytest.raises(CallFailed) as caught:
        await operation
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(caught.value)
    assert caught.value.__cause__ is None, "gRPC's own error may quote metadata"
    return caught.value


async def test_a_call_carries_its_metadata_and_bytes_both_ways() -> None:
    async with serving() as (service, transport):

        async def echo(context: Any) -> None:
            while (request := await context.read()) is not grpc.aio.EOF:
                await context.write(request[::-1])

        service.stream = echo
        call = transport.open_stream(TOKEN)
        await call.connected()
        await call.write(b"abc")
        assert await call.read() == b"cba"
        await call.write(b"")
        assert await call.read() == b""
        await call.done_writing()
        assert await call.read() is None, "the server half-closed in peace"
        assert await call.read() is None
        assert {**dict(CLIENT_METADATA), **dict(TOKEN)}.items() <= service.metadata.items()


STATUSES = [
    (grpc.StatusCode.UNAVAILABLE, ErrorCode.UNAVAILABLE),
    (grpc.StatusCode.DEADLINE_EXCEEDED, ErrorCode.DEADLINE_EXCEEDED),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, ErrorCode.RESOURCE_EXHAUSTED),
    (grpc.StatusCode.UNAUTHENTICATED, ErrorCode.UNAUTHENTICATED),
    (grpc.StatusCode.PERMISSION_DENIED, ErrorCode.PERMISSION_DENIED),
    (grpc.StatusCode.INVALID_ARGUMENT, ErrorCode.INVALID_ARGUMENT),
    (grpc.StatusCode.NOT_FOUND, ErrorCode.NOT_FOUND),
    (grpc.StatusCode.UNIMPLEMENTED, ErrorCode.UNIMPLEMENTED),
    (grpc.StatusCode.ABORTED, ErrorCode.UNAVAILABLE),
    (grpc.StatusCode.CANCELLED, ErrorCode.UNAVAILABLE),
    (grpc.StatusCode.INTERNAL, ErrorCode.INTERNAL),
    (grpc.StatusCode.DATA_LOSS, ErrorCode.INTERNAL),
]


@pytest.mark.parametrize(("status", "code"), STATUSES)
async def test_maps_every_status_on_stream_and_unary_alike(status: grpc.StatusCode, code: ErrorCode) -> None:
    async with serving() as (service, transport):

        async def refuse(context: Any) -> None:
            await context.abort(status, "the server's words")

        async def refuse_unary(_request: bytes, context: Any) -> bytes:
            await context.abort(status, "the server's words")
            raise AssertionError

        service.stream, service.unary = refuse, refuse_unary
        call = transport.open_stream(TOKEN)
        for operation in (
            call.read(),
            transport.list_deployments(timeout_s=5.0, metadata=TOKEN),
            transport.classify_single(b"x", timeout_s=5.0, metadata=TOKEN),
        ):
            failure = await failure_of(operation)
            assert (failure.code, failure.message) == (code, "the server's words")


async def test_a_status_without_words_says_its_name() -> None:
    async with serving() as (service, transport):

        async def refuse(context: Any) -> None:
            await context.abort(grpc.StatusCode.NOT_FOUND)

        service.stream = refuse
        assert (await failure_of(transport.open_stream(()).read())).message == "NOT_FOUND"


@pytest.mark.parametrize(("value", "seconds"), [("2500", 2.5), ("0", 0.0), ("-5", -0.005)])
async def test_reads_the_servers_pushback(value: str, seconds: float) -> None:
    async with serving() as (service, transport):

        async def busy(context: Any) -> None:
            context.set_trailing_metadata((("grpc-retry-pushback-ms", value),))
            await context.abort(grpc.StatusCode.UNAVAILABLE, "busy")

        service.stream = busy
        assert (await failure_of(transport.open_stream(()).read())).pushback_s == seconds


async def test_a_pushback_that_is_no_number_means_not_again() -> None:
    async with serving() as (service, transport):

        async def busy(context: Any) -> None:
            context.set_trailing_metadata((("grpc-retry-pushback-ms", "soon"),))
            await context.abort(grpc.StatusCode.UNAVAILABLE, "busy")

        service.stream = busy
        pushback_s = (await failure_of(transport.open_stream(()).read())).pushback_s
        assert pushback_s is not None
        assert pushback_s < 0.0


async def test_a_status_that_comes_while_writing_is_not_masked() -> None:
    """grpc.aio reports INTERNAL for a write that fails; the truth is read after it."""
    async with serving() as (service, transport):

        async def refuse_after_reading(context: Any) -> None:
            await context.read()
            context.set_trailing_metadata((("grpc-retry-pushback-ms", "1500"),))
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "token expired")

        service.stream = refuse_after_reading
        for _ in range(5):
            call = transport.open_stream(TOKEN)
            failures: list[CallFailed] = []

            async def write(call: Any = call, failures: list[CallFailed] = failures) -> None:
                async def for_ever() -> None:
                    while True:
                        await call.write(bytes(512 * 1024))

                failures.append(await failure_of(for_ever()))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(write)
                failure = await failure_of(call.read())
            assert (failure.code, failure.message) == (ErrorCode.UNAUTHENTICATED, "token expired")
            assert failure.pushback_s == 1.5
            assert [found.code for found in failures] == [ErrorCode.UNAUTHENTICATED]


async def test_writing_to_a_call_that_is_over_tells_its_status() -> None:
    async with serving() as (service, transport):

        async def refuse(context: Any) -> None:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "not yours")

        service.stream = refuse
        call = transport.open_stream(TOKEN)
        await failure_of(call.read())
        for _ in range(2):
            failure = await failure_of(call.write(b"x"))
            assert (failure.code, failure.message) == (ErrorCode.PERMISSION_DENIED, "not yours")


async def test_writing_after_the_server_ended_in_peace_is_a_lost_connection() -> None:
    async with serving() as (service, transport):

        async def end(context: Any) -> None:
            return

        service.stream = end
        call = transport.open_stream(())
        assert await call.read() is None
        assert (await failure_of(call.write(b"x"))).code is ErrorCode.UNAVAILABLE


async def test_a_message_that_is_too_large_tells_both_sizes() -> None:
    async with serving() as (service, transport):

        async def reading(context: Any) -> None:
            while await context.read() is not grpc.aio.EOF:
                pass

        service.stream = reading
        call = transport.open_stream(())
        await call.connected()
        size_bytes = 4 * 1024 * 1024 + 1
        await call.write(bytes(size_bytes))
        failure = await failure_of(call.read())
        assert failure.code is ErrorCode.RESOURCE_EXHAUSTED
        assert failure.refused_size == (size_bytes, 4 * 1024 * 1024)


@pytest.mark.parametrize(
    "message",
    [
        "SERVER: Received message larger than max (5242880 vs. 4194304)",
        "grpc: received message larger than max (5242880 vs 4194304)",
        "gRPC message exceeds maximum size 4194304: 5242880",
        "Error, decoded message length too large: found 5242880 bytes, the limit is: 4194304 bytes",
    ],
)
def test_a_refused_size_is_known_in_the_words_of_several_servers(message: str) -> None:
    assert CallFailed(ErrorCode.RESOURCE_EXHAUSTED, message).refused_size == (5242880, 4194304)


@pytest.mark.parametrize(
    "message", ["Received message exceeds the maximum configured message size.", "request message is too large"]
)
def test_a_refused_size_may_be_named_without_a_number(message: str) -> None:
    assert CallFailed(ErrorCode.RESOURCE_EXHAUSTED, message).refused_size == (None, None)


@pytest.mark.parametrize(
    "message",
    [
        "quota",
        "the message queue is too large",
        "message backlog too large, retry later",
        "message rate exceeds the maximum of 100/s",
        "busy",
    ],
)
def test_other_exhaustion_is_not_about_size(message: str) -> None:
    assert CallFailed(ErrorCode.RESOURCE_EXHAUSTED, message).refused_size is None


def test_other_codes_are_not_about_size() -> None:
    assert CallFailed(ErrorCode.INTERNAL, "larger than max (5 vs. 4)").refused_size is None


async def test_nobody_listens() -> None:
    transport = GrpcTransport("127.0.0.1:1", PoolConfig(), None)
    try:
        call = transport.open_stream(())
        assert (await failure_of(call.connected())).code is ErrorCode.UNAVAILABLE
        unary = transport.list_deployments(timeout_s=5.0, metadata=())
        assert (await failure_of(unary)).code is ErrorCode.UNAVAILABLE
    finally:
        await transport.aclose()


async def test_a_service_that_comes_back_is_found_soon() -> None:
    """Between two attempts to connect gRPC fails every call at once, so its backoff must be shorter than ours."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{free.getsockname()[1]}"
    transport = GrpcTransport(endpoint, PoolConfig(), None)
    await failure_of(transport.list_deployments(timeout_s=5.0, metadata=()))
    server = grpc.aio.server(handlers=[Service()])
    server.add_insecure_port(endpoint)
    await server.start()

    async def found() -> None:
        while True:
            try:
                await transport.list_deployments(timeout_s=5.0, metadata=())
            except CallFailed:
                await asyncio.sleep(0.01)
            else:
                return

    await soon(found(), 0.5, "it was not found")
    await transport.aclose()
    await server.stop(None)


async def test_grpc_sends_nothing_again_by_itself_even_where_it_is_told_to() -> None:
    """Every resend may be billed, so none may be made behind our account's back."""
    retry = {"maxAttempts": 3, "initialBackoff": "0.01s", "maxBackoff": "0.01s", "backoffMultiplier": 1}
    policy = {"methodConfig": [{"name": [{}], "retryPolicy": retry | {"retryableStatusCodes": ["UNAVAILABLE"]}}]}
    calls = 0

    async def turn_away(_request: bytes, context: Any) -> bytes:
        nonlocal calls
        calls += 1
        await context.abort(grpc.StatusCode.UNAVAILABLE, "busy")
        return b""

    async with serving() as (service, _):
        service.unary = turn_away
        service.stream = functools.partial(turn_away, b"")  # type: ignore[assignment]
        transport = GrpcTransport(
            service.endpoint, PoolConfig(), None, options=[("grpc.service_config", json.dumps(policy))]
        )
        failure = await failure_of(transport.classify_single(b"x", timeout_s=5.0, metadata=()))
        assert (failure.code, calls) == (ErrorCode.UNAVAILABLE, 1)
        failure = await failure_of(transport.open_stream(()).read())
        assert (failure.code, calls) == (ErrorCode.UNAVAILABLE, 2)
        await transport.aclose()


async def test_an_answer_larger_than_grpcs_own_limit_is_read() -> None:
    async with serving() as (service, transport):

        async def answer(_request: bytes, _context: Any) -> bytes:
            return bytes(5 * 2**20)

        service.unary = answer
        assert len(await transport.list_deployments(timeout_s=5.0, metadata=())) == 5 * 2**20


async def test_ending_the_call_on_our_side_fails_reader_and_writer_and_cancels_nobody() -> None:
    async with serving() as (service, transport):
        call = transport.open_stream(())
        await call.connected()
        failures = []

        async def use(operation: Awaitable[object]) -> None:
            failures.append(await failure_of(operation))

        async def write() -> None:
            while True:
                await call.write(bytes(1024 * 1024))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(use, call.read())
            tasks.start_soon(use, write())
            await anyio.sleep(0.2)
            call.cancel()
        assert [failure.code for failure in failures] == [ErrorCode.UNAVAILABLE] * 2
        assert {failure.message for failure in failures} == {"the call was ended on this side"}
        assert (await failure_of(call.read())).code is ErrorCode.UNAVAILABLE
        assert (await failure_of(call.write(b"x"))).code is ErrorCode.UNAVAILABLE
        await asyncio.wait_for(service.cancelled.wait(), 5.0)


async def test_cancelling_the_task_is_a_cancellation_and_ends_the_call() -> None:
    async with serving() as (service, transport):
        call = transport.open_stream(())
        await call.connected()
        reading = asyncio.create_task(call.read())
        await service.called.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await asyncio.wait_for(service.cancelled.wait(), 5.0)


async def test_cancelling_the_task_wins_where_the_call_was_ended_too() -> None:
    async with serving() as (_, transport):
        call = transport.open_stream(())
        await call.connected()
        with anyio.move_on_after(5.0) as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call.read)
                await anyio.sleep(0.1)
                call.cancel()
                tasks.cancel_scope.cancel()
        assert not scope.cancelled_caught


@pytest.mark.parametrize("method", ["classify_single", "list_deployments"])
async def test_closing_the_channel_fails_a_unary_call_and_cancels_nobody(method: str) -> None:
    """gRPC raises CancelledError for a call whose channel is closed: taken at its word, it would end a task
    that nobody cancelled."""
    async with serving() as (service, transport):

        async def slow(_request: bytes, _context: Any) -> bytes:
            await asyncio.sleep(60.0)
            return b""

        service.unary = slow
        body = (b"x",) if method == "classify_single" else ()
        asking = asyncio.create_task(getattr(transport, method)(*body, timeout_s=30.0, metadata=()))
        await service.called.wait()
        await transport.aclose()
        assert (await failure_of(asking)).code is ErrorCode.UNAVAILABLE


async def test_a_closed_channel_refuses_calls_as_unavailable() -> None:
    async with serving() as (_, transport):
        await transport.aclose()
        failure = await failure_of(transport.list_deployments(timeout_s=5.0, metadata=()))
        assert failure.code is ErrorCode.UNAVAILABLE


async def test_cancelling_a_unary_call_is_a_cancellation_and_reaches_the_server() -> None:
    async with serving() as (service, transport):

        async def slow(_request: bytes, _context: Any) -> bytes:
            await asyncio.sleep(60.0)
            return b""

        service.unary = slow
        asking = asyncio.create_task(transport.classify_single(b"x", timeout_s=30.0, metadata=()))
        await service.called.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.wait_for(service.cancelled.wait(), 5.0)


async def test_a_unary_call_has_a_deadline() -> None:
    async with serving() as (service, transport):

        async def slow(_request: bytes, _context: Any) -> bytes:
            await asyncio.sleep(60.0)
            return b""

        service.unary = slow
        failure = await failure_of(transport.classify_single(b"x", timeout_s=0.05, metadata=()))
        assert failure.code is ErrorCode.DEADLINE_EXCEEDED


async def test_a_server_that_stops_is_going_away() -> None:
    service = Service()
    server = grpc.aio.server(handlers=[service])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    transport = GrpcTransport(f"127.0.0.1:{port}", PoolConfig(), None)
    call = transport.open_stream(())
    await call.connected()
    await call.write(b"x")
    await service.called.wait()
    assert not transport.is_going_away()
    stopping = asyncio.create_task(server.stop(5.0))
    async with asyncio.timeout(5.0):
        while not transport.is_going_away():
            await asyncio.sleep(0.01)
    call.cancel()
    await stopping
    await transport.aclose()


async def test_two_channels_to_one_endpoint_have_a_connection_each() -> None:
    peers = []
    async with serving() as (service, first):

        async def note(_request: bytes, context: Any) -> bytes:
            peers.append(context.peer())
            return b""

        service.unary = note
        second = GrpcTransport(service.endpoint, PoolConfig(), None)
        for transport in (first, first, second):
            await transport.classify_single(b"x", timeout_s=5.0, metadata=())
        await second.aclose()
        assert peers[0] == peers[1] != peers[2]


def test_the_options_say_what_the_configuration_says() -> None:
    options = dict(channel_options(PoolConfig(ping_interval_s=7.0, ping_timeout_s=3.0)))
    assert options["grpc.keepalive_time_ms"] == 7000
    assert options["grpc.keepalive_timeout_ms"] == options["grpc.http2.ping_timeout_ms"] == 3000
    assert options["grpc.use_local_subchannel_pool"] == 1


async def test_channels_of_one_name_spread_over_its_addresses() -> None:
    """Else a backend that is added to a name gets nothing for as long as the first one lives."""
    async with serving() as (first, _), serving() as (second, _):
        name = "ipv4:" + ",".join(service.endpoint for service in (first, second))
        for _ in range(40):
            transport = GrpcTransport(name, PoolConfig(), None)
            await transport.list_deployments(timeout_s=5.0, metadata=())
            await transport.aclose()
            if first.called.is_set() and second.called.is_set():
                break
        assert first.called.is_set()
        assert second.called.is_set()


async def test_an_address_that_nobody_listens_at_is_passed_over() -> None:
    async with serving() as (service, _):
        transport = GrpcTransport(f"ipv4:127.0.0.1:1,{service.endpoint}", PoolConfig(), None)
        assert await transport.list_deployments(timeout_s=5.0, metadata=()) == b""
        await transport.aclose()
