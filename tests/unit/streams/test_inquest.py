from __future__ import annotations

import itertools

import pytest

from athena_async.errors import ErrorCode
from athena_async.streams.inquest import Inquest
from athena_async.streams.ticket import Batch, Ticket
from athena_async.wire import ServiceError
from tests.unit.streams.fakes import batch_of, tickets

ERROR = ServiceError(ErrorCode.UNSPECIFIED, "the whole request failed", "")
QUIET_S = 1.0


def requests(count: int, images: int = 3) -> list[Batch]:
    return [batch_of(tickets(*[f"{n}-{i}" for i in range(images)])) for n in range(count)]


def answer(inquest: Inquest, *images: Ticket, now: float = 0.1) -> None:
    """The images' answers come, and settle them."""
    for image in images:
        if image.batch is not None:
            image.batch.answered(image, now)
    inquest.answered(images, now)
    for image in images:
        image.settle()


def ids(found: list[Ticket]) -> list[str]:
    return [ticket.correlation_id for ticket in found]


@pytest.mark.parametrize("count", [1, 2, 5, 16])
def test_one_poisoned_of_k_and_the_others_answer(count: int) -> None:
    for guilty in range(count):
        batches = requests(count)
        inquest = Inquest(ERROR, batches, [], 0.0)
        for number, batch in enumerate(batches):
            assert inquest.is_over(0.1, QUIET_S) is (count == 1 or number == count - 1 == guilty)
            if number != guilty:
                answer(inquest, *batch.tickets)
        assert inquest.is_over(0.1, QUIET_S), "the count says who it was, without waiting"
        assert inquest.suspects() == list(batches[guilty].tickets)


def test_a_request_that_is_answered_in_part_is_innocent_and_keeps_its_images() -> None:
    first, second, third = requests(3)
    inquest = Inquest(ERROR, [first, second, third], [], 0.0)
    answer(inquest, first.tickets[0], second.tickets[0])
    assert inquest.suspects() == list(third.tickets)
    assert not inquest.is_over(0.5, QUIET_S), "answers for the innocent may still come"
    assert inquest.is_over(1.2, QUIET_S)
    assert first.tickets[1].batch is first


def test_an_answer_that_is_an_error_clears_as_well() -> None:
    """An image that failed by itself and waits to be sent again is not settled, but its request was answered."""
    first, second = requests(2)
    inquest = Inquest(ERROR, [first, second], [], 0.0)
    first.answered(first.tickets[0], 0.1)
    inquest.answered([first.tickets[0]], 0.1)
    assert not first.tickets[0].settled
    assert inquest.suspects() == list(second.tickets)


def test_an_image_that_waited_to_be_sent_again_before_is_no_suspect() -> None:
    (batch, guilty) = requests(2)
    batch.answered(batch.tickets[0], 0.0)
    inquest = Inquest(ERROR, [batch, guilty], [], 0.0)
    assert inquest.suspects() == list(guilty.tickets)


def test_an_image_given_up_at_its_deadline_does_not_clear_its_request() -> None:
    guilty, innocent = requests(2)
    inquest = Inquest(ERROR, [guilty, innocent], [], 0.0)
    guilty.tickets[0].settle()
    answer(inquest, *innocent.tickets)
    assert inquest.suspects() == list(guilty.tickets[1:])


def test_what_the_service_never_read_is_no_suspect() -> None:
    guilty, waiting = requests(2)
    inquest = Inquest(ERROR, [guilty, waiting], [], 0.0)
    inquest.unread(waiting.release())
    assert inquest.suspects() == list(guilty.tickets)
    assert inquest.is_over(0.0, QUIET_S)


def test_with_orphans_nobody_is_cleared_by_the_count() -> None:
    """The failed request may be one whose stream is gone."""
    (batch,) = requests(1)
    orphan = tickets("orphan")[0]
    inquest = Inquest(ERROR, [batch], [orphan], 0.0)
    assert ids(inquest.suspects()) == ["0-0", "0-1", "0-2", "orphan"]
    assert not inquest.is_over(0.5, QUIET_S)
    answer(inquest, orphan)
    assert inquest.is_over(0.2, QUIET_S)
    assert ids(inquest.suspects()) == ["0-0", "0-1", "0-2"]


@pytest.mark.parametrize(("count", "guilty"), [(3, (0, 1)), (4, (1, 3)), (5, (0, 2, 4))])
def test_several_errors_are_several_requests(count: int, guilty: tuple[int, ...]) -> None:
    batches = requests(count)
    inquest = Inquest(ERROR, batches, [], 0.0)
    for _ in guilty[1:]:
        inquest.another(ERROR, 0.05)
    for number, batch in enumerate(batches):
        if number not in guilty:
            answer(inquest, *batch.tickets)
    assert inquest.suspects() == [t for number in guilty for t in batches[number].tickets]
    assert inquest.is_over(0.1, QUIET_S)


def test_after_quiet_all_silent_ones_are_suspects_and_nobody_else() -> None:
    batches = requests(4)
    inquest = Inquest(ERROR, batches, [], 0.0)
    answer(inquest, *batches[0].tickets, *batches[1].tickets[:2], now=0.4)
    assert not inquest.is_over(1.3, QUIET_S)
    assert inquest.is_over(1.5, QUIET_S)
    suspects = inquest.suspects()
    assert set(batches[2].tickets) | set(batches[3].tickets) <= set(suspects)
    assert not any(ticket.settled for ticket in suspects)


def test_every_order_of_answers_leaves_the_same_suspects() -> None:
    for order in itertools.permutations(range(4)):
        batches = requests(4, images=1)
        inquest = Inquest(ERROR, batches, [], 0.0)
        for number in order:
            if number != 2:
                answer(inquest, *batches[number].tickets)
        assert ids(inquest.suspects()) == ["2-0"]


def test_nothing_in_flight_is_over_at_once() -> None:
    assert Inquest(ERROR, [], [], 0.0).is_over(0.0, QUIET_S)
    assert repr(Inquest(ERROR, requests(2), [], 0.0)) == "Inquest(UNSPECIFIED, 1 errors, 6 suspects)"
