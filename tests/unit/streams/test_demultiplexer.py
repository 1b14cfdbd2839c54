from __future__ import annotations

from athena_async.errors import ErrorCode
from athena_async.streams.demultiplexer import CorrelationIds, Demultiplexer
from tests.unit.streams.fakes import bad, batch_of, good, tickets


def test_matches_what_was_sent_and_removes_nothing() -> None:
    table = Demultiplexer("own-")
    sent, unsent = tickets("own-1", "own-2")
    batch_of([sent])
    assert table.register(sent)
    assert table.register(unsent)
    for _ in range(2):
        routed = table.route([good("own-1"), good("own-2")])
        assert [ticket for ticket, _ in routed.matched] == [sent]
        assert (routed.late_count, routed.foreign) == (1, [])
    assert table.open_tickets() == [sent, unsent]


def test_the_first_of_two_answers_in_one_response_counts() -> None:
    table = Demultiplexer("own-")
    (sent,) = tickets("own-1")
    batch_of([sent])
    table.register(sent)
    routed = table.route([bad("own-1", ErrorCode.MODEL_ERROR), good("own-1")])
    assert [answer.error is None for _, answer in routed.matched] == [False]
    assert routed.late_count == 1


def test_an_id_that_is_open_is_not_taken_twice_and_can_be_taken_again() -> None:
    table = Demultiplexer("own-")
    first, second = tickets("mine", "mine")
    assert table.register(first)
    assert not table.register(second)
    table.forget(second)
    assert "mine" in table, "the second never stood there"
    table.forget(first)
    assert table.register(second)


def test_late_answers_are_told_from_those_of_others() -> None:
    table = Demultiplexer("own-", remembered=2)
    for ticket in tickets("a", "b", "own-1", "c"):
        table.register(ticket)
        table.forget(ticket)
    routed = table.route([good("a"), good("b"), good("c"), good("own-1"), good("own-999"), good("theirs")])
    assert routed.late_count == 4
    assert [answer.correlation_id for answer in routed.foreign] == ["a", "theirs"], "only the newest are remembered"


def test_an_id_that_was_used_again_is_remembered_as_new() -> None:
    table = Demultiplexer("own-", remembered=2)
    for ticket in tickets("a", "b", "a", "c"):
        table.register(ticket)
        table.forget(ticket)
    assert table.route([good("a")]).late_count == 1
    assert table.route([good("b")]).foreign == [good("b")]


def test_ids_of_another_client_with_the_same_beginning_are_foreign() -> None:
    ids = CorrelationIds("abc")
    table = Demultiplexer(ids.prefix)
    assert ids.next() == "abc-0"
    assert table.route([good("abcd-0"), good("abc")]).late_count == 0


def test_repr_counts() -> None:
    assert repr(Demultiplexer("own-")) == "Demultiplexer(0 open)"
