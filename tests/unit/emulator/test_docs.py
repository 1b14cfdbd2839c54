"""docs/emulator.md names tests and fields that exist."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from athena_async.emulator import Behaviour, FaultPlan, ServiceModel

TESTS = Path(__file__).parents[2]
TEXT = (TESTS.parent / "docs" / "emulator.md").read_text()
REFERENCES = re.findall(r"`([\w/]*test_\w+\.py)?(?:::(\w+?)(\.\.\.)?)?`", TEXT)


def test_every_test_named_in_the_table_exists() -> None:
    file = ""
    count = 0
    for name, function, cut in REFERENCES:
        if not (name or function):
            continue
        file = name or file
        path = TESTS / file if "/" in file else TESTS / "integration" / "emulator" / file
        assert path.is_file(), file
        pattern = rf"(?:def|class) {function}" + ("" if cut else r"\b")
        assert not function or re.search(pattern, path.read_text()), f"{file}::{function}"
        count += 1
    assert count > 40


@pytest.mark.parametrize("part", [FaultPlan, ServiceModel, Behaviour], ids=lambda part: part.__name__)
def test_every_field_is_described(part: type) -> None:
    unsaid = {"seed", "classes"}
    missing = [field.name for field in fields(part) if field.name not in TEXT and field.name not in unsaid]  # type: ignore[arg-type]
    assert not missing
