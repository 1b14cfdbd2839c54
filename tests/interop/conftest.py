"""One emulator over TLS with OAuth, and the official client in processes of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from athena_async.emulator.process import EmulatorProcess

# The official client needs `typing.override`, which Python 3.11 does not have yet.
PREAMBLE = """
import asyncio, json, sys, typing, typing_extensions
typing.override = typing_extensions.override
values = json.load(sys.stdin)
"""


@pytest.fixture(scope="session")
def photographs() -> Path:
    """The folder of the benign photographs inside the scikit-image wheel."""
    spec = importlib.util.find_spec("skimage")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "data"


@pytest.fixture(scope="session")
def athena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatorProcess]:
    """TLS, tokens from its own HTTPS endpoint, two affiliates; messages as large as the official client sends."""
    with EmulatorProcess(
        tls_dir=str(tmp_path_factory.mktemp("tls")),
        oauth_port=0,
        oauth_tls=True,
        oauth_clients={"interop": "interop-secret"},
        api_keys=["static-key"],
        affiliates=["acme", "default"],
        max_message_bytes=16 * 1024 * 1024,
    ) as process:
        yield process


Run = Callable[..., Any]


@pytest.fixture
def official(athena: EmulatorProcess) -> Run:
    """Runs a script with the official client in a process that trusts the test CA; returns the JSON it prints."""

    def run(script: str, **values: Any) -> Any:
        values = {"host": athena.address, "oauth": athena.oauth_url, **values}
        environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        environment |= {"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(athena.ca), "SSL_CERT_FILE": str(athena.ca)}
        done = subprocess.run(
            [sys.executable, "-c", PREAMBLE + script],
            input=json.dumps(values),
            capture_output=True,
            text=True,
            timeout=18,
            env=environment,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    return run
