"""Every scenario is there, under its name, with a title."""

from __future__ import annotations

from benchmarks import scenarios


def test_all_scenarios_are_found_in_order() -> None:
    assert list(scenarios.names()) == [*(f"S{i}" for i in range(1, 12)), "builds", "stages"]


def test_each_has_a_title() -> None:
    for name in scenarios.names():
        assert len(scenarios.title(name)) > 20
