"""`AthenaClient`: what a program sees."""

from __future__ import annotations

import asyncio
import functools
import os
import random
import uuid
from collections.abc import AsyncGenerator, Iterable
from types import TracebackType
from typing import Self

from aiolimiter import AsyncLimiter

from athena_async.auth.credentials import credentials_from_config
from athena_async.auth.tls import FileWatch, channel_options, check_grpc_trace, load_channel_credentials
from athena_async.channels.channel import Access, CallFailed, Connect, GrpcTransport, Transport
from athena_async.config import ClientConfig, TlsConfig
from athena_async.engine import Engine
from athena_async.errors import ClientClosedError, ErrorCode, RpcError
from athena_async.events import Event, Observer, Opened
from athena_async.flow import Flow
from athena_async.intake import Images, Intake
from athena_async.results import ClassificationResult, DeploymentInfo, DrainReport
from athena_async.stats import ClientStats, client_stats
from athena_async.streams.sinks import GatheringSink, StreamingSink

_EXIT_DRAIN_S = 10.0
_LIST_TIMEOUT_S = 10.0


class AthenaClient:
    """An asyncio client of Athena that keeps many images in flight and gives each exactly one result.

    Use it as an async context manager, in one event loop; calls may run side by side. The first image opens the
    connections, so entering does not fail when the service is away.

    Args:
        config: see `ClientConfig`; by default the public service, without credentials.
        observers: called on the event loop with each `athena_async.events.Event`; see `athena_async.observability`.
        connect: how to make a channel; `athena_async.testing` has one without a network.
        seed: of the jitter and the random balancers, to repeat a run.

    A fault of the client's own ends it: images in flight end with code INTERNAL, the event loop's exception handler
    (``loop.set_exception_handler``) is told at once, and later calls raise ClientClosedError.

    Raises (on entering):
        ConfigError: the environment or the configuration forbids running, e.g. GRPC_TRACE would print tokens.
        MissingExtraError: the configuration needs an optional dependency that is not installed.
        CredentialsError: a certificate or key file cannot be read.
    """

    def __init__(
        self,
        config: ClientConfig | None = None,
        *,
        observers: Iterable[Observer] = (),
        connect: Connect | None = None,
        seed: int | None = None,
    ) -> None:
        self.config = config or ClientConfig()
        self.deployment_id = self.config.deployment_id or f"athena-async-{uuid.uuid4().hex}"
        self._observers = tuple(observers)
        self._connect = connect or functools.partial(_connect, self.config)
        self._rng = random.Random(seed)  # noqa: S311 - jitter, not a secret
        self._engine: Engine | None = None
        self._intake: Intake | None = None

    @classmethod
    def from_env(cls, **overrides: object) -> Self:
        """A client configured by the environment; see `ClientConfig.from_env`."""
        return cls(ClientConfig.from_env(os.environ, **overrides))

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], **overrides: object) -> Self:
        """A client configured by a TOML file; see `ClientConfig.from_file`."""
        return cls(ClientConfig.from_file(path, **overrides))

    def __repr__(self) -> str:
        state = "open" if self._engine is not None and self._engine.is_open else "closed"
        return f"AthenaClient({', '.join(self.config.endpoints)}, deployment {self.deployment_id}, {state})"

    async def __aenter__(self) -> Self:
        if self._engine is not None:
            raise ClientClosedError("a client is entered once; make another one")
        check_grpc_trace(os.environ, allow=self.config.allow_grpc_trace)
        tls = self.config.tls
        watch = FileWatch(tls).wait_changed if isinstance(tls, TlsConfig) else None
        credentials = credentials_from_config(self.config, self._emit)
        access = Access(self._connect, credentials.metadata, credentials.refused)
        flow = Flow(self.config, self.deployment_id, access, self._emit, self._rng)
        engine = Engine(self.config, flow, credentials, watch, self._emit)
        await engine.start()
        self._engine = engine
        self._emit(
            Opened(
                asyncio.get_running_loop().time(),
                self.deployment_id,
                self.config.affiliate,
                not self.config.deployment_id,
            )
        )
        self._intake = Intake(self.config, engine, _rate_limiter(self.config))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose(drain_timeout_s=_EXIT_DRAIN_S if kind is None else 0.0)

    async def aclose(self, drain_timeout_s: float = _EXIT_DRAIN_S) -> DrainReport:
        """Takes no more images, waits for those in flight, and ends.

        What is unanswered after ``drain_timeout_s`` seconds is settled: FAILED where it was never sent, UNKNOWN
        where it was. Calls that still feed images get ClientClosedError. A second call waits for the first and
        reports nothing.

        Returns:
            The correlation ids of the images that were left.

        Raises:
            RuntimeError: called by a source of images that `stream` reads, for whose end it would wait.

        Cancellation: cuts the wait short; the client is closed all the same.
        """
        if self._engine is None:
            return DrainReport()
        if not self._engine.is_open:
            await self._engine.wait_closed()
            return DrainReport()
        return await self._engine.aclose(drain_timeout_s)

    async def classify(self, image: object) -> ClassificationResult:
        """Classifies one image over the stream, together with whatever else is in flight.

        Args:
            image: bytes-like of an image file, a path, a PIL image, a numpy array of shape
                (448, 448, 3), uint8, BGR, or an `ImageInput`.

        Raises:
            ClassificationError: the image's own error, also where its outcome is UNKNOWN.
            ClientClosedError: the client is not open.

        Cancellation: the image is dropped if it was not sent; otherwise its answer is awaited and ignored.
        """
        return (await self.classify_many((image,)))[0].raise_for_error()

    async def classify_many(self, images: Images) -> list[ClassificationResult]:
        """Classifies images and returns one result for each, in input order, always.

        Args:
            images: a sync or async iterable of what `classify` takes. It is pulled as fast as
                the limits allow; a sync iterable is pulled on the event loop and must not block.

        Raises:
            ClientClosedError: the client is not open, or was closed before all images were taken in.
            Exception: whatever the iterable itself raises; results so far are lost with it, so use
                `stream` for sources that fail.

        Cancellation: images that were not sent are dropped; answers to the others are awaited and ignored.
        """
        engine, intake = self._opened()
        sink = GatheringSink()
        try:
            await intake.feed(images, sink)
            return await sink.wait()
        except BaseException:
            engine.abandon(sink)
            raise

    async def stream(self, images: Images, *, window: int | None = None) -> AsyncGenerator[ClassificationResult, None]:
        """Classifies images and yields results as they complete, in any order; `index` tells the position.

        The source is pulled lazily: at most ``window`` images (by default ``limits.max_in_flight``) are taken
        and not yet consumed, so an endless source runs in bounded memory, and a slow consumer
        slows the source.

        Raises:
            ValueError: ``window`` is below 1.
            ClientClosedError: the client is not open, or was closed; after the results of all images taken.
            Exception: whatever the source raises; after the results of all images taken before.

        Cancellation, or closing the generator: as for `classify_many`. Close it (``contextlib.aclosing``) when you
        leave the loop early.
        """
        engine, intake = self._opened()
        window = self.config.limits.max_in_flight if window is None else window
        if window < 1:
            raise ValueError(f"window is {window}, but must be at least 1, or None for limits.max_in_flight")
        sink = StreamingSink(window)
        feeding = engine.spawn(functools.partial(intake.feed_stream, images, sink))
        try:
            while (result := await sink.next()) is not None:
                yield result
        finally:
            feeding.cancel()
            engine.abandon(sink)

    async def classify_single(self, image: object) -> ClassificationResult:
        """Classifies one image by the unary RPC: no stream, no deployment, its answer can only be its own.

        Slower for many images, but the least there is for one. Retried as images on the stream are.

        Raises:
            ClassificationError: the image's own error, or the call's.
            ClientClosedError: the client is not open.

        Cancellation: cancels the call; the image may have been classified, and billed, all the same.
        """
        _, intake = self._opened()
        return (await intake.single(image)).raise_for_error()

    async def list_deployments(self) -> list[DeploymentInfo]:
        """The deployments that the service shows us, with the answers that wait in each.

        Raises:
            RpcError: no endpoint answered; carries the code of the last.
            ClientClosedError: the client is not open.
        """
        engine, _ = self._opened()
        failure = CallFailed(ErrorCode.UNAVAILABLE, "no endpoint")
        for endpoint in self.config.endpoints:
            try:
                return await engine.list_deployments(endpoint, _LIST_TIMEOUT_S)
            except CallFailed as error:
                failure = error
        raise RpcError(failure.code, failure.message)

    async def foreign_results(self) -> AsyncGenerator[ClassificationResult, None]:
        """Answers to other clients of a shared deployment that came to us; `index` is -1. Ends with the client.

        They are kept from the start, ``limits.foreign_results`` of them; the oldest are dropped and counted when
        nobody takes them. While somebody iterates, a stream is held open.

        Cancellation loses none.
        """
        engine, _ = self._opened()
        engine.flow.foreign.readers += 1
        engine.flow.want_streams()
        try:
            while (result := await engine.flow.foreign.next()) is not None:
                yield result
        finally:
            engine.flow.foreign.readers -= 1

    def stats(self) -> ClientStats:
        """The client at this moment; see `ClientStats`.

        Raises:
            ClientClosedError: the client was never entered.
        """
        if self._engine is None:
            raise ClientClosedError("the client was never entered: use `async with AthenaClient(...)`")
        return client_stats(self._engine)

    def _opened(self) -> tuple[Engine, Intake]:
        if self._engine is None or self._intake is None:
            raise ClientClosedError("the client is not open: use `async with AthenaClient(...)`")
        if not self._engine.is_open:
            raise ClientClosedError("the client was closed")
        return self._engine, self._intake

    def _emit(self, event: Event) -> None:
        for observer in self._observers:
            try:
                observer(event)
            except Exception as error:  # noqa: BLE001 - an observer's fault must not stop the client
                asyncio.get_running_loop().call_exception_handler(
                    {"message": f"an observer failed on {type(event).__name__}", "exception": error}
                )


async def _connect(config: ClientConfig, endpoint: str) -> Transport:
    credentials = await load_channel_credentials(config.tls)
    return GrpcTransport(endpoint, config.pool, credentials, channel_options(config.tls))


def _rate_limiter(config: ClientConfig) -> AsyncLimiter | None:
    """One image is one unit: aiolimiter lets small requests overtake large ones."""
    rate = config.limits.images_per_second
    return None if rate is None else AsyncLimiter(max(1.0, rate / 10), max(1.0, rate / 10) / rate)
