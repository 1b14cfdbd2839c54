"""The command line: ``athena-async classify | deployments | doctor | emulator``."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Entry point of the console script; ends the process with one of `athena_async.cli.exits.Exit`."""
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ImportError:
        sys.stderr.write(
            "athena-async: the command line needs an optional dependency: pip install 'athena-async[cli]'\n"
        )
        sys.exit(2)
    # gRPC reads this once, when it is imported: a closed connection is no news for who runs a command.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from athena_async.cli.app import run

    sys.exit(run())
