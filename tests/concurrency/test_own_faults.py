"""A fault of the client's own, or of what it was given: every image ends, and the fault is told when it happens."""

from __future__ import annotations

import asyncio
import gc
import sys
from typing import Any

import pytest

from athena_async import AthenaClient, ErrorCode, MissingExtraError, PreprocessConfig
from athena_async.channels.channel import Transport
from athena_async.testing import FakeAthena
from tests.simulation.runs import config, hash_inputs
from tests.virtual_time import run_virtual


def test_a_fault_is_told_once_by_the_event_loop_and_closing_is_quiet() -> None:
    async def connect(_endpoint: str) -> Transport:
        raise LookupError("a fault")

    async def scene() -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        async with AthenaClient(config(), connect=connect) as client:
            results = await client.classify_many(hash_inputs(3))
            assert len(told) == 1, "before anybody closes"
            assert await client.aclose() == await client.aclose()
        assert {result.error and result.error.code for result in results} == {ErrorCode.INTERNAL}
        assert "the client stopped: LookupError" in str(results[0].error)
        del client
        gc.collect()
        return told

    (context,) = run_virtual(scene())
    assert context["message"] == "the client stopped: LookupError"
    fault = context["exception"]
    assert isinstance(fault, ExceptionGroup)
    assert fault.subgroup(LookupError) is not None


def test_what_is_missing_is_raised_on_entering_and_told_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "brotli", None)

    async def scene() -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        client = AthenaClient(config(preprocess=PreprocessConfig(encoding="brotli")), connect=FakeAthena().connect)
        with pytest.raises(MissingExtraError):
            await client.__aenter__()
        del client
        gc.collect()
        return told

    assert run_virtual(scene()) == []
