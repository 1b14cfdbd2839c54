"""One channel to one endpoint, with a TCP connection of its own.

`Transport` is what the rest of the client sees: bytes in, bytes out, one exception. `GrpcTransport`
is grpc.aio; `athena_async.testing` has another one for tests without a network.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

import grpc
from grpc._cython import cygrpc

from athena_async import wire
from athena_async._version import __version__
from athena_async.config import PoolConfig
from athena_async.errors import CredentialsError, ErrorCode
from athena_async.observability.tracing import inject_metadata

T = TypeVar("T")

Metadata = tuple[tuple[str, str], ...]

CLIENT_METADATA: Metadata = (("x-client-version", __version__), ("x-client-language", "python"))

_CODES = {
    grpc.StatusCode.UNAVAILABLE: ErrorCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: ErrorCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ErrorCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.OUT_OF_RANGE: ErrorCode.RESOURCE_EXHAUSTED,  # how Rust's tonic refuses a message as too large
    grpc.StatusCode.UNAUTHENTICATED: ErrorCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED: ErrorCode.PERMISSION_DENIED,
    grpc.StatusCode.INVALID_ARGUMENT: ErrorCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND: ErrorCode.NOT_FOUND,
    grpc.StatusCode.UNIMPLEMENTED: ErrorCode.UNIMPLEMENTED,
    grpc.StatusCode.CANCELLED: ErrorCode.UNAVAILABLE,
    grpc.StatusCode.ABORTED: ErrorCode.UNAVAILABLE,
}

_SHUFFLED = '{"loadBalancingConfig":[{"pick_first":{"shuffleAddressList":true}}]}'
"""https://github.com/grpc/proposal/blob/master/A62-pick-first.md"""

# What grpc.aio puts in place of the server's status when a write fails: https://github.com/grpc/grpc/issues/36066
_MASKED_STATUS = "Internal error from Core"
# How long to wait for the server's status after a failed write; Core need not deliver one.
_STATUS_PATIENCE_S = 0.5
# In the words of gRPC for C++, Python, Node and Go; of that for Java, which names the limit first; and of Rust's tonic.
_TOO_LARGE = (
    re.compile(r"larger than max \((?P<sent>\d+) vs\.? (?P<allowed>\d+)\)"),
    re.compile(r"exceeds maximum size (?P<allowed>\d+): (?P<sent>\d+)"),
    re.compile(r"too large: found (?P<sent>\d+) bytes, the limit is: (?P<allowed>\d+)"),
)
# gRPC for .NET names no sizes, and others may not.
_TOO_LARGE_UNSIZED = re.compile(
    r"\bmessage (size )?(is |was )?(too large|larger than|exceeds the maximum (\w+ )?(message )?size)", re.IGNORECASE
)


class RefusedSize(NamedTuple):
    """A message that the server refused as too large; None for what it did not name."""

    sent_bytes: int | None
    allowed_bytes: int | None


class CallFailed(Exception):
    """A call ended with a status other than OK.

    Attributes:
        code: the status as one of our codes; INTERNAL where it has none of its own.
        message: the server's words, or gRPC's.
        is_local: whether it arose here; it is then no news of the endpoint.
        pushback_s: how long the server asks to wait (``grpc-retry-pushback-ms``), or None; negative where it
            asks not to try again.
    """

    def __init__(
        self, code: ErrorCode, message: str, pushback_s: float | None = None, *, is_local: bool = False
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.pushback_s = pushback_s
        self.is_local = is_local

    @classmethod
    def of_credentials(cls, error: CredentialsError) -> CallFailed:
        """No call was made, since no token, key or certificate could be had."""
        code = ErrorCode.UNAVAILABLE if error.retryable else ErrorCode.UNAUTHENTICATED
        return cls(code, str(error), is_local=True)

    @property
    def refused_size(self) -> RefusedSize | None:
        """The sizes, where a message was refused as too large."""
        if self.code is not ErrorCode.RESOURCE_EXHAUSTED:
            return None
        for words in _TOO_LARGE:
            if found := words.search(self.message):
                return RefusedSize(int(found["sent"]), int(found["allowed"]))
        return RefusedSize(None, None) if _TOO_LARGE_UNSIZED.search(self.message) else None


class StreamCall(Protocol):
    """One bidirectional call. One reader and one writer at a time."""

    async def connected(self) -> None:
        """Returns once the call is on the wire. Raises `CallFailed`."""

    async def write(self, data: bytes) -> None:
        """Returns when gRPC took the message, which says nothing of its arrival. Cancelling kills the call."""

    async def read(self) -> bytes | None:
        """The next message, or None when the server half-closed. Cancelling kills the call."""

    async def done_writing(self) -> None:
        """Half-closes our side."""

    def cancel(self) -> None:
        """Ends the call at once; read and write raise `CallFailed`."""


class Transport(Protocol):
    """One channel."""

    def open_stream(self, metadata: Metadata) -> StreamCall: ...

    async def classify_single(self, data: bytes, *, timeout_s: float, metadata: Metadata) -> bytes: ...

    async def list_deployments(self, *, timeout_s: float, metadata: Metadata) -> bytes: ...

    def is_going_away(self) -> bool:
        """Whether the peer asked to leave the connection of an open stream (GOAWAY), or it is lost."""

    async def aclose(self) -> None: ...


Connect = Callable[[str], Awaitable[Transport]]
"""Makes a channel to ``host:port``. Raises `athena_async.errors.CredentialsError` for broken certificates."""


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach the service, and with whose authority.

    Attributes:
        connect: makes a channel.
        authorize: the metadata for a call. Raises `athena_async.errors.CredentialsError`.
        refused: the server answered UNAUTHENTICATED to this metadata.
    """

    connect: Connect
    authorize: Callable[[], Awaitable[Metadata]]
    refused: Callable[[Metadata], None]


def channel_options(pool: PoolConfig) -> list[tuple[str, int | str]]:
    """gRPC channel arguments. https://grpc.github.io/grpc/core/group__grpc__arg__keys.html"""
    return [
        # Where a name has several addresses each channel takes one by chance; all would take the first.
        ("grpc.service_config", _SHUFFLED),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_retries", 0),
        ("grpc.max_receive_message_length", 64 * 1024 * 1024),
        ("grpc.keepalive_time_ms", round(pool.ping_interval_s * 1000)),
        # First TCP's own timeout for bytes that nobody takes, which no ping could overtake; then that of a ping.
        ("grpc.keepalive_timeout_ms", round(pool.ping_timeout_s * 1000)),
        ("grpc.http2.ping_timeout_ms", round(pool.ping_timeout_s * 1000)),
        # Else only two pings go out, one a minute afterwards, until something is written.
        ("grpc.http2.max_pings_without_data", 0),
        # The stream's own backoff decides when to try again; gRPC's must not outlast it.
        ("grpc.initial_reconnect_backoff_ms", 100),
        # In spite of its name: how long one attempt to connect may take, handshakes included.
        ("grpc.min_reconnect_backoff_ms", round(pool.connect_timeout_s * 1000)),
        ("grpc.max_reconnect_backoff_ms", 1000),
    ]


class GrpcTransport:
    """A grpc.aio channel. Requests and responses are bytes: `athena_async.wire` speaks the messages."""

    def __init__(
        self,
        endpoint: str,
        pool: PoolConfig,
        credentials: grpc.ChannelCredentials | None,
        options: Sequence[tuple[str, int | str]] = (),
    ) -> None:
        every_option = [*channel_options(pool), *options]
        self._channel = (
            grpc.aio.insecure_channel(endpoint, options=every_option)
            if credentials is None
            else grpc.aio.secure_channel(endpoint, credentials, options=every_option)
        )
        self._classify = self._channel.stream_stream(wire.CLASSIFY)
        self._classify_single = self._channel.unary_unary(wire.CLASSIFY_SINGLE)
        self._list_deployments = self._channel.unary_unary(wire.LIST_DEPLOYMENTS)

    def open_stream(self, metadata: Metadata) -> StreamCall:
        return _GrpcStreamCall(self._classify(metadata=_call_metadata(metadata)))

    async def classify_single(self, data: bytes, *, timeout_s: float, metadata: Metadata) -> bytes:
        every_pair = _call_metadata(metadata)
        return await _unary(lambda: self._classify_single(data, timeout=timeout_s, metadata=every_pair))

    async def list_deployments(self, *, timeout_s: float, metadata: Metadata) -> bytes:
        every_pair = _call_metadata(metadata)
        return await _unary(lambda: self._list_deployments(b"", timeout=timeout_s, metadata=every_pair))

    def is_going_away(self) -> bool:
        # A channel leaves READY when its connection takes no more calls; streams on it may live on.
        return self._channel.get_state() is not grpc.ChannelConnectivity.READY

    async def aclose(self) -> None:
        await self._channel.close(grace=None)


class _GrpcStreamCall:
    def __init__(self, call: grpc.aio.StreamStreamCall[bytes, bytes]) -> None:
        self._call = call
        self._write_message = getattr(getattr(call, "_cython_call", None), "send_serialized_message", None)
        self._cancelled = False

    async def connected(self) -> None:
        await self._guard(self._call.wait_for_connection())

    async def write(self, data: bytes) -> None:
        await self._guard(self._send(data))

    async def read(self) -> bytes | None:
        message = await self._guard(self._call.read())
        return message if isinstance(message, bytes) else None

    async def done_writing(self) -> None:
        await self._guard(self._call.done_writing())

    def cancel(self) -> None:
        self._cancelled = True
        self._call.cancel()

    async def _send(self, data: bytes) -> None:
        """As the call's own ``write`` once it is connected, but leaves the server's status alone when it fails."""
        send = self._write_message
        if send is None or self._call.done():
            await self._call.write(data)
            return
        try:
            await send(data)
        except asyncio.CancelledError:
            self._call.cancel()
            raise
        except cygrpc.InternalError:
            raise await self._failed_write() from None

    async def _guard(self, operation: Awaitable[T]) -> T:
        try:
            return await operation
        except grpc.aio.AioRpcError as error:
            raise await self._status_failure() if error.details() == _MASKED_STATUS else call_failed(error) from None
        except asyncio.InvalidStateError:
            raise await self._status_failure() from None
        except asyncio.CancelledError:
            # grpc.aio raises this for a call that was cancelled on our side, task or not.
            if self._cancelled and not _task_is_cancelled():
                raise _ended_here() from None
            raise

    async def _failed_write(self) -> CallFailed:
        try:
            async with asyncio.timeout(_STATUS_PATIENCE_S):
                return await self._status_failure()
        except TimeoutError:
            self.cancel()
            return CallFailed(ErrorCode.UNAVAILABLE, "the connection was lost while writing")

    async def _status_failure(self) -> CallFailed:
        if self._cancelled:
            return _ended_here()
        code, details = await self._call.code(), await self._call.details()
        if details == _MASKED_STATUS or code is grpc.StatusCode.OK:
            return CallFailed(ErrorCode.UNAVAILABLE, "the connection was lost while writing")
        pushback_s = _pushback_s(await self._call.trailing_metadata())
        return CallFailed(_CODES.get(code, ErrorCode.INTERNAL), details or code.name, pushback_s)


def _call_metadata(metadata: Metadata) -> Metadata:
    return CLIENT_METADATA + inject_metadata() + metadata


async def _unary(start: Callable[[], grpc.aio.UnaryUnaryCall[bytes, bytes]]) -> bytes:
    try:
        response: bytes = await start()
    except grpc.aio.AioRpcError as error:
        raise call_failed(error) from None
    except grpc.aio.UsageError:
        raise CallFailed(ErrorCode.UNAVAILABLE, "the channel was closed on this side") from None
    except asyncio.CancelledError:
        # grpc.aio raises this for calls of a channel that is closed, though nobody cancelled the task.
        if _task_is_cancelled():
            raise
        raise CallFailed(ErrorCode.UNAVAILABLE, "the channel was closed on this side") from None
    return response


def _ended_here() -> CallFailed:
    return CallFailed(ErrorCode.UNAVAILABLE, "the call was ended on this side")


def _task_is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def call_failed(error: grpc.aio.AioRpcError) -> CallFailed:
    """Maps a gRPC error, without its debug string: that may quote metadata."""
    code = _CODES.get(error.code(), ErrorCode.INTERNAL)
    return CallFailed(code, error.details() or error.code().name, _pushback_s(error.trailing_metadata()))


def _pushback_s(metadata: Iterable[tuple[str, str | bytes]] | None) -> float | None:
    """gRPC hands on a value that is no number as a negative one."""
    for key, value in metadata or ():
        if key == "grpc-retry-pushback-ms":
            return int(value) / 1000
    return None
