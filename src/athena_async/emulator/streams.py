"""One Classify call: reads requests into a deployment, writes what the deployment hands it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import NamedTuple, Protocol

import grpc
from google.protobuf.message import DecodeError

from athena_async._proto.athena import models_pb2
from athena_async.emulator.deployments import Deployment, Origin
from athena_async.emulator.processing import deployment_refusal, error_of

_WRITE_PATIENCE_S = 1.0


class Context(Protocol):
    """What is used of ``grpc.aio.ServicerContext``."""

    async def read(self) -> object: ...
    async def write(self, message: bytes) -> None: ...
    async def abort(self, code: grpc.StatusCode, details: str) -> None: ...


class Ending(NamedTuple):
    """How the service ends a stream; no code is OK."""

    code: grpc.StatusCode | None = None
    details: str = ""


class StreamHost(Protocol):
    """What a stream asks of the service."""

    @property
    def held(self) -> bool: ...
    def now(self) -> float: ...
    def open_deployment(self, client: str, deployment_id: str) -> Deployment: ...
    async def take_request(self, stream: Stream, request: models_pb2.ClassifyRequest, size_bytes: int) -> None: ...


class Stream:
    """Invariants: one reader and one writer; the stream ends once, by `end`, by the client or by cancellation.

    Attributes:
        client: whose token opened it.
        deployment: None until the first request named one.
        deaf: neither reads nor writes any more, while the call stays open.
    """

    def __init__(self, host: StreamHost, client: str, context: Context, idle_timeout_s: float | None) -> None:
        self.client = client
        self.deployment: Deployment | None = None
        self.deaf = False
        self._host = host
        self._context = context
        self._idle_timeout_s = idle_timeout_s
        self._idle_timer: asyncio.TimerHandle | None = None
        self._wake = asyncio.Event()
        self._on_wake: Callable[[], None] = self._wake.set
        self.origin = Origin(self._on_wake)
        self._writing = asyncio.Lock()
        self._attached = asyncio.Event()
        self._ended: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Serves the call until it ends. Cancelled, it leaves its deployment and loses no kept answer."""
        tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._write())]
        for task in tasks:
            task.add_done_callback(self._on_task_done)
        try:
            ending = await self._ended
            await self._finish_write()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._leave()
        if ending.code is not None:
            await self._context.abort(ending.code, ending.details)

    def end(self, code: grpc.StatusCode | None = None, details: str = "") -> None:
        """Ends the call from the service's side; the first ending counts."""
        if not self._ended.done():
            self._ended.set_result(Ending(code, details))

    def deafen(self) -> None:
        """Reads and writes no more; the call stays open until the client gives up."""
        self.deaf = True
        self._wake.set()

    async def send(self, message: models_pb2.ClassifyResponse) -> None:
        """Writes a response to this stream alone."""
        await self._put(message.SerializeToString())

    async def _put(self, message: bytes) -> None:
        async with self._writing:  # two writes at a time would end the call
            await self._context.write(message)

    async def _finish_write(self) -> None:
        """A write that is cancelled half way takes the call's status with it: gRPC then sends the client none, and
        the call stays open there. A client that does not read is not waited for."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_WRITE_PATIENCE_S), self._writing:
                pass

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._ended.done():
            self._ended.set_exception(error)

    async def _read(self) -> None:
        while not self.deaf:
            self._restart_idle_timer()
            data = await self._context.read()
            if not isinstance(data, bytes):
                self.origin.half_closed = True
                if self.deployment is None:
                    self.end()
                self._wake.set()
                return
            try:
                request = models_pb2.ClassifyRequest.FromString(data)
            except DecodeError:
                self.end(grpc.StatusCode.INTERNAL, "The request is no ClassifyRequest.")
                return
            if not await self._belongs(request):
                return
            await self._host.take_request(self, request, len(data))

    async def _belongs(self, request: models_pb2.ClassifyRequest) -> bool:
        """Opens the deployment; ends the stream where its id is invalid or a second one."""
        refusal = deployment_refusal(request.deployment_id)
        if refusal is not None:
            await self.send(models_pb2.ClassifyResponse(global_error=error_of(refusal)))
            self.end(grpc.StatusCode.INVALID_ARGUMENT, refusal.message)
            return False
        if self.deployment is not None and self.deployment.deployment_id != request.deployment_id:
            self.end(grpc.StatusCode.INVALID_ARGUMENT, "A stream belongs to one deployment; this is a second id.")
            return False
        deployment = self._host.open_deployment(self.client, request.deployment_id)
        if self.deployment is None:
            self.deployment = deployment
            deployment.stream_count += 1
            self._attached.set()
        return True

    async def _write(self) -> None:
        await self._attached.wait()
        deployment = self.deployment
        assert deployment is not None
        while not self.deaf and not self._ended.done():
            self._wake.clear()
            kept = None if self._host.held else deployment.take(self._host.now())
            if kept is not None:
                await self._put(kept.message)
            elif self.origin.finished:
                self.end()
                return
            else:
                deployment.wait(self._on_wake)
                await self._wake.wait()
                deployment.unwait(self._on_wake)

    def _restart_idle_timer(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        if self._idle_timeout_s is not None and not self._ended.done():
            self._idle_timer = asyncio.get_running_loop().call_later(
                self._idle_timeout_s, self.end, grpc.StatusCode.UNAVAILABLE, "The stream was idle for too long."
            )

    def _leave(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        if self.deployment is not None:
            self.deployment.stream_count -= 1
            self.deployment.leave(self._on_wake)

    def __repr__(self) -> str:
        return f"Stream({self.deployment!r}, unanswered={self.origin.unanswered}, deaf={self.deaf})"
