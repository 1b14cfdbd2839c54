"""Where the controller may climb, and in which order: plain values."""

from __future__ import annotations

import pytest

from athena_async.batching.moves import Move, Risks, Setting, Tour, neighbour

LIMIT = Setting(200, 16)


@pytest.mark.parametrize(
    ("move", "found"),
    [
        (Move.LARGER, Setting(24, 3)),
        (Move.MORE, Setting(12, 6)),
        (Move.SMALLER, Setting(6, 3)),
        (Move.FEWER, Setting(12, 2)),
        (Move.MORE_SMALLER, Setting(6, 6)),
        (Move.FEWER_LARGER, Setting(18, 2)),
    ],
)
def test_a_move_goes_one_step_and_a_swap_keeps_the_images_in_flight(move: Move, found: Setting) -> None:
    assert neighbour(Setting(12, 3), move, 2.0, LIMIT) == found


@pytest.mark.parametrize(
    ("setting", "move"),
    [
        (Setting(200, 3), Move.LARGER),
        (Setting(1, 1), Move.SMALLER),
        (Setting(12, 16), Move.MORE),
        (Setting(12, 1), Move.FEWER),
        (Setting(1, 3), Move.MORE_SMALLER),
    ],
)
def test_nothing_is_beyond_the_limits(setting: Setting, move: Move) -> None:
    assert neighbour(setting, move, 2.0, LIMIT) is None


def test_the_tour_starts_with_what_grows_and_goes_round_all_once_both_failed() -> None:
    tour = Tour()
    assert tour.starting
    order = []
    for _ in range(2):
        order.append(tour.next)
        tour.failed()
    assert order == [Move.MORE, Move.LARGER]
    assert not tour.starting
    order = []
    for _ in Move:
        order.append(tour.next)
        tour.failed()
    assert sorted(order, key=list(Move).index) == list(Move)
    assert order.index(Move.MORE_SMALLER) < order.index(Move.SMALLER), "what gives nothing up comes first"


def test_each_round_without_success_doubles_the_rest_and_success_ends_it() -> None:
    tour = Tour()
    rests = []
    for _ in range(5):
        while not tour.failed():
            pass
        rests.append(tour.hold_for)
    assert rests == [8.0, 16.0, 32.0, 64.0, 64.0]
    tour.succeeded()
    assert tour.hold_for == 8.0


def test_a_move_that_did_badly_is_passed_over_for_a_while() -> None:
    tour = Tour()
    while not tour.failed():
        pass
    assert tour.next is Move.LARGER
    tour.failed(clearly=True)
    for _ in range(len(tour) - 1):
        assert not tour.is_resting()
        tour.failed()
    assert [tour.is_resting() for _ in range(3)] == [True, True, False]


def test_a_risk_that_failed_is_taken_again_after_twice_the_pause_each_time() -> None:
    risks = Risks()
    assert risks.allows(Move.MORE, 0)
    counted, pauses = 10, []
    for _ in range(6):
        risks.failed(Move.MORE, counted)
        pause = next(pause for pause in range(1, 10_000) if risks.allows(Move.MORE, counted + pause))
        pauses.append(pause)
        counted += pause
    assert pauses == [256, 512, 1024, 2048, 4096, 4096]


def test_the_failure_of_one_move_says_nothing_of_anothers_risk() -> None:
    risks = Risks()
    risks.failed(Move.MORE, 10)
    assert not risks.allows(Move.MORE, 11)
    assert risks.allows(Move.MORE_SMALLER, 11)
