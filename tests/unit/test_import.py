"""What importing every public name of athena_async costs and leaves alone; each in a fresh interpreter."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, NamedTuple

# The top-level modules of the optional extras, and what only tests and tools need.
EXTRAS = {
    "aiohttp",
    "authlib",
    "brotli",
    "cryptography",
    "cv2",
    "grpc_health",
    "grpc_reflection",
    "httpcore2",
    "httpx",
    "httpx2",
    "joserfc",
    "numpy",
    "opentelemetry",
    "prometheus_client",
    "pyarrow",
    "pydantic",
    "pytest",
    "rich",
    "stamina",
    "tenacity",
    "typer",
}

# What grpc and protobuf cost any program that speaks to the service.
BASE = """
import grpc, grpc.aio, asyncio
from google.protobuf import descriptor_pb2, descriptor_pool, empty_pb2, message, symbol_database
from google.protobuf.internal import builder
"""


def observe(program: str) -> Any:
    """The JSON that ``program`` prints in an interpreter of its own where warnings are errors."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=15, check=False
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


class ImportTime(NamedTuple):
    base_s: float
    own_s: float


def import_time() -> ImportTime:
    return ImportTime(
        *observe(f"""
import json, time
began = time.perf_counter()
{BASE}
based = time.perf_counter()
from athena_async import *
print(json.dumps([based - began, time.perf_counter() - based]))
""")
    )


def test_import_takes_under_250_ms_beyond_grpc_and_protobuf() -> None:
    """Where the machine is so slow or busy that this fails for its speed alone, 3.5 times grpc's own import will do.

    That is what 250 ms are on the machine that the figure was set for. The best of several runs counts.
    """
    runs: list[ImportTime] = []
    for _ in range(7):
        runs.append(import_time())
        base_s, own_s = (min(times) for times in zip(*runs, strict=True))
        if own_s < max(0.25, 3.5 * base_s):
            return
    raise AssertionError(f"too slow in each of {runs}")


def modules_after(statement: str) -> set[str]:
    return set(observe(f"{statement}; import json, sys; print(json.dumps([m.partition('.')[0] for m in sys.modules]))"))


def test_import_loads_no_extra() -> None:
    loaded = modules_after("from athena_async import *")
    assert "athena_async" in loaded
    # grpc itself looks for its companions, grpc_health among them.
    assert EXTRAS & loaded - modules_after("import grpc") == set()


def test_pytest_plugin_loads_no_extra() -> None:
    """pytest imports it wherever athena_async is installed, whether or not the emulator's extra is."""
    loaded = modules_after("import pytest; from athena_async.emulator import pytest_plugin")
    assert EXTRAS & loaded - modules_after("import grpc") == {"pytest"}


def test_import_starts_no_thread() -> None:
    count = observe("from athena_async import *; import json, threading; print(json.dumps(threading.active_count()))")
    assert count == 1


def test_import_leaves_logging_and_the_event_loop_alone() -> None:
    state = observe("""
import asyncio, json, logging, warnings
before = logging.root.level, logging.lastResort, logging.getLoggerClass(), list(warnings.filters)
from athena_async import *
touched = [name for name, logger in logging.root.manager.loggerDict.items()
           if name.startswith("athena") and isinstance(logger, logging.Logger)
           and (logger.level or not logger.propagate
                or any(not isinstance(handler, logging.NullHandler) for handler in logger.handlers))]
after = logging.root.level, logging.lastResort, logging.getLoggerClass(), list(warnings.filters)
import structlog
loop = asyncio.new_event_loop()
loop.close()
print(json.dumps({
    "root handlers": len(logging.root.handlers),
    "own loggers touched": touched,
    "logging or warnings changed": before != after,
    "structlog configured": structlog.is_configured(),
    "loop": type(loop).__module__.partition(".")[0],
}))
""")
    assert state == {
        "root handlers": 0,
        "own loggers touched": [],
        "logging or warnings changed": False,
        "structlog configured": False,
        "loop": "asyncio",
    }
