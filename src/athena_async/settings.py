"""Configuration from environment variables and TOML files.

Every field of `ClientConfig` and of its parts has one variable and one TOML key, derived from the
dataclasses by one mechanism: what is added there can be set here. Wrong values raise `ConfigError`
with the variable or key, the value (never a secret) and what is allowed.

    pool.channels           ATHENA_POOL_CHANNELS    [pool] channels = 2
    timeout_s               ATHENA_TIMEOUT_S        timeout_s = 120.0
    tls, oauth.client_id    USE_TLS, OAUTH_CLIENT_ID (names that Athena users already have)
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import ipaddress
import json
import os
import re
import sys
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any, TypeVar

from athena_async import _check as check
from athena_async._settings_table import NOT_SHOWN, Setting, parts, settings
from athena_async.config import DEFAULT_ENDPOINT, ClientConfig, TlsConfig
from athena_async.errors import ConfigError

_HOST, _PORT = "ATHENA_HOST", "ATHENA_PORT"
_CREDENTIALS = ("api_key", "api_key_file", "oauth")


@dataclass(frozen=True, slots=True)
class _Source:
    """What was given, and what each field is called where it was given.

    Attributes:
        names: path of a field or part to the variable or key.
        raw: path to the text as the user wrote it, but for secrets.
        values: path to the value read.
    """

    names: dict[str, str]
    raw: dict[str, str]
    values: dict[str, object]

    def without(self, overrides: Mapping[str, object]) -> _Source:
        """Fields that ``overrides`` replace are gone, and so are credentials once others are given."""
        replaced = set(overrides)
        if any(overrides.get(name) is not None for name in _CREDENTIALS):
            replaced.update(_CREDENTIALS)
        names, raw = _without(self.names, replaced), _without(self.raw, replaced)
        return _Source(names, raw, _without(self.values, replaced))

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Errors of the dataclasses leave under the name that the user gave the value."""
        try:
            yield
        except ConfigError as error:
            path = error.field.partition("[")[0]
            value = error.value if error.value in (NOT_SHOWN, "set") else self.raw.get(path, error.value)
            allowed = re.sub(r"[a-z]+[._][a-z_]+", lambda match: self.names.get(match[0], match[0]), error.allowed)
            raise ConfigError(self.names.get(path, error.field), value, allowed) from None


_T = TypeVar("_T")


def _without(table: Mapping[str, _T], fields: Collection[str]) -> dict[str, _T]:
    return {path: item for path, item in table.items() if path.partition(".")[0] not in fields}


def config_from_env(environ: Mapping[str, str], overrides: Mapping[str, object]) -> ClientConfig:
    """A configuration from environment variables; those that are empty count as not set.

    Args:
        environ: the variables; ``docs/configuration.md`` lists all. ATHENA_HOST and ATHENA_PORT
            together are one endpoint, and exclude ATHENA_ENDPOINTS.
        overrides: fields of `ClientConfig` that win over the variables; a part is replaced whole.

    Raises:
        ConfigError: a wrong value, or a variable that looks like a misspelt one.
    """
    given = {name: text.strip() for name, text in environ.items() if text.strip()}
    _refuse_misspelt(given)
    source = _Source({part: _part_name(part) for part in parts()}, {}, {})
    for setting in settings().values():
        name, text = _given(setting, given)
        source.names[setting.path] = name
        if text is not None:
            source.raw[setting.path] = NOT_SHOWN if setting.secret else text
            source.values[setting.path] = _read(setting, name, setting.kind.from_text, text)
    _read_host(given, source)
    return _build(source, overrides)


def config_from_file(path: Path, overrides: Mapping[str, object]) -> ClientConfig:
    """A configuration from a TOML file: fields are keys, parts are tables.

    Args:
        path: the file. Relative paths in it are meant from its folder.
        overrides: fields of `ClientConfig` that win over the file; a part is replaced whole.

    Raises:
        ConfigError: the file cannot be read, a value is wrong, or a key is unknown.
    """
    source = _Source({}, {}, {})
    for key, value in _leaves(_load(path)):
        setting = settings().get(key)
        if setting is None:
            raise _unknown(key, list(settings()), "key")
        read = _read(setting, key, setting.kind.from_toml, value)
        source.values[key] = os.fspath(path.parent / str(read)) if setting.kind.is_path else read
    return _build(source, overrides)


def _given(setting: Setting, given: Mapping[str, str]) -> tuple[str, str | None]:
    """The variable that sets a field and its text; the preferred name and None where none does."""
    used = [name for name in setting.variables if name in given]
    if len(used) > 1:
        raise ConfigError(used[1], "set", f"absent, since {used[0]} is set too: they are the same setting")
    return (used[0], given[used[0]]) if used else (setting.variables[0], None)


def _read(setting: Setting, name: str, reader: Callable[..., object], value: object) -> object:
    try:
        return reader(value)
    except (ValueError, TypeError):
        raise setting.wrong(name, value) from None


def _read_host(given: Mapping[str, str], source: _Source) -> None:
    used = [name for name in (_HOST, _PORT) if name in given]
    if not used:
        return
    if "endpoints" in source.values:
        raise ConfigError(used[0], given[used[0]], "absent, since ATHENA_ENDPOINTS is set too: choose one")
    port = given.get(_PORT)
    if port is not None and not (port.isdecimal() and 1 <= int(port) <= 65535):
        raise ConfigError(_PORT, port, "a whole number from 1 to 65535")
    default_host, _, default_port = DEFAULT_ENDPOINT.rpartition(":")
    host = _bracketed(given.get(_HOST, default_host))
    if _has_port(host) and port is not None:
        raise ConfigError(_HOST, host, f"without a port, since {_PORT} is set too")
    source.values["endpoints"] = (host if _has_port(host) else f"{host}:{port or default_port}",)
    source.names["endpoints"] = _HOST


def _bracketed(host: str) -> str:
    try:
        return f"[{ipaddress.IPv6Address(host)}]"
    except ValueError:
        return host


def _has_port(host: str) -> bool:
    try:
        check.endpoint(_HOST, host)
    except ConfigError:
        return False
    return True


def _load(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError("configuration file", os.fspath(path), f"readable ({error.strerror})") from None
    except ValueError as error:  # TOML and UTF-8 errors; they tell the position, never the content
        position = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "it is not UTF-8"
        raise ConfigError("configuration file", os.fspath(path), f"valid TOML: {position}") from None


def _leaves(document: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for key, value in document.items():
        if key in parts() and isinstance(value, dict):
            yield from ((f"{key}.{name}", element) for name, element in value.items())
        elif key in parts() and key not in settings():
            raise ConfigError(key, f"a {type(value).__name__}", "a table")
        else:
            yield key, value


def _build(source: _Source, overrides: Mapping[str, object]) -> ClientConfig:
    fields = [field.name for field in dataclasses.fields(ClientConfig)]
    for name in overrides:
        if name not in fields:
            raise _unknown(name, fields, "field of ClientConfig")
    source = source.without(overrides)
    values: dict[str, Any] = {path: value for path, value in source.values.items() if "." not in path}
    with source.naming():
        for part, cls in parts().items():
            given = {path: value for path, value in source.values.items() if path.startswith(part + ".")}
            if given:
                values[part] = _build_part(part, cls, given, source, values.get("tls") if cls is TlsConfig else True)
        return ClientConfig(**(values | dict(overrides)))


def _build_part(part: str, cls: Any, given: Mapping[str, object], source: _Source, wanted: object) -> object:
    first = next(iter(given))
    if wanted is False:
        raise ConfigError(part, False, f"true, since {source.names.get(first, first)} is set too")
    for field in dataclasses.fields(cls):
        path = f"{part}.{field.name}"
        if field.default is MISSING and field.default_factory is MISSING and path not in given:
            raise ConfigError(path, None, f"given, since {source.names.get(first, first)} is set")
    return cls(**{path.partition(".")[2]: value for path, value in given.items()})


def _part_name(part: str) -> str:
    """What an error about a whole part is to name: its own variable, or that of its first field."""
    return next(s.variables[0] for path, s in settings().items() if path == part or path.startswith(part + "."))


def _refuse_misspelt(given: Mapping[str, str]) -> None:
    """Variables of other programs may start with ATHENA_ too: only what looks like ours is refused."""
    ours = {name: setting.variables[0] for setting in settings().values() for name in setting.variables}
    ours |= {_HOST: _HOST, _PORT: _PORT}
    bare = {name.removeprefix("ATHENA_"): preferred for name, preferred in ours.items()}
    fields = {setting.field.upper(): setting.variables[0] for setting in settings().values()}
    for name in sorted(given):
        if name.startswith("ATHENA_") and name not in ours:
            rest = name.removeprefix("ATHENA_")
            close = difflib.get_close_matches(rest, bare, n=1, cutoff=0.8)
            meant = bare[close[0]] if close else fields.get(rest)
            if meant is not None:
                raise ConfigError(name, "unknown", f"a known variable: did you mean {meant}?")


def _unknown(name: str, known: list[str], what: str) -> ConfigError:
    # The value is not told: it may be a secret under a misspelt name.
    close = difflib.get_close_matches(name, known, n=1)
    return ConfigError(name, "unknown", f"a known {what}" + (f": did you mean {close[0]}?" if close else ""))


def configuration_markdown() -> str:
    """The reference of all settings, ``docs/configuration.md``: ``python -m athena_async.settings``."""
    sections = [_INTRODUCTION]
    for part, cls in {"": ClientConfig, **parts()}.items():
        rows = [_row(s, _descriptions(cls)) for path, s in settings().items() if path.rpartition(".")[0] == part]
        sections.append(f"## {cls.__name__}" + (f": `{part}`" if part else ""))
        sections.append((cls.__doc__ or "").partition("Attributes:")[0].strip())
        sections.append("\n".join((_HEAD, *rows)))
    return "\n\n".join(sections) + "\n"


_HEAD = "| TOML key | variable | default | allowed | what it is |\n| --- | --- | --- | --- | --- |"

_INTRODUCTION = """# Configuration

Every setting is a field of `ClientConfig` or of one of its parts, an environment variable
(`ClientConfig.from_env()`) and a TOML key (`ClientConfig.from_file("athena.toml")`). This page is
generated from the code.

- An empty variable counts as not set. A wrong value is an error that names it and says what is allowed.
- `ATHENA_HOST` and `ATHENA_PORT` together are one endpoint; `ATHENA_ENDPOINTS` lists several. Choose one way.
- Lists are separated by commas (`none` is the empty list), pairs are written `name=value,name=value`.
- Variables without the prefix may also be written with it: `USE_TLS` or `ATHENA_TLS`, `OAUTH_AUDIENCE` or
  `ATHENA_OAUTH_AUDIENCE`.
- A variable that looks like a misspelt one is an error; other `ATHENA_*` variables are left alone.
- Relative paths in a TOML file are meant from the folder of that file."""


def _row(setting: Setting, descriptions: Mapping[str, str]) -> str:
    what = descriptions.get(setting.field, "")
    return (
        f"| `{setting.path}` | `{setting.variables[0]}` | {_shown(setting.default)} | {setting.kind.allowed} | {what} |"
    )


def _shown(default: object) -> str:
    if default is MISSING:
        return "required"
    return "not set" if default is None else f"`{json.dumps(default)}`"


def _descriptions(cls: type) -> dict[str, str]:
    """Field to its description, from the section "Attributes" of the docstring (where several share one)."""
    text = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")[2]
    found: dict[str, str] = {}
    for entry in re.split(r"\n    (?=\w)", "\n" + text):
        names, _, description = entry.partition(": ")
        found |= dict.fromkeys(names.split(", "), " ".join(description.replace("``", "`").split()))
    return found


if __name__ == "__main__":
    sys.stdout.write(configuration_markdown())
