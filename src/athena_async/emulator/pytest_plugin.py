"""The pytest plugin: a local Athena for users' own tests. Loaded with every pytest run: imports nothing heavy.

``athena_emulator``, a session-wide fixture, is an `athena_async.emulator.process.EmulatorProcess`.
``pytest --athena-emulator`` starts one for the whole run and points the environment variables that
`athena_async.ClientConfig.from_env` reads to it, so that tests of a program need not know of it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from athena_async.emulator.process import EmulatorProcess

_OPTION = "athena_emulator"
_RUNNING: pytest.StashKey[EmulatorProcess] = pytest.StashKey()
_ENVIRONMENT: pytest.StashKey[dict[str, str | None]] = pytest.StashKey()
# They would send the tests, or a token, somewhere else.
_CLEARED = ("ATHENA_API_KEY", "OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET", "OAUTH_AUTH_URL", "OAUTH_AUDIENCE")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("athena").addoption(
        "--athena-emulator",
        action="store_true",
        dest=_OPTION,
        help="run a local Athena during the tests and point ATHENA_HOST and ATHENA_PORT to it",
    )


def pytest_sessionstart(session: pytest.Session) -> None:
    if not session.config.getoption(_OPTION):
        return
    emulator = _ensure(session.config)
    wanted = {"ATHENA_HOST": emulator.host, "ATHENA_PORT": str(emulator.port), "USE_TLS": "false"}
    session.config.stash[_ENVIRONMENT] = {name: os.environ.get(name) for name in (*wanted, *_CLEARED)}
    for name in _CLEARED:
        os.environ.pop(name, None)
    os.environ.update(wanted)


def pytest_unconfigure(config: pytest.Config) -> None:
    for name, value in config.stash.get(_ENVIRONMENT, {}).items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    emulator = config.stash.get(_RUNNING, None)
    if emulator is not None:
        emulator.stop()


def pytest_report_header(config: pytest.Config) -> str | None:
    emulator = config.stash.get(_RUNNING, None)
    return f"athena emulator: {emulator.address}" if emulator is not None else None


@pytest.fixture(scope="session")
def athena_emulator(request: pytest.FixtureRequest) -> EmulatorProcess:
    """A local Athena in a process of its own; its ``address`` takes plaintext and asks for no token.

    The same one for the whole run, and the one of ``--athena-emulator``. A test that changes its faults
    should call ``reset()`` afterwards.
    """
    return _ensure(request.config)


def _ensure(config: pytest.Config) -> EmulatorProcess:
    from athena_async.emulator.process import EmulatorProcess

    if _RUNNING not in config.stash:
        config.stash[_RUNNING] = EmulatorProcess()
    return config.stash[_RUNNING]
