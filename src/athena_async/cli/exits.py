"""How a command ends: its exit code, and its error in one line."""

from __future__ import annotations

from enum import IntEnum

from athena_async.cli.text import printable
from athena_async.errors import AthenaError, ConfigError, CredentialsError, MissingExtraError, RpcError
from athena_async.jobs.ledger import LedgerError

EXTRAS = {
    "cli": ("typer", "rich"),
    "opencv": ("cv2", "numpy"),
    "numpy": ("numpy",),
    "brotli": ("brotli",),
    "oauth": ("httpx2", "stamina"),
    "metrics": ("prometheus_client",),
    "tracing": ("opentelemetry",),
    "parquet": ("pyarrow",),
    "emulator": ("grpc_health", "grpc_reflection", "numpy", "brotli", "joserfc", "cryptography"),
}
"""Extra to the modules that it brings."""


class Exit(IntEnum):
    """Exit codes. A signal that ended a run gives 128 and its number: 130 for Ctrl-C, 143 for SIGTERM."""

    OK = 0
    INCOMPLETE = 1
    """Some images have no classification, or ``doctor`` found something broken."""
    USAGE = 2
    """The command line, the configuration or the installation is wrong."""
    SERVICE = 3
    """The service is out of reach or refuses access, from the start or in the middle of a run."""
    STOPPED = 4
    """The command could not do its work here: output not writable, or a fault of this program."""


SIGNALLED = 128


def exit_for(error: BaseException) -> Exit:
    """The exit code of an error that ended a command."""
    if isinstance(error, ConfigError | MissingExtraError) or _missing_dependency(error):
        return Exit.USAGE
    if isinstance(error, LedgerError):
        return Exit.STOPPED
    if isinstance(error, AthenaError):
        return Exit.SERVICE
    return Exit.STOPPED


def explain(error: BaseException) -> str:
    """One line for people; tells of ``--debug`` where only a traceback would help."""
    if isinstance(error, RpcError | CredentialsError):
        return _one_line(f"{error} (athena-async doctor looks closer)")
    if isinstance(error, AthenaError):
        return _one_line(str(error))
    if missing := _missing_dependency(error):
        return f"needs {missing}, which is not installed: pip install 'athena-async[{_extra_with(missing)}]'"
    if isinstance(error, OSError):
        return _one_line(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    return _one_line(f"a fault of this program, {type(error).__name__}: {error} (athena-async --debug shows where)")


def _missing_dependency(error: BaseException) -> str:
    """The module of somebody else that could not be imported; empty where that is not the trouble."""
    name = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    return "" if name == "athena_async" else name


def _extra_with(module: str) -> str:
    return next((extra for extra, modules in EXTRAS.items() if module in modules), "all")


def _one_line(text: str) -> str:
    return printable(" ".join(text.split()))
