"""`athena_async.run`: uvloop for one program, and memory that is used again."""

from __future__ import annotations

import asyncio
import os
import platform
import subprocess
import sys
from pathlib import Path

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


FAULTS = """
import asyncio, concurrent.futures, resource, sys
from athena_async._run import run
async def main():
    loop, pool = asyncio.get_running_loop(), concurrent.futures.ThreadPoolExecutor(1)
    for _ in range(3):
        await loop.run_in_executor(pool, lambda: len(b"x" * (40 << 20)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        await loop.run_in_executor(pool, lambda: len(b"x" * (40 << 20)))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
(run if sys.argv[1] == "run" else asyncio.run)(main())
"""


def page_faults(runner: str, **environment: str) -> int:
    """Of taking 40 MiB in a thread ten times, which is 102,400 pages of 4 KiB; one thread, since each has an arena."""
    program = [sys.executable, "-c", FAULTS, runner]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    found = subprocess.run(program, capture_output=True, text=True, check=True, env=clean | environment)
    return int(found.stdout)


def has_large_pages() -> bool:
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return setting.exists() and "[always]" in setting.read_text()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc, with ways of its own")
@pytest.mark.skipif(has_large_pages(), reason="pages of 2 MiB: too few faults to tell")
def test_the_memory_of_large_images_is_used_again_unless_the_environment_says_otherwise() -> None:
    assert page_faults("run") < 10_000 < page_faults("asyncio.run")
    assert page_faults("run", MALLOC_TRIM_THRESHOLD_="131072") > 10_000
