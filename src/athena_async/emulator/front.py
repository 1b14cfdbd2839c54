"""The gRPC server and its port: listens, tells connections to go away, drops them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

import grpc
from google.protobuf import descriptor_pool, empty_pb2

from athena_async import wire
from athena_async._proto.athena import athena_pb2, models_pb2
from athena_async.errors import MissingExtraError

_GO_AWAY_GRACE_S = 30.0
# By then GOAWAY has reached clients on this machine. A server that shuts down answers CANCELLED to a call
# that begins before its client has heard of it.
_GO_AWAY_NOTICE_S = 0.05


class Front:
    """Invariants: at most one server accepts connections; those that were told to go away are retired,
    and gone after the grace at the latest; once it has listened, the port stays the same.
    """

    def __init__(self, host: str, port: int, options: Sequence[tuple[str, int | str]]) -> None:
        self.host = host
        self.port = port
        self._options = list(options)
        self._credentials: grpc.ServerCredentials | None = None
        self._handlers: grpc.GenericRpcHandler | None = None
        self._server: grpc.aio.Server | None = None
        self._retired: dict[grpc.aio.Server, asyncio.Task[None]] = {}
        self._changing = asyncio.Lock()

    @property
    def listening(self) -> bool:
        return self._server is not None

    @property
    def address(self) -> str:
        return joined(self.host, self.port)

    def serve(self, handlers: grpc.GenericRpcHandler, credentials: grpc.ServerCredentials | None) -> None:
        """What answers from the next `listen` on; without credentials in plaintext."""
        self._handlers = handlers
        self._credentials = credentials

    async def listen(self) -> None:
        """Accepts connections. A second call does nothing.

        Raises:
            OSError: the port is in use.
        """
        async with self._changing:
            if self._server is None:
                _check_port_is_free(self.host, self.port)
                self._server = await self._start()

    async def go_away(self) -> None:
        """Sends GOAWAY on every connection: open calls go on for the grace, new ones connect anew.

        Returns once clients on this machine have heard of it.
        """
        async with self._changing:
            if self._server is None:
                return
            old, self._server = self._server, await self._start()
            retiring = asyncio.get_running_loop().create_task(old.stop(_GO_AWAY_GRACE_S))
            self._retired[old] = retiring
            retiring.add_done_callback(lambda _: self._retired.pop(old, None))
        await asyncio.wait({retiring}, timeout=_GO_AWAY_NOTICE_S)

    async def drop(self) -> None:
        """Ends every call and connection now, and accepts no more until `listen`."""
        async with self._changing:
            server, self._server = self._server, None
            retired = dict(self._retired)
            for old in (*retired, *([server] if server is not None else [])):
                await old.stop(None)
            await asyncio.gather(*retired.values())

    async def _start(self) -> grpc.aio.Server:
        assert self._handlers is not None
        server = grpc.aio.server(options=self._options)
        server.add_generic_rpc_handlers((self._handlers,))
        await _add_health_and_reflection(server)
        if self._credentials is None:
            self.port = server.add_insecure_port(self.address)
        else:
            self.port = server.add_secure_port(self.address, self._credentials)
        starting = asyncio.get_running_loop().create_task(server.start())
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:  # half started, it would hold the port and serve nobody
            await starting
            await server.stop(None)
            raise
        return server

    def __repr__(self) -> str:
        return f"Front({self.address if self.listening else 'not listening'}, {len(self._retired)} retired)"


def joined(host: str, port: int) -> str:
    """``host:port``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _check_port_is_free(host: str, port: int) -> None:
    """gRPC shares ports between processes (SO_REUSEPORT): without this, two emulators would split the calls.

    Raises:
        OSError: the port is in use.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise OSError(error.errno, f"cannot listen on {joined(host, port)}: {error.strerror}") from None


async def _add_health_and_reflection(server: grpc.aio.Server) -> None:
    try:
        from grpc_health.v1 import health, health_pb2, health_pb2_grpc
        from grpc_reflection.v1alpha import reflection, reflection_pb2
    except ImportError:
        raise MissingExtraError("the emulator", "emulator") from None
    servicer = health.aio.HealthServicer()
    await servicer.set(wire.SERVICE, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    # The messages of Athena live in a pool of their own, which knows nothing of the other two services.
    pool = descriptor_pool.DescriptorPool()
    for module in (empty_pb2, models_pb2, athena_pb2, health_pb2, reflection_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    names = (wire.SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server, pool=pool)
