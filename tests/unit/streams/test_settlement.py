from __future__ import annotations

from athena_async.errors import ErrorCode
from athena_async.events import Event, ImagesSettled
from athena_async.resilience.limits import InFlightLimit
from athena_async.results import Outcome
from athena_async.streams.demultiplexer import Demultiplexer
from athena_async.streams.settlement import Settlement
from athena_async.streams.ticket import Ticket
from tests.unit.streams.fakes import SCORES, FakeCarrier, ListSink, batch_of, tickets


class Bench:
    def __init__(self) -> None:
        self.sink = ListSink()
        self.limit = InFlightLimit(100, 10_000)
        self.table = Demultiplexer("own-")
        self.events: list[Event] = []
        self.emptied_count = 0
        self.settlement = Settlement(self.table, self.limit, self.events.append, lambda: 9.0, self._emptied)

    def accept(self, *names: str) -> list[Ticket]:
        images = tickets(*names, sink=self.sink)
        for image in images:
            assert self.limit.try_acquire(image.reserved_bytes)
            self.table.register(image)
        return images

    def settle(self, *images: Ticket) -> None:
        self.settlement.settle([(image, image.classified(SCORES, 9.0)) for image in images])

    def _emptied(self) -> None:
        self.emptied_count += 1


def test_settles_once_and_gives_back_everything() -> None:
    bench = Bench()
    a, b = bench.accept("own-a", "b")
    carrier = FakeCarrier()
    batch_of([a], carrier)
    bench.settle(a, a)
    bench.settle(a)
    assert [result.correlation_id for result in bench.sink.results] == ["own-a"]
    assert (bench.limit.images, bench.limit.size_bytes, len(bench.table)) == (1, 100, 1)
    assert (a.settled, a.frame, a.batch, len(carrier.released)) == (True, None, None, 1)
    assert bench.emptied_count == 0
    bench.settle(b)
    assert (bench.limit.images, bench.limit.size_bytes, bench.emptied_count) == (0, 0, 1)
    assert bench.settlement.totals.settled_count == 2


def test_tells_once_per_call_what_became_of_the_images() -> None:
    bench = Bench()
    a, b, c = bench.accept("a", "b", "c")
    bench.settlement.settle(
        [
            (a, a.classified(SCORES, 9.0)),
            (b, b.result(Outcome.FAILED, 3.0, ErrorCode.INVALID_IMAGE, "no")),
            (c, c.result(Outcome.UNKNOWN, 2.0, ErrorCode.UNAVAILABLE, "lost")),
        ]
    )
    (event,) = bench.events
    assert isinstance(event, ImagesSettled)
    assert event.outcomes == {Outcome.CLASSIFIED: 1, Outcome.FAILED: 1, Outcome.UNKNOWN: 1}
    assert event.errors == {ErrorCode.INVALID_IMAGE: 1, ErrorCode.UNAVAILABLE: 1}
    assert (event.at_s, event.latency_s) == (9.0, 9.0)
    bench.settle(a)
    bench.settlement.settle([])
    assert len(bench.events) == 1
    assert bench.settlement.totals.outcomes == event.outcomes


def test_an_abandoned_image_is_settled_silently() -> None:
    bench = Bench()
    (a,) = bench.accept("a")
    bench.sink.abandoned = True
    bench.settle(a)
    assert bench.sink.results == []
    assert (bench.limit.images, len(bench.table), bench.settlement.totals.settled_count) == (0, 0, 1)


def test_failing_gives_each_its_own_error() -> None:
    bench = Bench()
    bench.settlement.fail(bench.accept("a", "b"), Outcome.FAILED, ErrorCode.CLOSED, "closed", retryable=True)
    errors = [result.error for result in bench.sink.results]
    assert [error and error.correlation_id for error in errors] == ["a", "b"]
    assert all(error is not None and error.retryable for error in errors)


def test_an_image_whose_id_was_taken_is_settled_without_touching_the_other() -> None:
    bench = Bench()
    (first,) = bench.accept("same")
    (second,) = bench.accept("same")
    bench.settle(second)
    assert bench.table.open_tickets() == [first]
    assert bench.emptied_count == 0
