"""``athena-async deployments``."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from athena_async.cli.options import Connection, with_connection
from athena_async.cli.text import printable
from athena_async.config import ClientConfig
from athena_async.results import DeploymentInfo


@with_connection
def deployments(
    *,
    connection: Connection,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line, for programs.")] = False,
) -> None:
    """List the deployments that the service shows us, with the answers that wait in each.

    A deployment starts with its first image and ends after 24 hours without any. Its backlog is the number of
    answers that no client has fetched; they are kept for one hour.
    """
    from athena_async import run as run_loop

    found = run_loop(_ask(connection.client_config()))
    if as_json:
        for deployment in found:
            typer.echo(json.dumps({"deployment_id": deployment.deployment_id, "backlog": deployment.backlog}))
    else:
        _print(Console(), found)


async def _ask(config: ClientConfig) -> list[DeploymentInfo]:
    from athena_async.client import AthenaClient

    async with AthenaClient(config) as client:
        return await client.list_deployments()


def _print(console: Console, found: list[DeploymentInfo]) -> None:
    if not found:
        console.print("no deployments")
        return
    table = Table("deployment", "backlog", box=None, pad_edge=False)
    for deployment in sorted(found, key=lambda deployment: deployment.deployment_id):
        table.add_row(Text(printable(deployment.deployment_id), overflow="fold"), f"{deployment.backlog:,}")
    console.print(table)
