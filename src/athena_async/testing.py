"""A fake Athena without a network, for tests of programs that use the client.

    fake = FakeAthena(lambda given: {"UnknownCSAM-Ducks": 0.9})
    async with AthenaClient(ClientConfig(affiliate="acme"), connect=fake.connect) as client:
        result = await client.classify(path)

It keeps what matters of the service: answers belong to a deployment and go to any stream connected to it, they
are kept until one is, and one written to a stream that dies is gone. For real sockets, real
scores and the service's errors there is `athena_async.emulator`.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence

from athena_async import wire
from athena_async.channels.channel import CallFailed, Metadata, StreamCall, Transport
from athena_async.errors import ClassificationError, ErrorCode
from athena_async.results import Classification, DeploymentInfo
from athena_async.wire import Answer, Input, ServiceError

__all__ = ["Answerer", "FakeAthena", "Input"]

Answerer = Callable[[Input], Mapping[str, float] | ClassificationError]
"""From an input to label weights, or to the error that the service answers."""


def _benign(_given: Input) -> Mapping[str, float]:
    return {"UnknownCSAM-Ducks": 1.0}


class FakeAthena:
    """A service in this process. Hand ``connect`` to `AthenaClient`.

    Args:
        answer: what each input gets; by default ``UnknownCSAM-Ducks`` with weight 1.
        latency_s: seconds, or a function that draws them, from a request to its answers; ListDeployments has none.

    Attributes:
        processed: how often each correlation id was processed, which is what a service bills.
        streams: calls that are open, oldest first.

    Invariants: an answer is in ``kept``, on its way, in one stream's queue, read, or lost with a stream.
    """

    def __init__(self, answer: Answerer = _benign, *, latency_s: float | Callable[[], float] = 0.0) -> None:
        self.processed: Counter[str] = Counter()
        self.streams: list[FakeStream] = []
        self.kept: deque[Answer] = deque()
        self.refusal: CallFailed | None = None
        self.deployment_id = ""
        self._answer = answer
        self._latency_s = latency_s
        self._held = False
        self._under_way = 0
        self._turn = 0

    def __repr__(self) -> str:
        return f"FakeAthena({len(self.streams)} streams, backlog {self.backlog})"

    async def connect(self, _endpoint: str) -> Transport:
        """A channel to this fake, whatever the endpoint."""
        return _FakeTransport(self)

    @property
    def backlog(self) -> int:
        """Inputs in process and answers kept."""
        return self._under_way + len(self.kept)

    def hold(self) -> None:
        """Answers are kept from now on."""
        self._held = True

    def release(self) -> None:
        """Kept answers go out, and later ones at once."""
        self._held = False
        self._deliver()

    def refuse(self, code: ErrorCode | None, message: str = "refused by the fake") -> None:
        """New calls fail with this code; None accepts them again."""
        self.refusal = None if code is None else CallFailed(code, message)

    def drop(self, stream: FakeStream | None = None, *, keep_written: bool = False) -> None:
        """Cuts a stream, or all. Answers that were written to it and not read are gone, unless kept."""
        for cut in [stream] if stream is not None else list(self.streams):
            cut.cut(CallFailed(ErrorCode.UNAVAILABLE, "cut by the fake"), keep_written=keep_written)

    def send(self, answers: Sequence[Answer], global_error: ServiceError | None = None) -> bool:
        """Writes a response to one of the streams, which take turns; False where none is connected."""
        if not self.streams:
            return False
        self._turn += 1
        self.streams[self._turn % len(self.streams)].put(wire.write_response(answers, global_error))
        return True

    def draw_latency_s(self) -> float:
        """Seconds from the next request to its answers."""
        return self._latency_s() if callable(self._latency_s) else self._latency_s

    def received(self, inputs: Sequence[Input]) -> None:
        """Inputs came in: they are answered after the latency."""
        self._under_way += len(inputs)
        asyncio.get_running_loop().call_later(self.draw_latency_s(), self._process, inputs)

    def answer(self, given: Input) -> Answer:
        """The answer to one input. Counts it as processed."""
        self.processed[given.correlation_id] += 1
        found = self._answer(given)
        if isinstance(found, ClassificationError):
            return Answer(given.correlation_id, (), ServiceError(found.code, found.message, ""))
        return Answer(given.correlation_id, tuple(Classification(*row) for row in found.items()), None)

    def _process(self, inputs: Sequence[Input]) -> None:
        self._under_way -= len(inputs)
        self.kept.extend(self.answer(given) for given in inputs)
        self._deliver()

    def _deliver(self) -> None:
        if self.kept and not self._held and self.send(list(self.kept)):
            self.kept.clear()

    def join(self, stream: FakeStream, deployment_id: str) -> None:
        """A stream named its deployment: kept answers go to it."""
        self.deployment_id = deployment_id
        if stream not in self.streams:
            self.streams.append(stream)
        self._deliver()


class FakeStream:
    """One call. Invariants: after it was cut, reads and writes fail with the same failure."""

    def __init__(self, service: FakeAthena) -> None:
        self._service = service
        self._queue: deque[bytes | None] = deque()
        self._changed = asyncio.Event()
        self._failure: CallFailed | None = service.refusal

    def put(self, data: bytes | None) -> None:
        """Hands a response to the reader; None half-closes."""
        self._queue.append(data)
        self._changed.set()

    def cut(self, failure: CallFailed, *, keep_written: bool = False) -> None:
        """Ends the call with a failure."""
        self._failure = failure
        if self in self._service.streams:
            self._service.streams.remove(self)
        if keep_written:
            for data in self._queue:
                self._service.kept.extend(wire.read_response(data).answers if data else ())
        self._queue.clear()
        self._changed.set()

    async def connected(self) -> None:
        self._check()

    async def write(self, data: bytes) -> None:
        self._check()
        deployment_id, inputs = wire.read_request(data)
        self._service.join(self, deployment_id)
        if inputs:
            self._service.received(inputs)

    async def read(self) -> bytes | None:
        while not self._queue:
            self._check()
            self._changed.clear()
            await self._changed.wait()
        return self._queue.popleft()

    async def done_writing(self) -> None:
        if self in self._service.streams:
            self._service.streams.remove(self)
        self.put(None)

    def cancel(self) -> None:
        if self._failure is None:
            self.cut(CallFailed(ErrorCode.UNAVAILABLE, "the call was ended on this side"))

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure


class _FakeTransport:
    def __init__(self, service: FakeAthena) -> None:
        self._service = service

    def open_stream(self, metadata: Metadata) -> StreamCall:
        return FakeStream(self._service)

    async def classify_single(self, data: bytes, *, timeout_s: float, metadata: Metadata) -> bytes:
        self._check()
        answer = self._service.answer(wire.read_input(data))  # processed, though the caller may stop waiting
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.sleep(self._service.draw_latency_s())
        except TimeoutError:
            raise CallFailed(ErrorCode.DEADLINE_EXCEEDED, "the fake did not answer in time") from None
        return wire.write_single(answer)

    async def list_deployments(self, *, timeout_s: float, metadata: Metadata) -> bytes:
        self._check()
        service = self._service
        rows = [DeploymentInfo(service.deployment_id, service.backlog)] if service.deployment_id else []
        return wire.write_deployments(rows)

    def is_going_away(self) -> bool:
        return False

    async def aclose(self) -> None:
        return None

    def _check(self) -> None:
        if self._service.refusal is not None:
            raise self._service.refusal
