"""Every command and every program in README.md runs.

Blocks marked ``sh`` and ``python`` run one after another in one directory, which holds a folder ``photos``; the
environment and the address 127.0.0.1:50051 lead to an emulator. Blocks of other languages show output. What cannot
run inside a test is checked as far as it goes: a ``make`` target by a dry run (continuous integration runs ``make
test``), a ``pip install`` by the extras that it names.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import anyio
import pytest

from athena_async.emulator import Emulator

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parents[1]
TOOLS = Path(sys.executable).parent
EXAMPLE_ADDRESS = "127.0.0.1:50051"

# How a program calls a function that is shown alone.
CALLER = """
from pathlib import Path
from athena_async import AthenaClient, run

{function}

async def call():
    async with AthenaClient.from_env() as client:
        await {name}(client, sorted(map(str, Path("photos").iterdir())))

run(call())
"""


class Block(NamedTuple):
    language: str
    text: str
    line: int

    def commands(self) -> list[str]:
        """The shell commands of the block, continuation lines joined, comments left out."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line.partition(" #")[0].strip() for line in lines if line.strip() and not line.startswith("#")]

    def program(self) -> str:
        """The Python of the block, with a caller where it is but a function of a client and paths."""
        function = re.match(r"async def (\w+)\(client: AthenaClient, many_paths: list\[str\]\)", self.text)
        return CALLER.format(function=self.text, name=function[1]) if function else self.text


def blocks() -> list[Block]:
    text = (ROOT / "README.md").read_text()
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(match[1], match[2], text.count("\n", 0, match.start()) + 1) for match in found]


COMMANDS = [command for block in blocks() if block.language == "sh" for command in block.commands()]
PROGRAMS = [block for block in blocks() if block.language == "python"]


def starting(*words: str) -> list[str]:
    return [command for command in COMMANDS if shlex.split(command)[: len(words)] == list(words)]


MAKE = starting("make")
INSTALL = starting("pip", "install")
SERVERS = starting("athena-async", "emulator")
CLIENTS = [command for command in starting("athena-async") if command not in SERVERS]


def test_every_command_is_of_a_kind_that_runs_here() -> None:
    assert sorted(COMMANDS) == sorted(MAKE + INSTALL + SERVERS + CLIENTS)
    assert {"make demo", "make test"} <= set(MAKE)
    assert CLIENTS
    assert PROGRAMS


@pytest.mark.parametrize("command", MAKE)
def test_make_target_exists(command: str) -> None:
    dry = [*shlex.split(command), "--dry-run"]
    run = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, timeout=10, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip()


@pytest.mark.parametrize("command", INSTALL)
def test_install_names_extras_that_exist(command: str) -> None:
    *_, requirement = shlex.split(command)
    extras = re.fullmatch(r"athena-async(?:\[([\w,-]+)\])?", requirement)
    assert extras, "only the package itself can be checked"
    offered = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set((extras[1] or "").split(",")) - {""} <= set(offered)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A directory to work in, with a folder of photographs."""
    package = find_spec("skimage")
    assert package is not None
    assert package.submodule_search_locations
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("astronaut.png", "coffee.png", "rocket.jpg"):
        (folder / name).symlink_to(Path(package.submodule_search_locations[0]) / "data" / name)
    return tmp_path


@asynccontextmanager
async def emulated_service() -> AsyncIterator[Mapping[str, str]]:
    """Runs an emulator and yields the environment that leads to it."""
    async with Emulator() as emulator:
        host, _, port = emulator.address.rpartition(":")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("ATHENA_", "OAUTH_"))}
        path = f"{TOOLS}{os.pathsep}{os.environ['PATH']}"
        yield inherited | {"PATH": path, "ATHENA_HOST": host, "ATHENA_PORT": port, "USE_TLS": "false"}


async def run(command: list[str], directory: Path, environment: Mapping[str, str]) -> str:
    """What the command prints; it must end with 0."""
    address = f"{environment['ATHENA_HOST']}:{environment['ATHENA_PORT']}"
    command = [word.replace(EXAMPLE_ADDRESS, address) for word in command]
    with anyio.fail_after(18):
        ended = await anyio.run_process(command, cwd=directory, env=environment, check=False)
    assert ended.returncode == 0, ended.stdout.decode() + ended.stderr.decode()
    return ended.stdout.decode() + ended.stderr.decode()


@pytest.mark.timeout(120)
async def test_commands_run_in_their_order(photos: Path) -> None:
    async with emulated_service() as environment:
        for command in CLIENTS:
            await run(["sh", "-c", command], photos, environment)


@pytest.mark.parametrize("block", PROGRAMS, ids=lambda block: f"line {block.line}")
async def test_program_runs(block: Block, photos: Path) -> None:
    async with emulated_service() as environment:
        printed = await run([sys.executable, "-W", "error", "-c", block.program()], photos, environment)
    assert printed.strip(), "an example shows what it does"


@pytest.mark.parametrize("command", SERVERS)
async def test_emulator_starts_as_written_and_stops_on_a_signal(command: str, photos: Path) -> None:
    """On a free port in place of the one written there."""
    words = re.sub(r"(--[a-z-]*port) \d+", r"\1 0", command).split()
    process = await anyio.open_process([str(TOOLS / words[0]), *words[1:]], cwd=photos, stderr=None)
    assert process.stdout is not None
    async with process:
        with anyio.fail_after(15):
            assert b'"grpc"' in await process.stdout.receive()
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
