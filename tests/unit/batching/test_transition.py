"""What answers just after a change of plan say about it."""

from __future__ import annotations

import pytest

from athena_async.batching.moves import Setting
from athena_async.batching.transition import Transition


def changed(before: Setting, after: Setting, latency_s: float = 1.0) -> Transition:
    transition = Transition(before)
    transition.change(after, latency_s, 10.0)
    return transition


@pytest.mark.parametrize(("latency_s", "found"), [(1.39, (1.0, 2.78)), (1.41, (0.0, 1.41))])
def test_the_first_of_two_counts_if_it_was_served_alone(latency_s: float, found: tuple[float, float]) -> None:
    """It found nothing in flight: at 1.4 times what a lone batch takes it shared a server or a link."""
    transition = changed(Setting(8, 1), Setting(8, 2))
    assert transition.own_latency(2, latency_s, 10.0 + latency_s) == pytest.approx(found)


def test_only_the_first() -> None:
    transition = changed(Setting(8, 1), Setting(8, 2))
    transition.own_latency(2, 1.0, 11.0)
    assert transition.own_latency(2, 1.0, 11.0) == (0.0, 1.0)


def test_none_where_more_were_in_flight_before() -> None:
    transition = changed(Setting(8, 2), Setting(8, 4))
    assert transition.own_latency(4, 1.0, 11.0) == (0.0, 1.0)


def test_batches_sent_after_the_first_round_count_in_full() -> None:
    transition = changed(Setting(8, 2), Setting(8, 4))
    transition.own_latency(4, 2.0, 12.0)
    assert transition.own_latency(4, 2.0, 13.9) == (0.0, 2.0), "sent at 11.9, before the first answer"
    assert transition.own_latency(4, 2.0, 14.1) == (1.0, 2.0)


def test_smaller_batches_behind_larger_ones_are_relieved_of_what_they_waited_for() -> None:
    """Four in flight took 4 s of 1 s each. The first of half the size waited for three of those."""
    transition = changed(Setting(8, 4), Setting(4, 4), 4.0)
    weight, own_s = transition.own_latency(4, 3.5, 13.5)
    assert weight == 0.25
    assert own_s == pytest.approx(4 * 0.5)
    for _ in range(2):
        transition.own_latency(4, 2.5, 14.0)
    assert transition.own_latency(4, 2.0, 14.5) == (1.0, 2.0)
    assert transition.own_latency(4, 2.0, 15.0) == (1.0, 2.0), "the queue is of the new size from here on"


def test_none_counts_at_once_where_the_images_changed_too() -> None:
    """Half the images in twice the batches: what the first took is no measure of a lone one of the old size."""
    transition = changed(Setting(8, 1), Setting(4, 2))
    assert transition.own_latency(2, 1.0, 11.0) == (0.0, 1.0)


def test_what_is_left_of_a_latency_is_never_nothing() -> None:
    """The batches ahead were quicker than usual, so more than all of it would be taken off."""
    transition = changed(Setting(8, 4), Setting(4, 4), 4.0)
    assert transition.own_latency(4, 2.0, 12.0) == (0.25, pytest.approx(0.2 / 0.25))


def test_each_change_lets_the_queue_turn_over_anew() -> None:
    transition = changed(Setting(8, 2), Setting(8, 4))
    transition.own_latency(4, 2.0, 12.0)
    transition.change(Setting(8, 6), 2.0, 20.0)
    assert transition.own_latency(6, 2.0, 22.5) == (0.0, 2.0)


def test_after_a_pause_the_queue_must_turn_over_since_nothing_is_known_of_it() -> None:
    transition = changed(Setting(8, 2), Setting(4, 2), 0.0)
    assert transition.own_latency(2, 1.0, 11.0) == (0.0, 1.0)
    assert transition.own_latency(2, 1.0, 12.1) == (1.0, 1.0)
