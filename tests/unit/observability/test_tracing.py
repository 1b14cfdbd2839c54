"""Events as spans, and the trace context of calls."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("opentelemetry.sdk")

from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from athena_async import events
from athena_async.observability.tracing import MOST_OPEN_STREAMS, TracingObserver, inject_metadata

from .conftest import ALL, CANARY_HASH, CANARY_TOKEN, ENDPOINT, OPENED


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter: InMemorySpanExporter) -> TracerProvider:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider


def test_a_batch_is_a_span_of_its_latency(provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
    observer = TracingObserver(provider)
    observer(OPENED)
    observer(events.BatchAnswered(1.0, ENDPOINT, 1, 48, 4000, 0.25, "image-1"))
    (span,) = exporter.get_finished_spans()
    assert span.name == "athena.batch"
    assert span.end_time - span.start_time == 250_000_000
    assert span.kind is trace.SpanKind.CLIENT
    assert span.parent is None
    expected = {"athena.images": 48, "athena.correlation_id": "image-1", "athena.deployment_id": "team-7"}
    assert expected.items() <= dict(span.attributes).items()


def test_a_batch_is_no_child_of_whoever_is_current(provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
    with provider.get_tracer("test").start_as_current_span("a caller"):
        TracingObserver(provider)(events.BatchAnswered(1.0, ENDPOINT, 1, 48, 4000, 0.25, "image-1"))
    assert exporter.get_finished_spans()[0].parent is None


def test_a_stream_is_a_span_with_its_status(provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
    observer = TracingObserver(provider)
    observer(events.StreamOpened(1.0, ENDPOINT, 1))
    observer(events.StreamOpened(1.0, ENDPOINT, 2))
    observer(events.EndpointEjected(1.0, ENDPOINT, "3 failures", 5.0))
    observer(events.StreamClosed(1.0, ENDPOINT, 1, "UNAVAILABLE", "gone", 7))
    observer(events.StreamClosed(1.0, ENDPOINT, 2, "OK", "", 0))
    observer(events.StreamClosed(1.0, ENDPOINT, 3, "OK", "", 0))
    lost, ended = exporter.get_finished_spans()
    assert (lost.name, lost.status.status_code, lost.status.description) == (
        "athena.stream",
        trace.StatusCode.ERROR,
        "UNAVAILABLE",
    )
    assert ended.status.status_code is trace.StatusCode.UNSET
    assert [event.name for event in lost.events] == ["ejected"]


def test_open_streams_end_with_the_client(provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
    observer = TracingObserver(provider)
    observer(events.StreamOpened(1.0, ENDPOINT, 1))
    observer(events.Drained(1.0, 0))
    assert [span.name for span in exporter.get_finished_spans()] == ["athena.stream"]


def test_streams_that_never_end_are_bounded(provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
    observer = TracingObserver(provider)
    for number in range(MOST_OPEN_STREAMS + 5):
        observer(events.StreamOpened(1.0, ENDPOINT, number))
    assert len(exporter.get_finished_spans()) == 5
    assert repr(observer) == f"TracingObserver({MOST_OPEN_STREAMS} open streams)"


def test_no_span_holds_a_canary(provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
    observer = TracingObserver(provider)
    for event in (*ALL[:6], events.StreamOpened(1.0, ENDPOINT, 1), *ALL[7:]):
        observer(event)
    text = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert "athena.stream" in text
    assert CANARY_TOKEN not in text
    assert CANARY_HASH not in text


def test_without_an_sdk_nothing_happens() -> None:
    observer = TracingObserver()
    for event in ALL:
        observer(event)


def test_calls_carry_the_current_span_and_no_baggage(provider: TracerProvider) -> None:
    assert inject_metadata() == ()
    with provider.get_tracer("test").start_as_current_span("a caller") as span:
        token = context.attach(baggage.set_baggage("customer", "secret"))
        try:
            ((name, value),) = inject_metadata()
        finally:
            context.detach(token)
    assert name == "traceparent"
    assert format(span.get_span_context().trace_id, "032x") in value


def test_without_opentelemetry_calls_carry_nothing() -> None:
    program = """
import sys
from athena_async.observability.tracing import inject_metadata
assert inject_metadata() == ()
assert "opentelemetry" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
