"""What the doctor finds."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class State(StrEnum):
    OK = "ok"
    NOTE = "note"
    """Works, but worth knowing."""
    BROKEN = "broken"


class Finding(NamedTuple):
    """One line of the doctor.

    Attributes:
        section: what it belongs to.
        name: what was looked at.
        state: how it is.
        detail: what was found; never a secret.
        remedy: what to do; empty where there is nothing to do.
    """

    section: str
    name: str
    state: State
    detail: str
    remedy: str = ""

    def as_mapping(self) -> dict[str, str]:
        return self._asdict()
