"""``athena-async emulator``: a local Athena until it is told to stop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from athena_async.errors import ConfigError

AFFILIATE_HELP = "Permit NAME in inputs, or only for one client with CLIENT=NAME. May be repeated. Default: all."


def emulator(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the gRPC service; 0 picks one.")] = 50051,
    tls_dir: Annotated[
        Path | None, typer.Option(help="Serve TLS; a test CA and certificate are written there once (ca.pem, ...).")
    ] = None,
    mtls: Annotated[bool, typer.Option("--mtls", help="Ask clients for a certificate of the test CA.")] = False,
    oauth_port: Annotated[
        int | None, typer.Option(help="Serve OAuth2 client credentials at /oauth/token; 0 picks a port.")
    ] = None,
    oauth_tls: Annotated[bool, typer.Option("--oauth-tls", help="Serve them over HTTPS, by the test CA.")] = False,
    oauth_client: Annotated[
        list[str] | None, typer.Option(metavar="ID:SECRET", help="A client that gets tokens. May be repeated.")
    ] = None,
    audience: Annotated[str, typer.Option(help="The audience that tokens are for.")] = "crisp-athena-live",
    token_lifetime: Annotated[float, typer.Option(help="Seconds that a token counts, on the scaled clock.")] = 3600.0,
    api_key: Annotated[
        list[str] | None, typer.Option(metavar="[CLIENT=]KEY", help="A static bearer token. May be repeated.")
    ] = None,
    affiliate: Annotated[list[str] | None, typer.Option(metavar="[CLIENT=]NAME", help=AFFILIATE_HELP)] = None,
    known_hashes: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Made-up MD5 and SHA1 digests that count as known.")
    ] = None,
    expected_outputs: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Test cases (JSON) whose images get the weights written there.")
    ] = None,
    audit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Append a line of JSON for each input received.")
    ] = None,
    faults: Annotated[
        Path | None, typer.Option(metavar="FILE", help="TOML with what goes wrong: tables faults, model, behaviour.")
    ] = None,
    fault: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="One field of the fault plan. May be repeated.")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="One field of the service model. May be repeated.")
    ] = None,
    time_scale: Annotated[float, typer.Option(help="How fast lifetimes run: 3600 makes an hour a second.")] = 1.0,
    admin_port: Annotated[int, typer.Option(help="Port of the admin endpoint; 0 picks one.")] = 0,
    max_message_bytes: Annotated[int, typer.Option(help="The largest message received.")] = 4 * 1024 * 1024,
    sink: Annotated[
        bool, typer.Option("--sink", help="Answer at once without reading images: for benchmarks.")
    ] = False,
) -> None:
    """Run a local Athena: the three RPCs, deployments, tokens, faults, audit.

    Prints one line of JSON with its addresses when it is ready, and stops on SIGTERM or Ctrl-C.
    """
    from athena_async.emulator.config import EmulatorConfig
    from athena_async.emulator.run import run
    from athena_async.emulator.settings import fields_from_flags

    config = EmulatorConfig(
        host=host,
        port=port,
        tls_dir=tls_dir,
        mtls=mtls,
        oauth_port=oauth_port,
        oauth_tls=oauth_tls,
        oauth_clients=dict(_pair(text, ":", "--oauth-client") for text in oauth_client or ()),
        audience=audience,
        token_lifetime_s=token_lifetime,
        api_keys=tuple(api_key or ()),
        affiliates=_affiliates(affiliate),
        known_hashes=known_hashes,
        expected_outputs=expected_outputs,
        audit_path=audit,
        time_scale=time_scale,
        admin_port=admin_port,
        max_message_bytes=max_message_bytes,
        sink=sink,
        **fields_from_flags(faults, fault or (), model or ()),
    )
    run(config)


def _pair(text: str, separator: str, flag: str) -> tuple[str, str]:
    left, found, right = text.partition(separator)
    if not (left and found and right):
        raise ConfigError(flag, "(not shown)", f"two values joined by {separator!r}")
    return left, right


def _affiliates(flags: list[str] | None) -> Any:
    """Names for every client, or a mapping once one flag names a client; the plain ones then go to ``*``."""
    if not flags or not any("=" in flag for flag in flags):
        return tuple(flags) if flags else None
    by_client: dict[str, tuple[str, ...]] = {}
    for flag in flags:
        client, found, name = flag.partition("=")
        key, value = (client, name) if found else ("*", flag)
        by_client[key] = (*by_client.get(key, ()), value)
    return by_client
