"""Calls beside the streams: ListDeployments and ClassifySingle, on a channel of their own per endpoint."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from athena_async import wire
from athena_async.channels.channel import Access, CallFailed, Metadata, Transport
from athena_async.errors import CredentialsError, ErrorCode
from athena_async.results import DeploymentInfo

T = TypeVar("T")


class UnaryCalls:
    """Opens a channel to an endpoint at its first call.

    Invariants: at most one channel per endpoint; a refused token is refreshed and tried once more; none is opened
    once it is closed.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        self._transports: dict[str, Transport] = {}
        self._closed = False

    def __repr__(self) -> str:
        return f"UnaryCalls({', '.join(self._transports) or 'no channels'})"

    async def list_deployments(self, endpoint: str, timeout_s: float) -> list[DeploymentInfo]:
        """Raises `CallFailed`. Cancelling cancels the call."""

        async def call(transport: Transport, metadata: Metadata) -> bytes:
            return await transport.list_deployments(timeout_s=timeout_s, metadata=metadata)

        return _read(wire.read_deployments, await self._call(endpoint, call))

    async def classify_single(self, endpoint: str, frame: wire.Frame, timeout_s: float) -> wire.Answer:
        """Raises `CallFailed`. Cancelling cancels the call; the image may be classified all the same."""
        data = wire.single_request(frame)

        async def call(transport: Transport, metadata: Metadata) -> bytes:
            return await transport.classify_single(data, timeout_s=timeout_s, metadata=metadata)

        return _read(wire.read_single, await self._call(endpoint, call))

    async def renew(self) -> None:
        """Later calls get new channels; those under way are finished by the peer or fail."""
        old, self._transports = self._transports, {}
        for transport in old.values():
            await transport.aclose()

    async def aclose(self) -> None:
        """Ends calls under way; later ones fail."""
        self._closed = True
        await self.renew()

    async def _call(self, endpoint: str, call: Callable[[Transport, Metadata], Awaitable[bytes]]) -> bytes:
        metadata = await self._metadata()
        transport = await self._transport(endpoint)
        try:
            return await call(transport, metadata)
        except CallFailed as failure:
            if failure.code is not ErrorCode.UNAUTHENTICATED or not metadata:
                raise
        self._access.refused(metadata)
        return await call(await self._transport(endpoint), await self._metadata())

    async def _metadata(self) -> Metadata:
        try:
            return await self._access.authorize()
        except CredentialsError as error:
            raise CallFailed.of_credentials(error) from None

    async def _transport(self, endpoint: str) -> Transport:
        self._check_open()
        if endpoint not in self._transports:
            try:
                made = await self._access.connect(endpoint)
            except CredentialsError as error:
                raise CallFailed.of_credentials(error) from None
            if self._closed or endpoint in self._transports:
                await made.aclose()
            else:
                self._transports[endpoint] = made
        self._check_open()
        return self._transports[endpoint]

    def _check_open(self) -> None:
        if self._closed:
            raise CallFailed(ErrorCode.CLOSED, "the client was closed")


def _read(parse: Callable[[bytes], T], data: bytes) -> T:
    try:
        return parse(data)
    except wire.DecodeError:
        message = f"the server sent {len(data)} bytes that are no answer to the call"
        raise CallFailed(ErrorCode.INTERNAL, message) from None
