"""Child processes that end with their parent.

A child gets a pipe as its standard input and ends when that closes, so that none outlives the benchmark even if it
is killed. It prints its port as its first line. Lines that the parent sends are handed to the child's program.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import uvloop

ROOT = Path(__file__).parent.parent
START_TIMEOUT_S = 20.0

Announce = Callable[[int], None]
Command = dict[str, float]


class Child:
    """A running child process and the address that it listens on."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.endpoint = f"127.0.0.1:{port}"
        self.pid = process.pid

    def send(self, **command: float) -> None:
        """Hands a command to the child's program, as one line of JSON."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command).encode() + b"\n")

    def __repr__(self) -> str:
        return f"Child(pid={self.pid}, endpoint={self.endpoint!r})"


@contextlib.asynccontextmanager
async def start(module: str, *arguments: str) -> AsyncIterator[Child]:
    """Runs ``python -m module`` until the block is left."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), START_TIMEOUT_S)
        yield Child(process, int(line))
    finally:
        process.stdin.close()
        await _end(process)


async def finish(module: str, *arguments: str, python: str | Path = sys.executable) -> bytes:
    """Runs ``python -m module`` to its end; returns what it printed. For programs that call `end_with_parent`.

    Raises:
        RuntimeError: it ended with another exit status than 0.
    """
    process = await asyncio.create_subprocess_exec(
        python, "-m", module, *arguments, cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    printed = await process.stdout.read()  # not communicate(), which closes its standard input
    if await process.wait():
        raise RuntimeError(f"{module} {' '.join(arguments)} ended with exit status {process.returncode}")
    return printed


def end_with_parent() -> None:
    """A watcher ends this process, and so its own children, once the parent's pipe closes."""

    def watch() -> None:
        while os.read(0, 4096):  # not sys.stdin, whose lock a thread must not hold as the interpreter ends
            continue
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


async def _end(process: asyncio.subprocess.Process) -> None:
    try:
        await asyncio.wait_for(process.wait(), 3.0)
    except (TimeoutError, asyncio.CancelledError):
        process.kill()
        await process.wait()


def run(program: Callable[[Announce], Awaitable[None]], on_command: Callable[[Command], None] | None = None) -> None:
    """Runs the program of a child until its parent closes the pipe."""

    async def main() -> None:
        task = asyncio.ensure_future(program(lambda port: print(port, flush=True)))
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        orders = asyncio.ensure_future(_obey(reader, on_command))
        await asyncio.wait([task, orders], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


async def _obey(reader: asyncio.StreamReader, on_command: Callable[[Command], None] | None) -> None:
    while line := await reader.readline():
        if on_command is not None:
            on_command(json.loads(line))
