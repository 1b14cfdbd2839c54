"""An emulator as a process of its own: runs until it is told to stop."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable

from athena_async.emulator.config import EmulatorConfig
from athena_async.emulator.server import Emulator


def run(config: EmulatorConfig, announce: Callable[[str], None] | None = None) -> None:
    """Runs an emulator until SIGTERM or SIGINT, on uvloop where it is installed.

    Args:
        announce: called once with a line of JSON that has the addresses; None prints it to stdout.

    Raises:
        ConfigError: a file of the configuration is of no use.
        OSError: a port is in use, or a file cannot be read or written.
    """
    try:
        from uvloop import new_event_loop
    except ImportError:
        new_event_loop = None  # type: ignore[assignment]
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_serve(config, announce or _print_line))


async def _serve(config: EmulatorConfig, announce: Callable[[str], None]) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with Emulator(config) as emulator:
        announce(json.dumps(emulator.addresses()))
        await stopped.wait()


def _print_line(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
