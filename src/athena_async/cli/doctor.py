"""``athena-async doctor``."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated

import anyio
import typer
from rich.console import Console
from rich.text import Text

from athena_async.cli.exits import Exit
from athena_async.cli.findings import Finding, State
from athena_async.cli.installation import installation_findings
from athena_async.cli.options import Connection, with_connection
from athena_async.cli.reach import endpoint_findings
from athena_async.cli.settings_shown import configuration_findings
from athena_async.cli.text import printable
from athena_async.config import ClientConfig
from athena_async.errors import ConfigError

_STYLES = {State.OK: "green", State.NOTE: "yellow", State.BROKEN: "bold red"}


@with_connection
def doctor(
    *,
    connection: Connection,
    offline: Annotated[bool, typer.Option("--offline", help="Leave the network alone.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per finding, for programs.")] = False,
) -> None:
    """Look at the installation, the configuration and the way to the service.

    Tells versions, which Pillow is at work with its codecs and known holes, and which extras are there; shows the
    configuration without its secrets; then reaches for each endpoint: name, connection, TLS, token. Each
    fault comes with its remedy. No image is sent. The exit code is 1 when something is broken.
    """
    from athena_async import run as run_loop

    broken = run_loop(_examine(connection, offline=offline, as_json=as_json))
    raise typer.Exit(Exit.INCOMPLETE if broken else Exit.OK)


async def _examine(connection: Connection, *, offline: bool, as_json: bool) -> bool:
    """Shows each finding as it comes. Returns whether anything is broken."""
    console, section, broken = Console(), "", False
    async for finding in _findings(connection, offline=offline):
        broken |= finding.state is State.BROKEN
        if as_json:
            typer.echo(json.dumps(finding.as_mapping()))
            continue
        if finding.section != section:
            section = finding.section
            console.print(Text(section, style="bold"))
        print_finding(console, finding)
    return broken


async def _findings(connection: Connection, *, offline: bool) -> AsyncIterator[Finding]:
    for finding in await anyio.to_thread.run_sync(installation_findings):
        yield finding
    try:
        config = connection.client_config()
    except ConfigError as error:
        yield Finding("Configuration", "configuration", State.BROKEN, str(error), "Mend what is named, and run again.")
        return
    for finding in configuration_findings(config):
        yield finding
    if not offline:
        async for finding in _network(config):
            yield finding


async def _network(config: ClientConfig) -> AsyncIterator[Finding]:
    for endpoint in config.endpoints:
        async for finding in endpoint_findings(config, endpoint):
            yield finding


def print_finding(console: Console, finding: Finding) -> None:
    """One line, and one more for the remedy."""
    state = Text(f"{finding.state.value:<7}", style=_STYLES[finding.state])
    line = Text.assemble("  ", state, f"{printable(finding.name)}: {printable(finding.detail)}")
    console.print(line, soft_wrap=True)
    if finding.remedy:
        console.print(Text(f"         remedy: {printable(finding.remedy)}"), soft_wrap=True)
