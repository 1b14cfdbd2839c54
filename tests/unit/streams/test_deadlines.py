from __future__ import annotations

from athena_async.streams.deadlines import Deadlines
from tests.unit.streams.fakes import tickets


def test_gives_up_groups_in_the_order_of_their_deadlines() -> None:
    deadlines = Deadlines()
    assert deadlines.next_s() is None
    deadlines.add(tickets("c", deadline_s=3.0))
    deadlines.add(tickets("a", "b", deadline_s=1.0))
    deadlines.add(tickets("d", deadline_s=3.0))
    assert deadlines.next_s() == 1.0
    assert deadlines.expired(0.999) == []
    assert [t.correlation_id for t in deadlines.expired(1.0)] == ["a", "b"]
    assert deadlines.expired(1.0) == []
    assert [t.correlation_id for t in deadlines.expired(99.0)] == ["c", "d"]
    assert deadlines.next_s() is None


def test_no_image_of_a_group_is_given_up_before_its_own_deadline() -> None:
    deadlines = Deadlines()
    first, last = [*tickets("first", deadline_s=1.0), *tickets("last", deadline_s=1.5)]
    deadlines.add([first, last])
    assert deadlines.expired(1.4) == []
    assert deadlines.expired(1.5) == [first, last]


def test_settled_images_are_not_given_up_and_their_groups_are_let_go() -> None:
    deadlines = Deadlines()
    a, b = tickets("a", "b", deadline_s=1.0)
    deadlines.add([a, b])
    deadlines.add(tickets("c", deadline_s=2.0))
    a.settle()
    assert deadlines.next_s() == 1.0
    b.settle()
    assert deadlines.next_s() == 2.0
    assert repr(deadlines) == "Deadlines(1 groups)"
    deadlines.add([a])
    assert deadlines.expired(1.5) == []


def test_one_image_without_answer_does_not_keep_all_later_ones_in_memory() -> None:
    deadlines = Deadlines()
    deadlines.add(tickets("stuck", deadline_s=120.0))
    for second in range(1, 401):
        group = tickets(*map(str, range(100)), deadline_s=120.0 + second)
        deadlines.add(group)
        for ticket in group[second % 2 :]:
            ticket.settle()
        assert deadlines.next_s() == 120.0
        assert len(deadlines) <= 20_000
    gone = [ticket.deadline_s for ticket in deadlines.expired(2000.0)]
    assert gone == [120.0, *(120.0 + second for second in range(1, 401, 2))]
    assert len(deadlines) == 0


def test_nothing_is_no_group() -> None:
    deadlines = Deadlines()
    deadlines.add([])
    assert repr(deadlines) == "Deadlines(0 groups)"
