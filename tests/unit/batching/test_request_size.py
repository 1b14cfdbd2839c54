"""The bound of a request's bytes as a value."""

from __future__ import annotations

from athena_async.batching.request_size import RequestSize
from athena_async.config import MiB


def test_it_begins_small_and_doubles_with_answers_that_used_it() -> None:
    size = RequestSize(4 * MiB, 8.0, slow_start=True)
    assert size.size_bytes == MiB
    size.answered(MiB // 4, 0.1)
    assert size.size_bytes == MiB
    size.answered(MiB, 0.1)
    assert size.size_bytes == 2 * MiB
    for _ in range(5):
        size.answered(size.size_bytes, 0.1)
    assert size.size_bytes == 4 * MiB


def test_it_stays_where_the_application_had_no_more_to_send() -> None:
    size = RequestSize(4 * MiB, 8.0, slow_start=True)
    for _ in range(5):
        size.answered(MiB, 0.1, limited=True)
    assert size.size_bytes == MiB


def test_what_the_server_said_it_takes_bounds_batches() -> None:
    size = RequestSize(4 * MiB, 8.0, slow_start=False)
    assert size.refused(3_000_000, 1_000_000)
    assert size.size_bytes == 1_000_000
    assert not size.refused(2_000_000, 1_000_000), "nothing new"


def test_a_limit_that_the_refused_request_did_not_exceed_is_not_believed() -> None:
    size = RequestSize(4 * MiB, 8.0, slow_start=False)
    assert size.refused(1_000_000, 2_000_000)
    assert size.size_bytes == 500_000


def test_a_refusal_without_a_limit_leaves_what_was_answered_or_half() -> None:
    size = RequestSize(4 * MiB, 8.0, slow_start=False)
    size.answered(700_000, 0.1)
    assert size.refused(1_000_000, None)
    assert size.size_bytes == 700_000, "the largest that was answered"
    assert size.refused(700_000, None), "the server takes less than it did"
    assert size.size_bytes == 350_000


def test_once_refused_a_size_does_not_come_back() -> None:
    size = RequestSize(4 * MiB, 8.0, slow_start=True)
    size.refused(800_000, 600_000)
    for _ in range(10):
        size.answered(size.size_bytes, 0.1)
    assert size.size_bytes == 600_000
