"""The simulation's quick forms, each at a fixed seed; `make sim` runs them at full size."""

from __future__ import annotations

from collections import Counter

import pytest

from athena_async import Outcome
from tests.simulation import runs
from tests.simulation.world import Weather
from tests.virtual_time import run_virtual

SEED = 20_000


def test_without_a_disconnect_nothing_is_sent_twice() -> None:
    """P3, its second half."""
    figures = run_virtual(runs.storm(5_000, 0, Weather(), SEED))
    assert figures.outcomes == {Outcome.CLASSIFIED: 5_000}
    assert figures.resent == figures.billed_again == 0


def test_20000_images_and_20_disconnects() -> None:
    """P1, P2, P3: replayed, reordered, late and lost answers."""
    figures = run_virtual(runs.storm(20_000, 20, Weather(replayed=0.01), SEED))
    print(figures.row())
    assert figures.disconnects == 20
    assert figures.lost_answers > 0
    assert figures.late > 0
    assert figures.outcomes == {Outcome.CLASSIFIED: 20_000}, figures.row()


def test_20000_images_and_20_disconnects_on_a_deployment_that_others_use() -> None:
    """P1, P2, P3: what is lost from a stream that did not ask for it may be with the others, and ends UNKNOWN."""
    figures = run_virtual(runs.storm(20_000, 20, Weather(replayed=0.01, foreign=0.01), SEED))
    print(figures.row())
    assert figures.foreign > 0
    assert set(figures.outcomes) <= {Outcome.CLASSIFIED, Outcome.UNKNOWN}
    assert figures.outcomes.get(Outcome.UNKNOWN, 0) <= figures.lost_answers, figures.row()


def test_answers_that_never_come_are_asked_for_again_and_end() -> None:
    """P1 without any disconnect: the service leaves inputs out."""
    figures = run_virtual(runs.storm(2_000, 0, Weather(omitted=0.05), SEED))
    assert figures.outcomes.get(Outcome.CLASSIFIED, 0) > 1_990, figures.row()
    assert figures.resent > 50


@pytest.mark.timeout(60)
@pytest.mark.parametrize("minutes", [0, 1, 59])
def test_answers_held_back_are_not_asked_for_again(minutes: int) -> None:
    """P4."""
    run_virtual(runs.held_back(minutes, SEED, images=300))


@pytest.mark.parametrize("hours", [1, 24])
def test_what_the_service_no_longer_owes_is_not_waited_for(hours: int) -> None:
    """P5."""
    run_virtual(runs.forgotten(hours, SEED))


@pytest.mark.parametrize("hours", [1, 24])
def test_a_clock_that_jumps_past_every_deadline_ends_every_image(hours: int) -> None:
    run_virtual(runs.clock_jump(hours * 3600.0, SEED))


def test_clients_of_one_deployment_hand_over_each_others_answers() -> None:
    """P7."""
    figures = run_virtual(runs.shared_deployment(3, SEED))
    print(figures.row())
    assert figures.outcomes["elsewhere"] > 300
    assert figures.billed_again < 50, "only at first, while each took the deployment for its own"


@pytest.mark.parametrize("guilty", [1, 2, 7])
def test_a_global_error_fails_no_innocent_image(guilty: int) -> None:
    """P8: requests in flight, one or some poisoned."""
    found: Counter[str] = Counter()
    for seed in range(8):
        found.update(run_virtual(runs.poisoned(guilty, seed)).outcomes)
    assert found == {"CLASSIFIED": 8 * (400 - guilty), "FAILED": 8 * guilty}


def test_a_global_error_beside_disconnects_fails_no_innocent_image() -> None:
    """P8, where answers and errors are lost with their streams."""
    for seed in range(8):
        run_virtual(runs.poisoned(2, seed, cuts=2))


def test_a_service_that_fails_everything_is_not_stormed() -> None:
    """P11."""
    figures = run_virtual(runs.failing_service(2_000, SEED))
    assert 100 <= figures.resent <= 300, "the budget is spent, and then a tenth of what is new"


def test_a_service_that_lets_nobody_in_is_tried_with_backoff() -> None:
    """P11: two channels, for ten minutes, at most 10 s and on average 5 s apart once the backoff is at its cap."""
    tried = run_virtual(runs.refusing_service(10.0, SEED))
    assert 2 * 60 <= tried <= 2 * (120 * 1.3 + 10)


@pytest.mark.parametrize("stall_s", [30.0, 90.0, 300.0])
def test_a_loop_that_stood_still_reads_first(stall_s: float) -> None:
    """Also where it stood still for longer than a stream may be silent, or idle."""
    run_virtual(runs.stalled_loop(stall_s, SEED))
