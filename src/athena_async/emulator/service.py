"""The three RPCs, and the work on a request from its arrival to its kept answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

import grpc

from athena_async import wire
from athena_async._proto.athena import models_pb2
from athena_async.emulator.admission import Admission
from athena_async.emulator.audit import ABANDONED
from athena_async.emulator.background import Background
from athena_async.emulator.config import EmulatorConfig
from athena_async.emulator.decoding import Refusal
from athena_async.emulator.deployments import Deployment, Deployments, Kept
from athena_async.emulator.faults import Faults
from athena_async.emulator.model import ServiceQueue
from athena_async.emulator.processing import Caller, Processor, Work, correlation_refusal, error_of
from athena_async.emulator.streams import Stream
from athena_async.errors import ErrorCode

_QUEUE_FULL = "The queue is full; try again later."


class ClassifierService:
    """Invariants: what a request was accepted for outlives its stream, as a task of ``background``;
    each input that was received is audited once.

    Attributes:
        streams: the Classify calls that are open now.
        held: answers are made and kept, but none is given out.
    """

    def __init__(
        self,
        config: EmulatorConfig,
        *,
        processor: Processor,
        deployments: Deployments,
        admission: Admission,
        queue: ServiceQueue,
        background: Background,
        go_away: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        self.streams: set[Stream] = set()
        self.held = False
        self._config = config
        self._processor = processor
        self._deployments = deployments
        self._admission = admission
        self._queue = queue
        self._background = background
        self._go_away = go_away
        self._processing_bytes = 0
        self._changed = asyncio.Event()

    @property
    def _faults(self) -> Faults:
        return self._processor.faults

    def now(self) -> float:
        return self._processor.clock.now()

    def handlers(self) -> grpc.GenericRpcHandler:
        """The RPCs, on bytes."""
        return grpc.method_handlers_generic_handler(
            wire.SERVICE,
            {
                "Classify": grpc.stream_stream_rpc_method_handler(self.classify),
                "ListDeployments": grpc.unary_unary_rpc_method_handler(self.list_deployments),
                "ClassifySingle": grpc.unary_unary_rpc_method_handler(
                    self.classify_single,
                    request_deserializer=models_pb2.ClassificationInput.FromString,
                    response_serializer=models_pb2.ClassificationOutput.SerializeToString,
                ),
            },
        )

    def release(self) -> None:
        """Gives out what was held, and holds nothing more."""
        self.held = False
        self._wake_waiters()
        for deployment in self._deployments.all():
            deployment.wake_all()

    async def classify(self, _requests: object, context: Any) -> None:
        """The bidirectional stream."""
        client = await self._admission.client_of(context)
        stream = Stream(self, client, context, self._config.behaviour.stream_idle_timeout_s)
        self.streams.add(stream)
        try:
            await stream.run()
        finally:
            self.streams.discard(stream)

    async def list_deployments(self, _request: bytes, context: Any) -> bytes:
        """The caller's deployments."""
        client = await self._admission.client_of(context)
        listed = self._deployments.listed(client, self.now())
        return models_pb2.ListDeploymentsResponse(
            deployments=[models_pb2.Deployment(deployment_id=row.deployment_id, backlog=row.backlog) for row in listed]
        ).SerializeToString()

    async def classify_single(
        self, request: models_pb2.ClassificationInput, context: Any
    ) -> models_pb2.ClassificationOutput:
        """One image, outside any deployment."""
        client = await self._admission.client_of(context)
        work, caller = Work.of(request), Caller(client, "ClassifySingle", None)
        finish_s = self._queue.accept(self._loop_time(), 1, work.size_bytes)
        if finish_s is None:
            self._processor.record(caller, [work], "RESOURCE_EXHAUSTED")
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, _QUEUE_FULL)
        work.refusal = self._processor.affiliate_refusal(client, [work]) or correlation_refusal(work.correlation_id)
        await self._finish(caller, [work], finish_s or 0.0)
        while self.held:
            self._changed.clear()
            await self._changed.wait()
        return work.output()

    def open_deployment(self, client: str, deployment_id: str) -> Deployment:
        ready_s = self._loop_time() + self._queue.model.startup_s
        return self._deployments.open(client, deployment_id, self.now(), ready_s)

    async def take_request(self, stream: Stream, request: models_pb2.ClassifyRequest, size_bytes: int) -> None:
        """Checks a request and begins to work on it; waits while there is too much in work already."""
        deployment = stream.deployment
        if deployment is None or not request.inputs:
            return
        works = [Work.of(item) for item in request.inputs]
        caller = Caller(stream.client, "Classify", deployment.deployment_id)
        dropped = self._faults.strikes("drop_streams")
        if dropped and self._faults.plan.drop_loses_request:
            self._processor.record(caller, works, ABANDONED)
        elif (refusal := self._request_refusal(stream.client, works)) is not None:
            await self._refuse(stream, caller, works, refusal)
        else:
            self._accept(stream, deployment, caller, works, size_bytes)
        await self._strike_stream(stream, dropped=dropped)
        await self._wait_for_room(deployment)

    def _request_refusal(self, client: str, works: Sequence[Work]) -> Refusal | None:
        refusal = self._processor.affiliate_refusal(client, works)
        if refusal is None and self._faults.strikes("global_errors"):
            return Refusal(ErrorCode(self._faults.plan.global_error_code), "Injected by the fault plan.")
        return refusal

    async def _refuse(self, stream: Stream, caller: Caller, works: Sequence[Work], refusal: Refusal) -> None:
        """Answers a whole request with one global error."""
        self._processor.record(caller, works, refusal.code.value)
        message = models_pb2.ClassifyResponse(global_error=error_of(refusal))
        if self._config.behaviour.share_global_errors and stream.deployment is not None:
            stream.deployment.keep(Kept(message.SerializeToString(), (), None, 0, self.now()))
        else:
            await stream.send(message)

    def _accept(
        self, stream: Stream, deployment: Deployment, caller: Caller, works: Sequence[Work], size_bytes: int
    ) -> None:
        """Begins to work on a request, or ends the stream where the queue is full."""
        finish_s = self._queue.accept(self._loop_time(), len(works), size_bytes, deployment.ready_s)
        if finish_s is None:
            self._processor.record(caller, works, "RESOURCE_EXHAUSTED")
            stream.end(grpc.StatusCode.RESOURCE_EXHAUSTED, _QUEUE_FULL)
            return
        if self._faults.strikes("delay"):
            finish_s = max(finish_s, self._loop_time()) + self._faults.plan.delay_s
        for work in works:
            work.refusal = self._correlation_refusal(deployment, work.correlation_id)
            if work.refusal is None:
                deployment.admit(work.correlation_id)
                work.admitted = True
        stream.origin.unanswered += len(works)
        self._processing_bytes += size_bytes
        self._background.start(self._answer(stream, deployment, caller, works, finish_s, size_bytes))

    def _correlation_refusal(self, deployment: Deployment, correlation_id: str) -> Refusal | None:
        if self._config.behaviour.duplicate_ids == "reject" and deployment.is_unanswered(correlation_id):
            return Refusal(
                ErrorCode.CORRELATION_ID_INVALID,
                "The correlation id is not unique: it is unanswered in the deployment.",
            )
        return correlation_refusal(correlation_id)

    async def _answer(
        self,
        stream: Stream,
        deployment: Deployment,
        caller: Caller,
        works: Sequence[Work],
        finish_s: float,
        size_bytes: int,
    ) -> None:
        """Works on a request and keeps its answers, unless the deployment was purged meanwhile.

        Cancelled, it owes the deployment nothing more.
        """
        generation = deployment.generation
        try:
            await self._finish(caller, works, finish_s)
            for part in _parts(works, self._config.behaviour.outputs_per_response):
                await self._give(stream, deployment, part, generation)
        except asyncio.CancelledError:
            if deployment.generation == generation:
                deployment.settle([work.correlation_id for work in works if work.admitted], None, 0)
            raise
        finally:
            self._processing_bytes -= size_bytes
            self._wake_waiters()

    async def _finish(self, caller: Caller, works: Sequence[Work], finish_s: float) -> None:
        """Scores and audits; returns at ``finish_s`` at the earliest. Cancelled, it audits ABANDONED."""
        try:
            await self._processor.process(works)
            await asyncio.sleep(max(0.0, finish_s - self._loop_time()))
        except BaseException:
            self._processor.record(caller, works, ABANDONED)
            raise
        self._processor.record(caller, works)

    async def _give(self, stream: Stream, deployment: Deployment, works: Sequence[Work], generation: int) -> None:
        """Keeps one response for this generation of the deployment, as the fault plan has it."""
        faults = self._faults
        admitted = tuple(work.correlation_id for work in works if work.admitted)
        if faults.strikes("reorder"):
            works = [works[index] for index in faults.shuffled(len(works))]
            await asyncio.sleep(faults.plan.reorder_s)
        if deployment.generation != generation:
            stream.origin.settle(len(works))
            return
        if faults.strikes("omit"):
            deployment.settle(admitted, stream.origin, len(works))
            return
        message = _response(work.output() for work in works)
        if faults.strikes("foreign"):
            answer = models_pb2.ClassificationOutput(correlation_id=faults.foreign_id())
            answer.classifications.add(label="UnknownCSAM-Goose", weight=1.0)
            deployment.keep(Kept(_response([answer]), (), None, 0, self.now()))
        if faults.strikes("duplicate"):
            deployment.keep(Kept(message, (), None, 0, self.now()))
        deployment.keep(Kept(message, admitted, stream.origin, len(works), self.now()))

    async def _strike_stream(self, stream: Stream, *, dropped: bool) -> None:
        """Deals the faults that hit a stream once its request was taken."""
        if dropped:
            stream.end(grpc.StatusCode[self._faults.plan.drop_code], "Dropped by the fault plan.")
        if self._faults.strikes("half_close"):
            stream.end()
        if self._faults.strikes("blackhole"):
            stream.deafen()
        if self._faults.strikes("goaway"):
            self._background.start(self._go_away())  # must not end with the stream

    async def _wait_for_room(self, deployment: Deployment) -> None:
        """Returns once more may be taken in: memory is bounded by what is in work and what is kept."""
        config = self._config
        while self._processing_bytes > config.max_processing_bytes or deployment.backlog >= config.max_unanswered:
            self._changed.clear()
            deployment.wait_for_room(self._wake_waiters)
            await self._changed.wait()

    def _wake_waiters(self) -> None:
        self._changed.set()

    @staticmethod
    def _loop_time() -> float:
        return asyncio.get_running_loop().time()

    def __repr__(self) -> str:
        return f"ClassifierService({len(self.streams)} streams, {self._deployments!r}, held={self.held})"


def _response(outputs: Iterable[models_pb2.ClassificationOutput]) -> bytes:
    return models_pb2.ClassifyResponse(outputs=outputs).SerializeToString()


def _parts(works: Sequence[Work], size: int | None) -> Iterable[Sequence[Work]]:
    step = size or len(works)
    return (works[start : start + step] for start in range(0, len(works), step))
