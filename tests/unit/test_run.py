"""`athena_async.run`: uvloop for one program, and nothing left behind."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from athena_async._run import run

uvloop = pytest.importorskip("uvloop")


async def loop_in_use() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def test_it_runs_on_uvloop_and_leaves_the_policy_alone() -> None:
    before = asyncio.get_event_loop_policy()
    assert isinstance(run(loop_in_use()), uvloop.Loop)
    assert asyncio.get_event_loop_policy() is before
    assert not isinstance(asyncio.run(loop_in_use()), uvloop.Loop)


def test_it_hands_back_errors_and_debug_mode() -> None:
    async def fails() -> None:
        assert asyncio.get_running_loop().get_debug()
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        run(fails(), debug=True)


def test_without_uvloop_it_is_asyncio() -> None:
    program = """
import sys
sys.modules["uvloop"] = None
import asyncio
from athena_async._run import run
async def main():
    return type(asyncio.get_running_loop()).__module__
print(run(main()))
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.startswith("asyncio.")
