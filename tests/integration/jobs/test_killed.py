"""A run that is killed in the middle, without a word, and resumed."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.integration.cli.harness import athena, emulator, make_photos, start

COUNT = 400


@pytest.fixture
def audit(tmp_path: Path) -> Path:
    """What the service received: a line for each input."""
    return tmp_path / "audit.jsonl"


@pytest.fixture
def endpoint(audit: Path) -> Iterator[str]:
    with emulator("--audit", audit, "--model", "per_image_s=0.005", "--model", "parallelism=1") as address:
        yield address


def settled(output: Path) -> set[str]:
    """The paths that the ledger says are done."""
    with closing(sqlite3.connect(f"{output}.ledger")) as ledger:
        return {path for (path,) in ledger.execute("SELECT path FROM files")}


def rows(output: Path) -> list[dict[str, object]]:
    if output.suffix == ".parquet":
        import pyarrow.parquet as pq

        found: list[dict[str, object]] = pq.read_table(output).to_pylist()
        return found
    return [json.loads(line) for line in output.read_bytes().splitlines()]


@pytest.mark.timeout(60)  # five processes are started one after the other: half of a single test's limit even alone
@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_kill_and_resume_loses_nothing_and_doubles_nothing(
    tmp_path: Path, endpoint: str, audit: Path, name: str
) -> None:
    make_photos(tmp_path / "photos", COUNT)
    output = tmp_path / name
    written = Path(f"{output}.spool") if output.suffix == ".parquet" else output
    command = ("classify", tmp_path / "photos", "-o", output, "--endpoint", endpoint, "--no-tls", "--resume")
    seen = 0
    for _ in range(3):
        with start(*command) as process:
            kill_when_settled(process, output, written)
        done = settled(output)
        assert seen < len(done) < COUNT
        seen = len(done)
    ended = athena(*command)
    assert ended.returncode == 0, ended.stderr
    lines = rows(output)
    paths = [str(line["path"]) for line in lines]
    assert len(set(paths)) == len(paths) == COUNT
    assert done == {str(line["path"]) for line in lines if int(str(line["run"])) <= 3}
    sent = [json.loads(line)["deployment"] for line in audit.read_bytes().splitlines()]
    assert sent.count(sent[-1]) == COUNT - len(done)


def kill_when_settled(process: subprocess.Popen[str], output: Path, written: Path) -> None:
    """kill -9 once what was written is in the ledger, whose log grows then, and more is written that may not be."""
    log = Path(f"{output}.ledger-wal")
    before = size(written)  # a resumed run cuts off first what is not in the ledger
    wait_until(process, lambda: size(written) > before)
    logged = changed_ns(log)
    wait_until(process, lambda: changed_ns(log) != logged)
    before = size(written)
    wait_until(process, lambda: size(written) > before)
    process.kill()
    process.communicate()


def wait_until(process: subprocess.Popen[str], holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not holds():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def changed_ns(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0
