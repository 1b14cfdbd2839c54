"""The emulator as a whole: servers, their addresses, their life."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import grpc
from google.protobuf import descriptor_pool, empty_pb2

from athena_async import wire
from athena_async._proto.athena import athena_pb2, models_pb2
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
_GO_AWAY_GRACE_S = 30.0


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
        config = replace(config, **overrides) if config is not None else EmulatorConfig(**overrides)
        self.config = config
        self.clock = clock or ScaledClock(config.time_scale)
        self.deployments = Deployments() if deployments is None else deployments
        self.faults = Faults(config.faults)
        self.audit = AuditLog(_path(config.audit_path), limit=config.audit_limit)
        self.tokens = TokenIssuer(config.audience, config.token_lifetime_s, self.clock)
        self._authenticator = Authenticator(config.api_keys, self.tokens if config.oauth_clients else None)
        self._queue = ServiceQueue(config.model)
        self._port = config.port
        self._server: grpc.aio.Server | None = None
        self._retired: list[asyncio.Task[None]] = []
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
        if not self._port:
            raise RuntimeError("the emulator has no address before it is started")
        return f"{self.config.host}:{self._port}"

    @property
    def port(self) -> int:
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
        """Listens, again after a `kill`. A second call does nothing.

        Raises:
            OSError: a port is in use, or a file cannot be read or written.
        """
        if self._stack is None:
            async with contextlib.AsyncExitStack() as stack:
                await self._start(stack)
                self._stack = stack.pop_all()
        elif self._server is None:
            self._server = await self._listen(self._running)

    async def stop(self) -> None:
        """Ends every call, finishes nothing, and releases everything. A second call does nothing.

        Raises:
            BaseException: the emulator itself failed at some request, with a fault of its own.
        """
        stack, self._stack = self._stack, None
        if stack is not None:
            await stack.aclose()

    async def kill(self, *, forget: bool = False) -> None:
        """Drops every connection now, as a crash of the front does. `start` takes the same port again.

        What was received is worked on, and its answers are kept for whoever comes back.

        Args:
            forget: what was received, the deployments and their kept answers are gone as well.
        """
        await self._stop_servers()
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
        old = self._server
        self._server = await self._listen(self._running)
        if old is not None:
            self._retired = [task for task in self._retired if not task.done()]
            self._retired.append(asyncio.get_running_loop().create_task(_retire(old)))

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
        if self.config.tls_dir is not None:
            self._authority = TestAuthority.ensure(Path(self.config.tls_dir))
        await self._start_http(stack)
        self._server = await self._listen(self._service)
        stack.push_async_callback(self._stop_servers)

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
        return f"{server.scheme}://{self.config.host}:{server.port}" if server is not None else None

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

    async def _listen(self, service: AnyService) -> grpc.aio.Server:
        if self._server is None:
            _check_port_is_free(self.config.host, self._port)
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", self.config.max_message_bytes),
                ("grpc.max_send_message_length", -1),
                *self.config.server_options,
            ]
        )
        server.add_generic_rpc_handlers((service.handlers(),))
        await _serve_health_and_reflection(server)
        address = f"{self.config.host}:{self._port}"
        if self._authority is None:
            self._port = server.add_insecure_port(address)
        else:
            credentials = self._authority.grpc_credentials(mutual=self.config.mtls)
            self._port = server.add_secure_port(address, credentials)
        await server.start()
        return server

    async def _stop_servers(self) -> None:
        server, self._server = self._server, None
        for task in self._retired:
            task.cancel()
        await asyncio.gather(*self._retired, return_exceptions=True)
        self._retired.clear()
        if server is not None:
            await server.stop(None)

    async def _sweep(self) -> None:
        """Drops what is too old even where nobody asks."""
        while True:
            await asyncio.sleep(_SWEEP_INTERVAL_S)
            self.deployments.expire(self.clock.now())

    def __repr__(self) -> str:
        where = f"{self.config.host}:{self._port}" if self._server is not None else "not listening"
        return f"Emulator({where}, {self.live_streams} streams, {self.deployments!r}, {self.faults!r})"


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _retire(server: grpc.aio.Server) -> None:
    """Lets a server's calls go on for a while without new ones."""
    try:
        await server.stop(_GO_AWAY_GRACE_S)
    except asyncio.CancelledError:
        await server.stop(None)
        raise


def _path(path: str | os.PathLike[str] | None) -> Path | None:
    return Path(path) if path is not None else None


def _check_port_is_free(host: str, port: int) -> None:
    """gRPC shares ports between processes (SO_REUSEPORT): without this, two emulators would split the calls.

    Raises:
        OSError: the port is in use.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), port))
        except OSError as error:
            raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from None


async def _serve_health_and_reflection(server: grpc.aio.Server) -> None:
    try:
        from grpc_health.v1 import health, health_pb2, health_pb2_grpc
        from grpc_reflection.v1alpha import reflection, reflection_pb2
    except ImportError:
        raise MissingExtraError("the emulator", "emulator") from None
    servicer = health.aio.HealthServicer()
    await servicer.set(wire.SERVICE, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    pool = descriptor_pool.DescriptorPool()
    for module in (empty_pb2, models_pb2, athena_pb2, health_pb2, reflection_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    names = (wire.SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server, pool=pool)
