from __future__ import annotations

from athena_async.errors import ErrorCode
from athena_async.results import Outcome
from athena_async.streams.ticket import service_failure
from athena_async.wire import ServiceError
from tests.unit.streams.fakes import SCORES, FakeCarrier, batch_of, ticket, tickets


def test_a_batch_is_over_with_its_last_answer() -> None:
    carrier = FakeCarrier()
    a, b = tickets("a", "b")
    batch = batch_of([a, b], carrier, 1.0)
    assert (a.attempts, a.batch, batch.open_count, batch.progress_s) == (1, batch, 2, 1.0)
    batch.answered(a, 2.0)
    assert (carrier.over, batch.progress_s, batch.open_tickets()) == ([], 2.0, [b])
    batch.answered(b, 3.0)
    assert (carrier.over, carrier.released) == ([batch], [])


def test_a_batch_whose_last_image_is_given_up_is_released_and_not_answered() -> None:
    carrier = FakeCarrier()
    a, b = tickets("a", "b")
    batch = batch_of([a, b], carrier)
    batch.answered(a, 1.0)
    b.settle()
    assert (carrier.over, carrier.released) == ([], [batch])
    b.settle()
    assert carrier.released == [batch]


def test_a_released_batch_gives_its_open_images_once() -> None:
    a, b, c = tickets("a", "b", "c")
    batch = batch_of([a, b, c])
    batch.answered(a, 1.0)
    b.settle()
    assert batch.release() == [c]
    assert (batch.release(), batch.open_count, c.batch) == ([], 0, None)


def test_an_image_that_travels_in_a_later_batch_is_not_open_in_the_first() -> None:
    a, b = tickets("a", "b")
    first = batch_of([a, b])
    first.release()
    second = batch_of([a])
    assert (first.open_tickets(), second.open_tickets()) == ([], [a])


def test_what_leaves_is_what_is_still_open_and_is_new_once() -> None:
    a, b, c = tickets("a", "b", "c")
    first = batch_of([a, b, c])
    b.settle()
    assert first.leave() == [a.frame, c.frame]
    assert (first.written, first.new_count, first.resent) == (True, 2, 0)
    first.release()
    a.attempts -= 1  # it was refused unread
    second = batch_of([a, c])
    second.leave()
    assert (second.new_count, second.resent) == (0, 1)
    third = batch_of([a, c])
    third.leave()
    c.attempts -= 1  # unread once more: the resend was counted
    fourth = batch_of([c])
    fourth.leave()
    assert (third.resent, fourth.new_count, fourth.resent) == (2, 0, 0)


def test_a_settled_image_holds_no_bytes() -> None:
    one = ticket()
    one.settle()
    assert one.settled
    assert one.frame is None
    assert one.source.value is None


def test_results_tell_attempts_and_latency() -> None:
    one = ticket("a", index=3, accepted_s=5.0)
    batch_of([one])
    result = one.classified(SCORES, 7.5)
    assert (result.correlation_id, result.index, result.attempts, result.latency_s) == ("a", 3, 1, 2.5)
    assert result.outcome is Outcome.CLASSIFIED
    failed = service_failure(one, ServiceError(ErrorCode.MODEL_ERROR, "Image Classification Error", "size"), 7.5)
    assert failed.error is not None
    assert (failed.outcome, failed.error.retryable, failed.error.correlation_id) == (Outcome.FAILED, False, "a")
    assert failed.error.message == "Image Classification Error (size)"


def test_repr_tells_the_state_and_nothing_of_the_image() -> None:
    one = ticket("a")
    assert repr(one) == "Ticket(a, ready, attempts=0)"
    batch = batch_of([one])
    assert repr(one) == "Ticket(a, in flight, attempts=1)"
    assert repr(batch) == "Batch(1 of 1 images open, 100 bytes)"
    one.settle()
    assert repr(one) == "Ticket(a, settled, attempts=1)"


def test_only_the_answer_to_a_first_send_tells_that_a_request_was_read() -> None:
    """That of an image that is sent again may be to its first send, and one that expires was answered by nobody."""
    first, again, expiring = tickets("a", "b", "c")
    again.attempts = 1
    batch = batch_of([first, again, expiring], FakeCarrier())
    batch.answered(again, 1.0)
    batch.expired(expiring)
    assert not batch.was_read
    batch.answered(first, 2.0)
    assert batch.was_read
