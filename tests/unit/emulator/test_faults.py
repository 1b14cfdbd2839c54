"""The fault plan: seeded, independent by kind, changeable."""

from __future__ import annotations

import pytest

from athena_async.emulator import FaultPlan, Faults
from athena_async.errors import ConfigError, ErrorCode


def test_the_same_seed_gives_the_same_faults() -> None:
    plan = FaultPlan(seed=7, drop_streams=0.5)
    first = [Faults(plan).strikes("drop_streams") for _ in range(1)]
    runs = [[faults.strikes("drop_streams") for _ in range(200)] for faults in (Faults(plan), Faults(plan))]
    assert runs[0] == runs[1]
    assert first[0] == runs[0][0]
    assert 60 < sum(runs[0]) < 140
    other = Faults(FaultPlan(seed=8, drop_streams=0.5))
    assert [other.strikes("drop_streams") for _ in range(200)] != runs[0]


def test_one_kind_does_not_disturb_another() -> None:
    alone, crowded = (Faults(FaultPlan(omit=0.3, delay=0.5)) for _ in range(2))
    expected = [alone.strikes("omit") for _ in range(100)]
    found = []
    for _ in range(100):
        crowded.strikes("delay")
        found.append(crowded.strikes("omit"))
    assert found == expected


def test_certain_and_impossible() -> None:
    faults = Faults(FaultPlan(duplicate=1.0))
    assert all(faults.strikes("duplicate") for _ in range(50))
    assert not any(faults.strikes("omit") for _ in range(50))
    assert faults.counts == {"duplicate": 50}


def test_injected_faults_come_next_and_once() -> None:
    faults = Faults()
    faults.inject("half_close", times=2)
    assert [faults.strikes("half_close") for _ in range(3)] == [True, True, False]


def test_changes_take_effect_at_once() -> None:
    faults = Faults()
    assert not faults.strikes("refuse")
    faults.update(refuse=1.0, refuse_code="INTERNAL")
    assert faults.strikes("refuse")
    assert faults.plan.refuse_code == "INTERNAL"
    faults.plan = FaultPlan()
    assert not faults.strikes("refuse")


def test_an_image_error_has_the_code_of_the_plan() -> None:
    faults = Faults(FaultPlan(image_errors=1.0, image_error_code="IMAGE_TOO_LARGE"))
    refusal = faults.image_error()
    assert refusal is not None
    assert refusal.code is ErrorCode.IMAGE_TOO_LARGE


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"omit": 1.5}, "faults.omit"),
        ({"drop_code": "OK"}, "faults.drop_code"),
        ({"image_error_code": "UNAVAILABLE"}, "faults.image_error_code"),
        ({"nonsense": 1}, "nonsense"),
        ({"seed": "x"}, "faults.seed"),
    ],
)
def test_wrong_changes_are_refused_and_change_nothing(changes: dict[str, object], named: str) -> None:
    faults = Faults(FaultPlan(omit=0.25))
    with pytest.raises(ConfigError, match=named):
        faults.update(**changes)
    assert faults.plan == FaultPlan(omit=0.25)


def test_an_unknown_kind_cannot_be_injected() -> None:
    with pytest.raises(ConfigError):
        Faults().inject("nonsense")  # type: ignore[arg-type]
