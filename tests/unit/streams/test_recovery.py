from __future__ import annotations

import pytest

from athena_async.config import RetryConfig
from athena_async.streams.recovery import RETENTION_S, LatencyEstimate, Recovery
from tests.unit.streams.fakes import tickets


def made(latency_s: float = 0.0, **retry: float) -> Recovery:
    latency = LatencyEstimate()
    if latency_s:
        latency.observe(latency_s)
    recovery = Recovery(RetryConfig(**{"grace_min_s": 1.0, "grace_max_s": 10.0, **retry}), latency)
    recovery.reading(True, 0.0)
    return recovery


def due(recovery: Recovery, now: float) -> list[str]:
    return [ticket.correlation_id for ticket in recovery.due(now)]


def test_due_after_the_grace_of_quiet_once_the_deployment_is_empty() -> None:
    recovery = made()
    recovery.orphan(tickets("a", "b"), 5.0)
    recovery.backlog(0, 5.1)
    assert due(recovery, 5.9) == []
    assert due(recovery, 6.0) == ["a", "b"]
    assert (due(recovery, 99.0), len(recovery)) == ([], 0)


def test_not_due_while_the_deployment_holds_answers_however_long() -> None:
    recovery = made()
    recovery.orphan(tickets("a"), 0.0)
    for second in range(1, 3540):
        recovery.backlog(5, float(second))
        assert due(recovery, second + 0.9) == []
    recovery.backlog(0, 3541.0)
    assert due(recovery, 3541.5) == ["a"], "it has been quiet since 3539"


def test_after_an_hour_nothing_is_owed() -> None:
    recovery = made()
    recovery.orphan(tickets("a"), 100.0)
    recovery.backlog(5, 100.0 + RETENTION_S)
    assert due(recovery, 100.0 + RETENTION_S) == []
    assert due(recovery, 100.0 + RETENTION_S + 0.1) == ["a"]


def test_an_answer_makes_the_rest_of_its_group_wait_anew() -> None:
    recovery = made()
    a, b, c = tickets("a", "b", "c")
    recovery.orphan([a, b], 0.0)
    recovery.orphan([c], 0.0)
    recovery.backlog(0, 0.1)
    assert recovery.answered(a, 0.8)
    assert not recovery.answered(a, 0.8)
    assert due(recovery, 1.0) == ["c"]
    assert due(recovery, 1.7) == []
    assert due(recovery, 1.8) == ["b"]


def test_only_time_in_which_streams_are_read_counts() -> None:
    recovery = made()
    recovery.reading(False, 0.0)
    recovery.orphan(tickets("a"), 0.0)
    recovery.backlog(0, 0.1)
    assert due(recovery, 50.0) == []
    recovery.reading(True, 50.0)
    assert due(recovery, 50.5) == []
    recovery.reading(False, 50.9)
    recovery.reading(True, 60.0)
    assert due(recovery, 60.9) == []
    recovery.backlog(0, 60.9)
    assert due(recovery, 61.0) == ["a"]


def test_what_the_deployment_said_before_the_streams_were_gone_is_forgotten() -> None:
    recovery = made()
    recovery.orphan(tickets("a"), 0.0)
    recovery.backlog(0, 0.1)
    recovery.reading(False, 0.5)
    recovery.reading(True, 0.6)
    assert due(recovery, 5.0) == []


def test_reading_again_without_a_change_does_not_start_anew() -> None:
    recovery = made()
    recovery.orphan(tickets("a"), 0.0)
    recovery.backlog(0, 0.1)
    recovery.reading(True, 0.9)
    assert due(recovery, 1.0) == ["a"]


def test_a_stall_starts_the_quiet_anew() -> None:
    recovery = made()
    recovery.orphan(tickets("a"), 0.0)
    recovery.backlog(0, 0.1)
    recovery.stalled(30.0)
    assert due(recovery, 30.9) == []
    assert due(recovery, 31.0) == ["a"]


def test_a_deployment_that_does_not_say_is_waited_for_as_long_as_configured() -> None:
    recovery = made()
    recovery.orphan(tickets("a"), 0.0)
    assert due(recovery, 1000.0) == [], "not asked yet"
    recovery.backlog(None, 1000.0)
    assert due(recovery, 1000.0) == ["a"]
    recovery.orphan(tickets("b"), 2000.0)
    recovery.backlog(None, 2001.0)
    assert due(recovery, 2009.9) == []
    assert due(recovery, 2010.0) == ["b"]


def test_each_loss_is_judged_by_itself() -> None:
    recovery = made()
    recovery.orphan(tickets("a"), 0.0)
    recovery.backlog(0, 0.1)
    recovery.orphan(tickets("b"), 0.8)
    assert due(recovery, 1.0) == ["a"]
    assert due(recovery, 5.0) == [], "the deployment was not asked since"
    recovery.backlog(0, 5.0)
    assert due(recovery, 5.0) == ["b"]


def test_what_the_deployment_was_asked_before_a_loss_says_nothing_of_it() -> None:
    recovery = made()
    recovery.orphan(tickets("before"), 0.0)
    recovery.orphan(tickets("while it was asked"), 0.5)
    recovery.backlog(0, 1.0, asked_s=0.3)
    assert due(recovery, 9.0) == ["before"]
    recovery.backlog(0, 9.1, asked_s=9.0)
    assert due(recovery, 9.1) == ["while it was asked"]


def test_an_orphan_that_is_settled_leaves() -> None:
    recovery = made()
    a, b = tickets("a", "b")
    recovery.orphan([a, b], 0.0)
    assert recovery.discard(a)
    assert not recovery.discard(a)
    assert [ticket.correlation_id for ticket in recovery.tickets()] == ["b"]
    assert recovery.discard(b)
    assert len(recovery) == 0
    recovery.orphan([], 0.0)
    assert due(recovery, 99.0) == []


@pytest.mark.parametrize(("latency_s", "grace_s"), [(0.0, 1.0), (0.01, 1.0), (0.25, 2.0), (9.0, 10.0)])
def test_the_grace_is_four_times_the_usual_latency_within_its_bounds(latency_s: float, grace_s: float) -> None:
    assert made(latency_s).grace_s == pytest.approx(grace_s)


def test_latency_follows_the_retransmission_timer_of_tcp() -> None:
    latency = LatencyEstimate()
    assert latency.usual_s == 0.0
    latency.observe(0.1)
    assert (latency.mean_s, latency.deviation_s) == (0.1, 0.05)
    for _ in range(100):
        latency.observe(0.2)
    assert latency.usual_s == pytest.approx(0.2, rel=0.01)


def test_repr_tells_what_it_waits_for() -> None:
    recovery = made()
    recovery.orphan(tickets("a", "b"), 0.0)
    recovery.backlog(3, 0.1)
    assert repr(recovery) == "Recovery(2 orphans, backlog=3, reading=True)"
