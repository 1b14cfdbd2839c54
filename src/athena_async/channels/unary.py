"""Calls beside the streams: ListDeployments and ClassifySingle, on a channel of their own per endpoint."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from athena_async import wire
from athena_async.channels.channel import Access, CallFailed, Metadata, Transport
from athena_async.channels.pool import draw_age_s
from athena_async.errors import CredentialsError, ErrorCode
from athena_async.results import DeploymentInfo

T = TypeVar("T")


class UnaryCalls:
    """Opens a channel to an endpoint at its first call.

    Invariants: later calls to an endpoint share one channel, until it is too old; a renewed one is closed with its last
    call; a refused token is refreshed and tried once more; once it is closed no channel is opened, and none is left
    open.
    """

    def __init__(self, access: Access, max_age_s: float = 0.0, rng: random.Random | None = None) -> None:
        self._access = access
        self._max_age_s = max_age_s
        self._rng = rng or random.Random()  # noqa: S311 - spreads renewals
        self._clock = asyncio.get_running_loop().time
        self._expires_s: dict[Transport, float] = {}
        self._current: dict[str, Transport] = {}
        self._under_way: dict[Transport, int] = {}
        """Calls by open channel, renewed ones too."""
        self._closed = False

    def __repr__(self) -> str:
        return f"UnaryCalls({', '.join(self._current) or 'no channels'}, {sum(self._under_way.values())} under way)"

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
        """Later calls get new channels; an old one is closed once its calls are over, which their deadlines bound."""
        self._current = {}
        for transport in [transport for transport, count in self._under_way.items() if not count]:
            await self._close(transport)

    async def aclose(self) -> None:
        """Ends calls under way; later ones fail."""
        self._closed = True
        self._current = {}
        for transport in list(self._under_way):
            await self._close(transport)

    async def _call(self, endpoint: str, call: Callable[[Transport, Metadata], Awaitable[bytes]]) -> bytes:
        metadata = await self._metadata()
        try:
            return await self._call_once(endpoint, call, metadata)
        except CallFailed as failure:
            if failure.code is not ErrorCode.UNAUTHENTICATED or not metadata:
                raise
        self._access.refused(metadata)
        return await self._call_once(endpoint, call, await self._metadata())

    async def _call_once(
        self, endpoint: str, call: Callable[[Transport, Metadata], Awaitable[bytes]], metadata: Metadata
    ) -> bytes:
        transport = await self._transport(endpoint)
        self._under_way[transport] += 1
        try:
            return await call(transport, metadata)
        finally:
            if transport in self._under_way:
                self._under_way[transport] -= 1
                if not self._under_way[transport] and self._current.get(endpoint) is not transport:
                    await self._close(transport)

    async def _drop_old(self, endpoint: str) -> None:
        transport = self._current.get(endpoint)
        if transport is not None and self._expires_s[transport] <= self._clock():
            del self._current[endpoint]
            if not self._under_way[transport]:
                await self._close(transport)

    async def _close(self, transport: Transport) -> None:
        self._expires_s.pop(transport, None)
        if self._under_way.pop(transport, None) is not None:
            with anyio.CancelScope(shield=True):
                await transport.aclose()

    async def _metadata(self) -> Metadata:
        try:
            return await self._access.authorize()
        except CredentialsError as error:
            raise CallFailed.of_credentials(error) from None

    async def _transport(self, endpoint: str) -> Transport:
        await self._drop_old(endpoint)
        self._check_open()
        while endpoint not in self._current:
            current = self._current
            try:
                made = await self._access.connect(endpoint)
            except CredentialsError as error:
                raise CallFailed.of_credentials(error) from None
            self._under_way[made] = 0
            self._expires_s[made] = self._clock() + draw_age_s(self._max_age_s, self._rng)
            if current is self._current and endpoint not in current:
                current[endpoint] = made
            else:  # another call was faster, or it is of before the renewal
                await self._close(made)
            self._check_open()
        return self._current[endpoint]

    def _check_open(self) -> None:
        if self._closed:
            raise CallFailed(ErrorCode.CLOSED, "the client was closed")


def _read(parse: Callable[[bytes], T], data: bytes) -> T:
    try:
        return parse(data)
    except wire.DecodeError:
        message = f"the server sent {len(data)} bytes that are no answer to the call"
        raise CallFailed(ErrorCode.INTERNAL, message) from None
