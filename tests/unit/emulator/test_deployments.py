"""Deployments as values: sharing, lifetimes, backlog. No event loop, no clock but an argument."""

from __future__ import annotations

from athena_async.emulator.deployments import (
    ANSWER_LIFETIME_S,
    IDLE_LIFETIME_S,
    Deployment,
    Deployments,
    Kept,
    Origin,
)
from athena_async.results import DeploymentInfo

NOW = 1000.0


def kept(*ids: str, at: float = NOW, origin: Origin | None = None) -> Kept:
    return Kept(b"answer to " + ",".join(ids).encode(), ids, origin, len(ids), at)


def opened() -> Deployment:
    return Deployments().open("client", "deployment", NOW)


def test_a_deployment_is_the_same_for_all_streams_of_a_client_and_no_other() -> None:
    deployments = Deployments()
    first = deployments.open("a", "shared", NOW)
    assert deployments.open("a", "shared", NOW) is first
    assert deployments.open("b", "shared", NOW) is not first
    assert deployments.listed("a", NOW) == [DeploymentInfo("shared", 0)]


def test_backlog_counts_inputs_from_admission_until_their_answer_is_taken() -> None:
    deployment = opened()
    for correlation_id in ("one", "two", "three"):
        deployment.admit(correlation_id)
    assert deployment.backlog == 3
    deployment.keep(kept("one", "two"))
    assert deployment.backlog == 3
    assert deployment.take(NOW) is not None
    assert deployment.backlog == 1
    assert not deployment.is_unanswered("one")
    assert deployment.is_unanswered("three")


def test_answers_are_taken_once_and_in_order() -> None:
    deployment = opened()
    deployment.keep(kept("one"))
    deployment.keep(kept("two"))
    taken = [deployment.take(NOW) for _ in range(3)]
    assert [answer.correlation_ids if answer else None for answer in taken] == [("one",), ("two",), None]


def test_each_answer_wakes_the_stream_that_has_waited_longest() -> None:
    deployment = opened()
    woken: list[str] = []
    deployment.wait(lambda: woken.append("first"))
    deployment.wait(lambda: woken.append("second"))
    deployment.keep(kept("one"))
    deployment.keep(kept("two"))
    deployment.keep(kept("three"))
    assert woken == ["first", "second"]


def test_a_stream_that_leaves_passes_its_answer_on() -> None:
    deployment = opened()
    woken: list[str] = []

    def leaver() -> None:
        woken.append("leaver")

    deployment.wait(leaver)
    deployment.wait(lambda: woken.append("other"))
    deployment.keep(kept("one"))
    deployment.leave(leaver)
    assert woken == ["leaver", "other"]


def test_an_answer_is_kept_for_less_than_an_hour() -> None:
    deployment = opened()
    deployment.admit("one")
    deployment.keep(kept("one"))
    assert deployment.take(NOW + ANSWER_LIFETIME_S - 0.001) is not None
    deployment.admit("two")
    deployment.keep(kept("two"))
    assert deployment.take(NOW + ANSWER_LIFETIME_S) is None
    assert deployment.backlog == 0
    assert deployment.expired_count == 1


def test_a_deployment_is_removed_after_a_day_without_activity() -> None:
    deployments = Deployments()
    deployments.open("client", "idle", NOW)
    deployments.open("client", "busy", NOW)
    deployments.open("client", "busy", NOW + IDLE_LIFETIME_S - 1.0)
    assert [row.deployment_id for row in deployments.listed("client", NOW + IDLE_LIFETIME_S - 0.5)] == ["idle", "busy"]
    assert [row.deployment_id for row in deployments.listed("client", NOW + IDLE_LIFETIME_S)] == ["busy"]
    assert len(deployments) == 1


def test_taking_an_answer_is_activity() -> None:
    deployments = Deployments()
    deployment = deployments.open("client", "reader", NOW)
    deployment.keep(kept("one", at=NOW + IDLE_LIFETIME_S - 2.0))
    assert deployment.take(NOW + IDLE_LIFETIME_S - 1.0) is not None
    assert deployments.listed("client", NOW + IDLE_LIFETIME_S) == [DeploymentInfo("reader", 0)]


def test_a_removed_deployment_with_a_stream_wakes_up_empty() -> None:
    deployments = Deployments()
    deployment = deployments.open("client", "d", NOW)
    deployment.stream_count = 1
    deployment.admit("one")
    later = NOW + IDLE_LIFETIME_S
    assert deployments.listed("client", later) == []
    assert deployments.open("client", "d", later, ready_s=7.0) is deployment
    assert deployment.backlog == 0
    assert deployment.generation == 1
    assert deployment.ready_s == 7.0


def test_a_half_closed_stream_is_finished_when_nothing_of_it_is_unanswered() -> None:
    woken: list[bool] = []
    origin = Origin(lambda: woken.append(True), unanswered=3, half_closed=True)
    deployment = opened()
    deployment.keep(kept("one", "two", origin=origin))
    deployment.take(NOW)
    assert not origin.finished
    assert woken == []
    deployment.settle(["three"], origin, 1)
    assert origin.finished
    assert woken == [True]


def test_the_same_id_twice_is_owed_twice() -> None:
    deployment = opened()
    deployment.admit("same")
    deployment.admit("same")
    deployment.settle(["same"], None, 1)
    assert deployment.is_unanswered("same")
    assert deployment.backlog == 1
    deployment.settle(["same"], None, 1)
    deployment.settle(["same"], None, 1)
    assert deployment.backlog == 0


def test_room_is_reported_once_when_something_was_settled() -> None:
    deployment = opened()
    calls: list[int] = []
    deployment.admit("one")
    deployment.wait_for_room(lambda: calls.append(1))
    deployment.settle(["one"], None, 1)
    deployment.settle(["two"], None, 1)
    assert calls == [1]


def test_room_is_reported_when_everything_is_purged() -> None:
    deployment = opened()
    calls: list[int] = []
    deployment.wait_for_room(lambda: calls.append(1))
    deployment.remove()
    assert calls == [1]


def test_repr_shows_the_state_and_no_answer() -> None:
    deployment = opened()
    deployment.admit("one")
    deployment.keep(kept("one"))
    assert repr(deployment) == "Deployment('deployment', backlog=1, kept=1, streams=0)"
    assert "answer" not in repr(kept("one"))
