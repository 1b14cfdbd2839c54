"""The emulator as a whole: servers, their addresses, their life."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import grpc

from athena_async.emulator.admin import AdminEndpoint, status_code
from athena_async.emulator.admission import Admission
from athena_async.emulator.audit import AuditLog
from athena_async.emulator.auth import Affiliates, Authenticator
from athena_async.emulator.background import Background
from athena_async.emulator.clock import Clock, ScaledClock
from athena_async.emulator.config import EmulatorConfig
from athena_async.emulator.deployments import Deployments
from athena_async.emulator.expected import ExpectedOutputs
from athena_async.emulator.faults import Faults
from athena_async.emulator.front import Front, joined
from athena_async.emulator.http import HttpServer
from athena_async.emulator.known import KnownHashes
from athena_async.emulator.model import ServiceModel, ServiceQueue
from athena_async.emulator.oauth import OAuthEndpoint, TokenIssuer
from athena_async.emulator.processing import Processor
from athena_async.emulator.service import ClassifierService
from athena_async.emulator.sink import SinkService
from athena_async.emulator.tls import TestAuthority
from athena_async.errors import MissingExtraError

_SWEEP_INTERVAL_S = 1.0


class OpenStream(Protocol):
    """A Classify call that can be ended."""

    def end(self, code: grpc.StatusCode | None = None, details: str = "") -> None: ...


class AnyService(Protocol):
    """What answers the RPCs: the full service or the sink."""

    held: bool

    @property
    def streams(self) -> Collection[OpenStream]: ...
    def release(self) -> None: ...
    def handlers(self) -> grpc.GenericRpcHandler: ...


class Emulator:
    """A local Athena.

        async with Emulator(api_keys=("key",)) as emulator:
            ...  # connect to emulator.address

    Invariants: between `start` and `stop` or `kill` it listens at ``address``, and takes the same ports
    when it is started again; deployments, audit, keys and the fault plan outlive a `kill`.

    Args:
        config: see `EmulatorConfig`; ``overrides`` are its fields, and win over it.
        clock: what lifetimes run on; None takes the wall's clock times ``config.time_scale``.
        deployments: shared with every emulator that is given the same; None makes new ones.

    Raises:
        ConfigError: a field has a wrong value.
        MissingExtraError: the ``emulator`` extra is not installed.
    """

    def __init__(
        self,
        config: EmulatorConfig | None = None,
        *,
        clock: Clock | None = None,
        deployments: Deployments | None = None,
        **overrides: Any,
    ) -> None:
        _check_extra()
        config = replace(config, **overrides) if config is not None else EmulatorConfig(**overrides)
        self.config = config
        self.clock = clock or ScaledClock(config.time_scale)
        self.deployments = Deployments() if deployments is None else deployments
        self.faults = Faults(config.faults)
        self.audit = AuditLog(_path(config.audit_path), limit=config.audit_limit)
        self.tokens = TokenIssuer(config.audience, config.token_lifetime_s, self.clock)
        self._authenticator = Authenticator(config.api_keys, self.tokens if config.oauth_clients else None)
        self._queue = ServiceQueue(config.model)
        limits = [("grpc.max_receive_message_length", config.max_message_bytes), ("grpc.max_send_message_length", -1)]
        self._front = Front(config.host, config.port, [*limits, *config.server_options])
        self._stack: contextlib.AsyncExitStack | None = None
        self._service: AnyService | None = None
        self._background = Background()
        self._authority: TestAuthority | None = None
        self._oauth_port, self._admin_port = config.oauth_port, config.admin_port
        self._oauth: HttpServer | None = None
        self._admin: HttpServer | None = None

    @property
    def address(self) -> str:
        """``host:port`` of the gRPC service.

        Raises:
            RuntimeError: it was never started.
        """
        if not self._front.port:
            raise RuntimeError("the emulator has no address before it is started")
        return self._front.address

    @property
    def port(self) -> int:
        """The port of `address`, under the same condition."""
        return int(self.address.rpartition(":")[2])

    def addresses(self) -> dict[str, str]:
        """What listens where, for the line of JSON that a process prints."""
        found = {"grpc": self.address, "oauth": self.oauth_url, "admin": self.admin_url, "ca": self.ca}
        return {name: str(value) for name, value in found.items() if value is not None}

    @property
    def oauth_url(self) -> str | None:
        """The issuer: the token endpoint is ``/oauth/token`` below it. None without one."""
        return self._url(self._oauth)

    @property
    def admin_url(self) -> str | None:
        """The admin endpoint; None without one."""
        return self._url(self._admin)

    @property
    def ca(self) -> Path | None:
        """The PEM file of the test CA; None without TLS."""
        return self._authority.ca if self._authority is not None else None

    @property
    def live_streams(self) -> int:
        """Classify calls that are open now."""
        return len(self._service.streams) if self._service is not None else 0

    @property
    def model(self) -> ServiceModel:
        return self._queue.model

    @model.setter
    def model(self, model: ServiceModel) -> None:
        """Another speed from the next request on."""
        self._queue.model = model

    async def start(self) -> None:
        """Listens, again after a `kill`. A second call does nothing. Cancelled, it releases what it began.

        Raises:
            OSError: a port is in use, or a file cannot be read or written.
        """
        if self._stack is None:
            async with contextlib.AsyncExitStack() as stack:
                await self._start(stack)
                self._stack = stack.pop_all()
        else:
            await self._front.listen()

    async def stop(self) -> None:
        """Ends every call, finishes nothing, and releases everything. A second call does nothing.

        Cancelled, it releases the rest all the same, unless it is cancelled again.

        Raises:
            BaseException: the emulator itself failed at some request, with a fault of its own.
        """
        stack, self._stack = self._stack, None
        if stack is not None:
            try:
                await stack.aclose()
            finally:
                self._service = None

    async def kill(self, *, forget: bool = False) -> None:
        """Drops every connection now, as a crash of the front does. `start` takes the same port again.

        What was received is worked on, and its answers are kept for whoever comes back.

        Args:
            forget: what was received, the deployments and their kept answers are gone as well.
        """
        await self._front.drop()
        if forget:
            await self._background.cancel()
            for deployment in self.deployments.all():
                deployment.remove()

    def drop_streams(self, code: str = "UNAVAILABLE") -> int:
        """Ends every open stream with a status; returns how many.

        Raises:
            ConfigError: ``code`` is no gRPC status.
        """
        status, streams = status_code(code), [*self._running.streams]
        for stream in streams:
            stream.end(status, "Dropped by hand.")
        return len(streams)

    def revoke_tokens(self) -> None:
        """Lets no token issued so far count any more."""
        self.tokens.revoke()

    def hold(self) -> None:
        """Keeps every answer from now on, until `release`."""
        self._running.held = True

    def release(self) -> None:
        """Gives out the answers that were held."""
        self._running.release()

    async def go_away(self) -> None:
        """Tells every connection to go away (GOAWAY): open calls go on, new ones need a new connection."""
        await self._front.go_away()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def _running(self) -> AnyService:
        if self._service is None:
            raise RuntimeError("the emulator is not running")
        return self._service

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        self.audit.open()
        stack.callback(self.audit.close)
        executor = ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="athena-emulator")
        stack.callback(executor.shutdown)
        self._background = Background()
        stack.push_async_callback(self._background.aclose)
        self._service = self._make_service(executor)
        stack.push_async_callback(_cancelled, asyncio.get_running_loop().create_task(self._sweep()))
        if self.config.oauth_clients:
            await asyncio.get_running_loop().run_in_executor(executor, self.tokens.prepare)
        if self.config.tls_dir is not None:
            self._authority = TestAuthority.ensure(Path(self.config.tls_dir))
        await self._start_http(stack)
        credentials = self._authority and self._authority.grpc_credentials(mutual=self.config.mtls)
        self._front.serve(self._service.handlers(), credentials)
        await self._front.listen()
        stack.push_async_callback(self._front.drop)

    def _make_service(self, executor: ThreadPoolExecutor) -> AnyService:
        admission = Admission(self._authenticator, self.faults)
        if self.config.sink:
            return SinkService(admission, self._queue)
        return ClassifierService(
            self.config,
            processor=self._processor(executor),
            deployments=self.deployments,
            admission=admission,
            queue=self._queue,
            background=self._background,
            go_away=self.go_away,
        )

    async def _start_http(self, stack: contextlib.AsyncExitStack) -> None:
        """The token and admin endpoints, where they are asked for. They outlive a `kill`."""
        host = self.config.host
        if self._oauth_port is not None:
            endpoint = OAuthEndpoint(self.tokens, self.config.oauth_clients, self.faults)
            tls = self._authority.http_context() if self._authority is not None and self.config.oauth_tls else None
            self._oauth = await HttpServer.listen(endpoint.handle, host, self._oauth_port, tls)
            stack.push_async_callback(self._oauth.aclose)
            self._oauth_port = self._oauth.port
        if self._admin_port is not None:
            self._admin = await HttpServer.listen(AdminEndpoint(self).handle, host, self._admin_port)
            stack.push_async_callback(self._admin.aclose)
            self._admin_port = self._admin.port

    def _url(self, server: HttpServer | None) -> str | None:
        return f"{server.scheme}://{joined(self.config.host, server.port)}" if server is not None else None

    def _processor(self, executor: ThreadPoolExecutor) -> Processor:
        config = self.config
        known, expected = _path(config.known_hashes), _path(config.expected_outputs)
        return Processor(
            affiliates=Affiliates.of(config.affiliates),
            known=KnownHashes.read(known) if known is not None else KnownHashes(),
            expected=ExpectedOutputs.read(expected) if expected is not None else None,
            faults=self.faults,
            behaviour=config.behaviour,
            max_image_bytes=config.max_image_bytes,
            clock=self.clock,
            audit=self.audit,
            executor=executor,
        )

    async def _sweep(self) -> None:
        """Drops what is too old even where nobody asks."""
        while True:
            await asyncio.sleep(_SWEEP_INTERVAL_S)
            self.deployments.expire(self.clock.now())

    def __repr__(self) -> str:
        return f"Emulator({self._front!r}, {self.live_streams} streams, {self.deployments!r}, {self.faults!r})"


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _check_extra() -> None:
    """Says at once what would otherwise come out at the first image.

    Raises:
        MissingExtraError: something of the ``emulator`` extra is not installed.
    """
    if any(find_spec(name) is None for name in ("numpy", "brotli", "joserfc", "cryptography")):
        raise MissingExtraError("the emulator", "emulator")


def _path(path: str | os.PathLike[str] | None) -> Path | None:
    return Path(path) if path is not None else None
