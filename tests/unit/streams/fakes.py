"""A transport in memory, and short ways to make tickets, batches and answers."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from athena_async import wire
from athena_async._proto.athena import models_pb2
from athena_async.channels.channel import Access, CallFailed, Metadata
from athena_async.errors import ErrorCode
from athena_async.images.inputs import Kind, Source
from athena_async.resilience.backoff import Backoff
from athena_async.results import Classification, ClassificationResult
from athena_async.streams.hooks import Hooks
from athena_async.streams.loss import Loss
from athena_async.streams.session import Session, SessionSettings
from athena_async.streams.ticket import Batch, Ticket

HEAD = wire.request_head("a-deployment")
ENDPOINT = "there:1"
SCORES = (Classification("UnknownCSAM-Ducks", 0.5),)


class ListSink:
    """Keeps what is delivered."""

    def __init__(self) -> None:
        self.abandoned = False
        self.results: list[ClassificationResult] = []

    def deliver(self, result: ClassificationResult) -> None:
        self.results.append(result)

    def by_id(self) -> dict[str, ClassificationResult]:
        assert len({r.correlation_id for r in self.results}) == len(self.results), "an image was delivered twice"
        return {result.correlation_id: result for result in self.results}


def ticket(
    correlation_id: str = "an-id",
    *,
    sink: ListSink | None = None,
    index: int = 0,
    affiliate: str = "acme",
    size_bytes: int = 100,
    accepted_s: float = 0.0,
    deadline_s: float = 120.0,
) -> Ticket:
    """A prepared image."""
    source = Source(Kind.BYTES, b"x", size_bytes)
    made = Ticket(correlation_id, index, affiliate, source, sink or ListSink(), size_bytes, accepted_s, deadline_s)
    payload = b""
    while (frame := wire.frame_input(affiliate, correlation_id, wire.Payload(payload))).size_bytes < size_bytes:
        payload += bytes(max(1, size_bytes - frame.size_bytes - 8))
    made.prepared(frame)
    assert made.frame is not None
    made.reserved_bytes = made.frame.size_bytes
    return made


def tickets(*names: str, **kwargs: Any) -> list[Ticket]:
    return [ticket(name, index=index, **kwargs) for index, name in enumerate(names)]


class FakeCarrier:
    """Notes what a batch tells it."""

    endpoint = ENDPOINT

    def __init__(self) -> None:
        self.over: list[Batch] = []
        self.released: list[Batch] = []

    def finished(self, batch: Batch, now: float) -> None:
        self.over.append(batch)

    def release(self, batch: Batch) -> list[Ticket]:
        self.released.append(batch)
        return batch.release()


def batch_of(
    images: Iterable[Ticket], carrier: Any = None, now: float = 0.0, *, in_flight: int = 1, queue_depth: int = 0
) -> Batch:
    images = list(images)
    size_bytes = sum(image.frame.size_bytes for image in images if image.frame)
    return Batch(images, size_bytes, carrier or FakeCarrier(), now, in_flight=in_flight, queue_depth=queue_depth)


def good(correlation_id: str) -> wire.Answer:
    return wire.Answer(correlation_id, SCORES, None)


def bad(correlation_id: str, code: ErrorCode, message: str = "no") -> wire.Answer:
    return wire.Answer(correlation_id, (), wire.ServiceError(code, message, ""))


def response(*answers: wire.Answer, global_error: ErrorCode | None = None) -> wire.Response:
    error = None if global_error is None else wire.ServiceError(global_error, "the whole request failed", "")
    return wire.Response(answers, error)


def answer_bytes(*correlation_ids: str) -> bytes:
    """A serialized response that classifies these images."""
    message = models_pb2.ClassifyResponse()
    for correlation_id in correlation_ids:
        output = message.outputs.add(correlation_id=correlation_id)
        output.classifications.add(label="UnknownCSAM-Ducks", weight=0.5)
    return message.SerializeToString()


def sent_ids(request: bytes) -> list[str]:
    """The correlation ids of a request as it was written."""
    return [image.correlation_id for image in models_pb2.ClassifyRequest.FromString(request).inputs]


class FakeCall:
    """One call in memory. The test plays the server by `feed`, `end` and `fail`.

    ``gate`` holds writes back while it is cleared.
    """

    def __init__(self, metadata: Metadata, *, connect: CallFailed | None, hang: bool) -> None:
        self.metadata = metadata
        self.written: list[bytes] = []
        self.written_s: list[float] = []
        self.half_closed = False
        self.cancelled = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.write_failure: CallFailed | None = None
        self.write_attempts = 0
        self._connect = connect
        self._hang = hang
        self._incoming: deque[bytes | CallFailed | None] = deque()
        self._changed = asyncio.Event()
        self._reading = self._writing = False

    def feed(self, data: bytes) -> None:
        self._put(data)

    def answer(self, *correlation_ids: str) -> None:
        self._put(answer_bytes(*correlation_ids))

    def end(self) -> None:
        """The server half-closes with status OK."""
        self._put(None)

    def fail(self, code: ErrorCode, message: str = "the server's words", pushback_s: float | None = None) -> None:
        self._put(CallFailed(code, message, pushback_s))

    @property
    def keepalives(self) -> int:
        """Empty requests after the first, which joins the deployment."""
        return sum(request == HEAD for request in self.written[1:])

    @property
    def requests(self) -> list[list[str]]:
        """Correlation ids of each request that carried images."""
        return [sent_ids(request) for request in self.written if request != HEAD]

    async def connected(self) -> None:
        if self._hang:
            await asyncio.Event().wait()
        if self._connect is not None:
            raise self._connect

    async def write(self, data: bytes) -> None:
        assert not self._writing, "two concurrent writes kill a call"
        assert not self.half_closed, "written after the half-close"
        self._writing = True
        self.write_attempts += 1
        try:
            await self.gate.wait()
            if self.write_failure is not None:
                raise self.write_failure
            if self.cancelled:
                raise CallFailed(ErrorCode.UNAVAILABLE, "the call was ended on this side")
            self.written.append(data)
            self.written_s.append(asyncio.get_running_loop().time())
        except asyncio.CancelledError:
            self.cancel()
            raise
        finally:
            self._writing = False

    async def read(self) -> bytes | None:
        assert not self._reading, "two concurrent reads"
        self._reading = True
        try:
            while not self._incoming:
                self._changed.clear()
                await self._changed.wait()
        except asyncio.CancelledError:
            self.cancel()
            raise
        finally:
            self._reading = False
        item = self._incoming.popleft()
        if isinstance(item, CallFailed):
            raise item
        return item

    async def done_writing(self) -> None:
        self.half_closed = True

    def cancel(self) -> None:
        if not self.cancelled:
            self.cancelled = True
            self.gate.set()
            self._put(CallFailed(ErrorCode.UNAVAILABLE, "the call was ended on this side"))

    def _put(self, item: bytes | CallFailed | None) -> None:
        self._incoming.append(item)
        self._changed.set()


class FakeTransport:
    """A channel in memory. ``connects`` says how each next call fares: None, a failure, or "hang"."""

    def __init__(self, *connects: CallFailed | str | None) -> None:
        self.calls: list[FakeCall] = []
        self.closed = 0
        self.going_away = False
        self.unary_answers: deque[bytes | CallFailed] = deque()
        self.unary_requests: list[bytes] = []
        self._connects = deque(connects)

    @property
    def call(self) -> FakeCall:
        """The newest."""
        return self.calls[-1]

    def open_stream(self, metadata: Metadata) -> FakeCall:
        how = self._connects.popleft() if self._connects else None
        made = FakeCall(metadata, connect=how if isinstance(how, CallFailed) else None, hang=how == "hang")
        self.calls.append(made)
        return made

    async def classify_single(self, data: bytes, *, timeout_s: float, metadata: Metadata) -> bytes:
        return self._unary(data)

    async def list_deployments(self, *, timeout_s: float, metadata: Metadata) -> bytes:
        return self._unary(b"")

    def is_going_away(self) -> bool:
        return self.going_away

    async def aclose(self) -> None:
        self.closed += 1

    def _unary(self, data: bytes) -> bytes:
        self.unary_requests.append(data)
        answer = self.unary_answers.popleft()
        if isinstance(answer, CallFailed):
            raise answer
        return answer


class FakeAccess:
    """Tokens that count up; notes which were refused."""

    def __init__(self, transport: FakeTransport, *, token: bool = True) -> None:
        self.transport = transport
        self.token_count = 1
        self.refused_tokens: list[Metadata] = []
        self.failure: Exception | None = None
        self.connected: list[str] = []
        self._token = token

    def access(self) -> Access:
        return Access(self._connect, self._authorize, self._refused)

    async def _connect(self, endpoint: str) -> FakeTransport:
        self.connected.append(endpoint)
        return self.transport

    async def _authorize(self) -> Metadata:
        if self.failure is not None:
            raise self.failure
        return (("authorization", f"Bearer {self.token_count}"),) if self._token else ()

    def _refused(self, metadata: Metadata) -> None:
        self.refused_tokens.append(metadata)
        self.token_count += 1


class SessionBench:
    """One session on a fake transport, and everything that it tells."""

    def __init__(
        self,
        transport: FakeTransport,
        *,
        keepalive_interval_s: float = 10.0,
        connect_timeout_s: float = 5.0,
        idle_timeout_s: float = 300.0,
        backoff: Backoff | None = None,
        access: FakeAccess | None = None,
        outbox_batches: int = 2,
    ) -> None:
        self.transport = transport
        self.access = access or FakeAccess(transport)
        self.losses: list[Loss] = []
        self.responses: list[wire.Response] = []
        self.finished: list[Batch] = []
        self.over: list[Batch] = []
        self.writing: list[Batch] = []
        self.wrote: list[tuple[int, float]] = []
        self.opened_s: list[float] = []
        self.rested_s: list[float] = []
        self.room_count = 0
        self.may_rest = True
        self.on_opened: Callable[[Session], None] = lambda _session: None
        self.on_room: Callable[[], None] = lambda: None
        settings = SessionSettings(
            HEAD, keepalive_interval_s, connect_timeout_s, idle_timeout_s, backoff or Backoff(0.1, 10.0), outbox_batches
        )
        self.session = Session(ENDPOINT, 1, self.access.access(), settings, self._hooks(), random.Random(1))

    def _hooks(self) -> Hooks:
        return Hooks(
            opened=self._opened,
            received=self._received,
            writing=lambda _session, batch: self.writing.append(batch),
            wrote=lambda _session, size_bytes, waited_s: self.wrote.append((size_bytes, waited_s)),
            batch_finished=lambda _session, batch, _now: self.finished.append(batch),
            batch_over=lambda _session, batch: self.over.append(batch),
            lost=lambda _session, loss: self.losses.append(loss),
            rested=lambda _session: self.rested_s.append(self.now),
            room=self._room,
            may_rest=lambda: self.may_rest,
        )

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    @property
    def call(self) -> FakeCall:
        return self.transport.call

    def send(self, *names: str, **kwargs: Any) -> Batch:
        """Hands the session a batch of new images."""
        return self.send_tickets(tickets(*names, **kwargs))

    def send_tickets(self, images: list[Ticket]) -> Batch:
        batch = batch_of(images, self.session, self.now)
        self.session.send(batch)
        return batch

    def answer(self, batch: Batch) -> None:
        """Settles all images of a batch, as answers from elsewhere would."""
        for image in batch.open_tickets():
            batch.answered(image, self.now)

    async def open(self) -> FakeCall:
        """Demands a stream and returns once it is open."""
        self.session.demand()
        await settle()
        return self.call

    def _opened(self, session: Session) -> None:
        self.opened_s.append(self.now)
        self.on_opened(session)

    def _received(self, _session: Session, received: wire.Response) -> None:
        self.responses.append(received)

    def _room(self) -> None:
        self.room_count += 1
        self.on_room()


async def settle(turns: int = 50) -> None:
    """Lets everything run that can without time passing."""
    for _ in range(turns):
        await asyncio.sleep(0)
