"""Fixtures that every kind of test shares."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """asyncio in debug mode: slow callbacks and never-awaited coroutines are errors here."""
    return "asyncio", {"debug": True}
