"""A network of our own: a namespace joined by a pair of virtual interfaces. Needs root and iproute2."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

HERE = "169.254.77.1"
THERE = "169.254.77.2"

_numbers = itertools.count()


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@dataclass(frozen=True)
class Namespace:
    """Named ``name``; its end of the pair is ``inner`` at THERE, ours at HERE."""

    name: str
    inner: str

    def command(self, *arguments: str) -> list[str]:
        """Runs inside it."""
        return ["ip", "netns", "exec", self.name, *arguments]

    def link(self, state: str) -> None:
        """``down`` cuts the link without a word to either side; ``up`` mends it."""
        ip("-n", self.name, "link", "set", self.inner, state)


@contextmanager
def namespace() -> Iterator[Namespace]:
    """Skips the test where this cannot be had."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    if shutil.which("ip") is None:
        pytest.skip("network namespaces need iproute2")
    # Interfaces are removed some time after their namespace: no two share a name.
    mark = f"{os.getpid() % 100_000}{next(_numbers)}"
    name, outer, inner = f"athena-{mark}", f"ath{mark}a", f"ath{mark}b"
    try:
        ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"network namespaces are not allowed here: {error.stderr.decode().strip()}")
    try:
        ip("link", "add", outer, "type", "veth", "peer", "name", inner, "netns", name)
        ip("addr", "add", f"{HERE}/30", "dev", outer)
        ip("link", "set", outer, "up")
        ip("-n", name, "addr", "add", f"{THERE}/30", "dev", inner)
        ip("-n", name, "link", "set", "lo", "up")
        ip("-n", name, "link", "set", inner, "up")
        yield Namespace(name, inner)
    finally:
        subprocess.run(["ip", "link", "del", outer], check=False, capture_output=True)
        ip("netns", "del", name)
