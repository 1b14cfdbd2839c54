"""The typer application, and what becomes of an error."""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import typer

from athena_async.cli.exits import SIGNALLED, exit_for, explain

_EPILOG = (
    "Exit codes: 0 all well; 1 some images have no classification, or doctor found a fault; 2 wrong usage or "
    "configuration; 3 the service is out of reach or refuses access; 4 the output cannot be written, or a fault of "
    "this program; 130 and 143 stopped by Ctrl-C and SIGTERM."
)


class Settings:
    """What was said before the command's name."""

    def __init__(self) -> None:
        self.debug = False


def build_app(settings: Settings) -> typer.Typer:
    """The application; ``settings`` is filled in when a command line is parsed."""
    from athena_async.cli.classify import classify
    from athena_async.cli.deployments import deployments
    from athena_async.cli.doctor import doctor
    from athena_async.cli.emulator import emulator

    app = typer.Typer(
        name="athena-async",
        help="Classify images with Athena: many at once, each answered once.",
        epilog=_EPILOG,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def before(
        debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")] = False,
        version: Annotated[
            bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)
        ] = False,
    ) -> None:
        settings.debug = debug

    for command in (classify, deployments, doctor, emulator):
        app.command()(command)
    return app


def run() -> int:
    """Runs the command line of this process.

    Returns:
        The exit code; one line about the error stands on stderr where it is not 0.
    """
    settings = Settings()
    try:
        build_app(settings)()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except KeyboardInterrupt:
        return SIGNALLED + signal.SIGINT
    except Exception as error:  # the last one who could tell the user
        if settings.debug:
            raise
        sys.stderr.write(f"athena-async: {explain(error)}\n")
        return exit_for(error)
    return 0


def _show_version(wanted: bool) -> None:
    if wanted:
        from athena_async._version import __version__

        typer.echo(f"athena-async {__version__}")
        raise typer.Exit
