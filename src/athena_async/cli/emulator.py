"""``athena-async emulator``: a local Athena until it is told to stop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from athena_async.errors import ConfigError

Host = Annotated[str, Option(help="Address to listen on.")]
Port = Annotated[int, Option(help="Port of the gRPC service; 0 picks one.")]
TlsDir = Annotated[
    Path | None, Option(help="Serve TLS; a test CA and certificate are written there once (ca.pem, ...).")
]
Mtls = Annotated[bool, Option("--mtls", help="Ask clients for a certificate of the test CA.")]
OauthPort = Annotated[
    int | None, Option(help="Serve OAuth2 client credentials at /oauth/token on this port; 0 picks one.")
]
OauthTls = Annotated[bool, Option("--oauth-tls", help="Serve them over HTTPS, by the test CA.")]
OauthClients = Annotated[
    list[str] | None, Option(metavar="ID:SECRET", help="A client that gets tokens. May be repeated.")
]
Audience = Annotated[str, Option(help="The audience that tokens are for.")]
TokenLifetime = Annotated[float, Option(help="Seconds that a token counts, on the scaled clock.")]
ApiKeys = Annotated[list[str] | None, Option(metavar="[CLIENT=]KEY", help="A static bearer token. May be repeated.")]
AffiliateNames = Annotated[
    list[str] | None,
    Option(
        metavar="[CLIENT=]NAME",
        help="Permit NAME in inputs, or only for one client with CLIENT=NAME. May be repeated. Default: all.",
    ),
]
Known = Annotated[Path | None, Option(metavar="FILE", help="Made-up MD5 and SHA1 digests that count as known.")]
Expected = Annotated[
    Path | None, Option(metavar="FILE", help="Test cases (JSON) whose images get the weights written there.")
]
Audit = Annotated[Path | None, Option(metavar="FILE", help="Append a line of JSON for each input received.")]
FaultFile = Annotated[
    Path | None, Option(metavar="FILE", help="TOML with what goes wrong: tables faults, model, behaviour.")
]
FaultFields = Annotated[
    list[str] | None, Option(metavar="NAME=VALUE", help="One field of the fault plan. May be repeated.")
]
ModelFields = Annotated[
    list[str] | None, Option(metavar="NAME=VALUE", help="One field of the service model. May be repeated.")
]
TimeScale = Annotated[float, Option(help="How fast lifetimes run: 3600 makes an hour a second.")]
AdminPort = Annotated[int, Option(help="Port of the admin endpoint; 0 picks one.")]
MaxMessageBytes = Annotated[int, Option(help="The largest message received.")]
Sink = Annotated[bool, Option("--sink", help="Answer at once without reading images: for benchmarks.")]


def emulator(
    host: Host = "127.0.0.1",
    port: Port = 50051,
    tls_dir: TlsDir = None,
    mtls: Mtls = False,
    oauth_port: OauthPort = None,
    oauth_tls: OauthTls = False,
    oauth_client: OauthClients = None,
    audience: Audience = "crisp-athena-live",
    token_lifetime: TokenLifetime = 3600.0,
    api_key: ApiKeys = None,
    affiliate: AffiliateNames = None,
    known_hashes: Known = None,
    expected_outputs: Expected = None,
    audit: Audit = None,
    faults: FaultFile = None,
    fault: FaultFields = None,
    model: ModelFields = None,
    time_scale: TimeScale = 1.0,
    admin_port: AdminPort = 0,
    max_message_bytes: MaxMessageBytes = 4 * 1024 * 1024,
    sink: Sink = False,
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
        oauth_clients=dict(_client(text) for text in oauth_client or ()),
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
    run(config, typer.echo)


def _client(text: str) -> tuple[str, str]:
    client_id, _, secret = text.partition(":")
    if not (client_id and secret):
        raise ConfigError("--oauth-client", "(not shown)", "of the form ID:SECRET")
    return client_id, secret


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
