"""The configuration as the doctor shows it: what differs from the defaults, and no secret."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from athena_async.cli.findings import Finding, State
from athena_async.config import ClientConfig, OAuthConfig

_SECTION = "Configuration"
_ALWAYS_SHOWN = ("endpoints", "affiliate", "tls")
_HIDDEN = "set (not shown)"


def configuration_findings(config: ClientConfig) -> Iterator[Finding]:
    """Endpoints and access always, everything else where it is not the default."""
    for name, value in _changed(config, ClientConfig()):
        yield Finding(_SECTION, name, State.OK, value)
    yield _credentials(config)


def _changed(config: Any, default: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    for field in fields(config):
        name, value = prefix + field.name, getattr(config, field.name)
        usual = getattr(default, field.name, None)  # the default may lack the whole part
        if is_dataclass(value) and not isinstance(value, type):
            yield from _changed(value, usual, name + ".")
        elif value != usual or name in _ALWAYS_SHOWN:
            yield name, _shown(value) if field.repr else _HIDDEN


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if isinstance(value, os.PathLike):
        return str(os.fspath(value))
    return f"{value}"


def _credentials(config: ClientConfig) -> Finding:
    name = "credentials"
    if config.api_key_file is not None and not Path(config.api_key_file).is_file():
        detail = f"{os.fspath(config.api_key_file)} is no file"
        return Finding(_SECTION, name, State.BROKEN, detail, "Name the file that holds the token.")
    if isinstance(config.oauth, OAuthConfig):
        return Finding(_SECTION, name, State.OK, f"OAuth2 client credentials from {config.oauth.auth_url}")
    if config.api_key is not None or config.api_key_file is not None:
        return Finding(_SECTION, name, State.OK, "static token")
    remedy = "Set ATHENA_API_KEY, or OAUTH_CLIENT_ID and OAUTH_CLIENT_SECRET."
    return Finding(_SECTION, name, State.NOTE, "none: the public service refuses this", remedy)
