"""Matching answers to images: a response with 200 of them, among 4096 open ones."""

from __future__ import annotations

from pytest_benchmark.fixture import BenchmarkFixture

from athena_async import wire
from athena_async.images.inputs import ImageInput, to_source
from athena_async.streams.demultiplexer import CorrelationIds, Demultiplexer
from athena_async.streams.sinks import GatheringSink
from athena_async.streams.ticket import Ticket
from benchmarks import inputs


def tickets(ids: CorrelationIds, count: int) -> list[Ticket]:
    sink, source = GatheringSink(), to_source(ImageInput(md5=inputs.digests(1)[0]))
    return [Ticket(ids.next(), i, "bench", source, sink, 256, 0.0, 60.0) for i in range(count)]


def test_register_and_forget(benchmark: BenchmarkFixture) -> None:
    ids = CorrelationIds()
    demultiplexer, given = Demultiplexer(ids.prefix), tickets(ids, 200)

    def through() -> None:
        for ticket in given:
            demultiplexer.register(ticket)
        for ticket in given:
            demultiplexer.forget(ticket)

    benchmark(through)
    assert not len(demultiplexer)


def test_route(benchmark: BenchmarkFixture) -> None:
    ids = CorrelationIds()
    demultiplexer, given = Demultiplexer(ids.prefix), tickets(ids, 4096)
    for ticket in given:
        ticket.attempts = 1
        demultiplexer.register(ticket)
    answers = [wire.Answer(ticket.correlation_id, (), None) for ticket in given[2000:2200]]
    assert len(benchmark(demultiplexer.route, answers).matched) == 200
