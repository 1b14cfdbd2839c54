"""Events as OpenTelemetry spans (extra ``tracing``): one span for each batch, one for each stream.

A batch holds images of many callers, so its span has no parent; it names the correlation id of its
first image. Spans of streams are marked as errors by the stream's status.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from athena_async import events
from athena_async._version import __version__
from athena_async.errors import MissingExtraError

if TYPE_CHECKING:
    from opentelemetry.trace import Span, TracerProvider

Metadata = tuple[tuple[str, str], ...]

MOST_OPEN_STREAMS = 1024
"""Spans of streams held at once; beyond, the oldest ends."""

_SERVICE = {"rpc.system": "grpc", "rpc.service": "athena.ClassifierService", "rpc.method": "Classify"}


def inject_metadata() -> Metadata:
    """``traceparent`` (and ``tracestate``) of the span that is current here, for the metadata of a call.

    Nothing where no span is current, or where the program does not use OpenTelemetry. Baggage is
    left out: it was not meant for the service.
    """
    if "opentelemetry" not in sys.modules:  # then there can be no span
        return ()
    try:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
    except ImportError:
        return ()
    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return tuple(carrier.items())


class TracingObserver:
    """Makes spans of events. One observer serves one client.

    Args:
        provider: where spans go; None is the global provider.

    Raises:
        MissingExtraError: the extra ``tracing`` is not installed.
    """

    def __init__(self, provider: TracerProvider | None = None) -> None:
        try:
            from opentelemetry import trace
            from opentelemetry.context import Context
        except ImportError:
            raise MissingExtraError("TracingObserver", "tracing") from None
        self._trace = trace
        self._no_parent = Context()
        self._tracer = trace.get_tracer("athena_async", __version__, provider)
        self._deployment_id = ""
        self._streams: dict[tuple[str, int], Span] = {}

    def __call__(self, event: events.Event) -> None:
        if isinstance(event, events.BatchAnswered):
            self._answered(event)
        elif isinstance(event, events.StreamOpened):
            self._stream_opened(event)
        elif isinstance(event, events.StreamClosed):
            self._stream_closed(event)
        elif isinstance(event, events.GlobalErrorReceived):
            self._note(event.endpoint, "global_error", {"athena.code": event.code, "athena.suspects": event.suspects})
        elif isinstance(event, events.EndpointEjected):
            self._note(event.endpoint, "ejected", {"athena.ejected_s": event.ejected_s})
        elif isinstance(event, events.Opened):
            self._deployment_id = event.deployment_id
        elif isinstance(event, events.Drained):
            self._end_streams()

    def _answered(self, event: events.BatchAnswered) -> None:
        end_ns = time.time_ns()
        span = self._span("athena.batch", event.endpoint, event.channel_id, end_ns - int(event.latency_s * 1e9))
        if span.is_recording():
            span.set_attributes(
                {
                    "athena.images": event.images,
                    "athena.size_bytes": event.size_bytes,
                    "athena.correlation_id": event.correlation_id,
                }
            )
        span.end(end_ns)

    def _stream_opened(self, event: events.StreamOpened) -> None:
        key = (event.endpoint, event.channel_id)
        if len(self._streams) >= MOST_OPEN_STREAMS:
            self._streams.pop(next(iter(self._streams))).end()
        self._streams[key] = self._span("athena.stream", *key, time.time_ns())

    def _stream_closed(self, event: events.StreamClosed) -> None:
        span = self._streams.pop((event.endpoint, event.channel_id), None)
        if span is None:
            return
        span.set_attributes({"rpc.grpc.status": event.code, "athena.possibly_sent": event.possibly_sent})
        if event.code != "OK":
            span.set_status(self._trace.StatusCode.ERROR, event.code)
        span.end()

    def _note(self, endpoint: str, name: str, attributes: dict[str, str | int | float]) -> None:
        """Notes what befell an endpoint on the spans of its open streams."""
        for (of, _), span in self._streams.items():
            if of == endpoint:
                span.add_event(name, attributes)

    def _end_streams(self) -> None:
        while self._streams:
            self._streams.popitem()[1].end()

    def _span(self, name: str, endpoint: str, channel_id: int, start_ns: int) -> Span:
        attributes = _SERVICE | {
            "server.address": endpoint,
            "athena.channel_id": str(channel_id),
            "athena.deployment_id": self._deployment_id,
        }
        kind = self._trace.SpanKind.CLIENT
        return self._tracer.start_span(name, self._no_parent, kind, attributes, start_time=start_ns)

    def __repr__(self) -> str:
        return f"TracingObserver({len(self._streams)} open streams)"
