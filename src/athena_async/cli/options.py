"""Options that commands share, and the configuration made of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from athena_async.config import ClientConfig, TlsConfig

_PANEL = "Connection (otherwise from ATHENA_* in the environment)"


def _option(*names: str, help: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=_PANEL, show_default=False, **more)


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """What was said on the command line about the service; None and empty where nothing was."""

    config: Annotated[
        Path | None,
        _option("--config", metavar="FILE", help="Read the configuration from this TOML file, not the environment."),
    ] = None
    endpoint: Annotated[
        list[str], _option("--endpoint", metavar="HOST:PORT", help="The service; repeat it to share the load.")
    ] = ()  # type: ignore[assignment]
    affiliate: Annotated[str | None, _option("--affiliate", help="On whose behalf images are classified.")] = None
    deployment_id: Annotated[
        str | None,
        _option("--deployment-id", metavar="ID", help="Share answers under this id; otherwise a unique one is made."),
    ] = None
    api_key_file: Annotated[
        Path | None,
        _option(
            "--api-key-file",
            metavar="FILE",
            help="File that holds the token. A token itself belongs into "
            "ATHENA_API_KEY: others can read a command line.",
        ),
    ] = None
    tls: Annotated[bool | None, _option("--tls/--no-tls", help="TLS (the default), or plaintext.")] = None
    ca: Annotated[Path | None, _option("--ca", metavar="PEM", help="Trust these roots, and no others.")] = None
    cert: Annotated[Path | None, _option("--cert", metavar="PEM", help="Client certificate (mutual TLS).")] = None
    key: Annotated[Path | None, _option("--key", metavar="PEM", help="Its private key.")] = None
    server_name: Annotated[
        str | None,
        _option("--server-name", metavar="NAME", help="Name expected in the server's certificate."),
    ] = None

    def client_config(self, **overrides: object) -> ClientConfig:
        """The configuration: from the file or the environment, with what was said on the command line on top.

        Args:
            overrides: fields of `ClientConfig` that win over everything.

        Raises:
            ConfigError: naming option, variable or key, its value and what is allowed.
        """
        chosen = self._overrides() | overrides
        if self.config is not None:
            return ClientConfig.from_file(self.config, **chosen)
        return ClientConfig.from_env(None, **chosen)

    def _overrides(self) -> dict[str, object]:
        tls_files = {
            name: value for name in ("ca", "cert", "key", "server_name") if (value := getattr(self, name)) is not None
        }
        if tls_files and self.tls is False:
            raise typer.BadParameter(f"--{next(iter(tls_files)).replace('_', '-')} needs TLS, but --no-tls is given")
        given = {
            "endpoints": tuple(self.endpoint) or None,
            "affiliate": self.affiliate,
            "deployment_id": self.deployment_id,
            "api_key_file": self.api_key_file,
            "tls": TlsConfig(**tls_files) if tls_files else self.tls,
        }
        return {name: value for name, value in given.items() if value is not None}


def with_connection(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options of `Connection` in place of its parameter ``connection``."""
    own, shared = _options_of(command), _options_of(Connection)
    own.pop("connection")

    @wraps(command)
    def expanded(**given: Any) -> None:
        said = {name: given.pop(name) for name in shared.keys() & given.keys()}
        command(**given, connection=Connection(**said))

    options = own | shared
    expanded.__signature__ = inspect.Signature(list(options.values()))  # type: ignore[attr-defined]
    expanded.__annotations__ = {name: option.annotation for name, option in options.items()}
    return expanded


def _options_of(function: Callable[..., object]) -> dict[str, inspect.Parameter]:
    """Its parameters, all by keyword, with their annotations as objects and not as text."""
    hints = get_type_hints(function, include_extras=True)
    return {
        name: parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name])
        for name, parameter in inspect.signature(function).parameters.items()
    }
