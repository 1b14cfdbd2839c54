"""Emulator configuration from JSON and TOML."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from athena_async.emulator.config import Behaviour, EmulatorConfig
from athena_async.emulator.faults import FaultPlan
from athena_async.emulator.model import ServiceModel
from athena_async.errors import ConfigError

_PARTS: dict[str, type[Any]] = {"faults": FaultPlan, "model": ServiceModel, "behaviour": Behaviour}


def config_from_json(text: str) -> EmulatorConfig:
    """Reads an object whose keys are the fields of `EmulatorConfig`, with objects for its parts.

    Raises:
        ConfigError: it is no object, or names a field that does not exist, or a value is wrong.
    """
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise ConfigError("configuration", "(not shown)", "a JSON object")
    return EmulatorConfig(**_checked("configuration", EmulatorConfig, _with_parts(values)))


def read_faults(path: Path) -> dict[str, Any]:
    """Reads a TOML file with the tables ``faults``, ``model`` and ``behaviour``; keys outside are faults.

    Returns:
        Fields of `EmulatorConfig`.

    Raises:
        ConfigError: it cannot be read, or names a field that does not exist, or a value is wrong.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError("faults", str(path), f"a readable TOML file ({error})") from None
    loose = {key: value for key, value in values.items() if key not in _PARTS}
    tables = {key: value for key, value in values.items() if key in _PARTS}
    if loose:
        tables["faults"] = {**loose, **tables.get("faults", {})}
    return _with_parts(tables)


def fields_from_flags(file: Path | None, faults: Iterable[str], model: Iterable[str]) -> dict[str, Any]:
    """A file as for `read_faults`, and ``NAME=VALUE`` flags that win over it.

    Raises:
        ConfigError: as `read_faults`; a flag is of another form.
    """
    found = read_faults(file) if file is not None else {}
    for name, flags in (("faults", list(faults)), ("model", list(model))):
        if flags:
            part = found.get(name) or _PARTS[name]()
            found[name] = replace(part, **_checked(name, type(part), dict(_flag(name, flag) for flag in flags)))
    return found


def _flag(name: str, text: str) -> tuple[str, Any]:
    """``NAME=VALUE``, the value as in TOML; a bare word is a text."""
    key, found, value = text.partition("=")
    if not found:
        raise ConfigError(name, text, "of the form NAME=VALUE")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()


def part_from(name: str, values: Mapping[str, Any]) -> Any:
    """A part of the configuration (``faults``, ``model``, ``behaviour``) from its fields.

    Raises:
        ConfigError: no such field, or a wrong value.
    """
    kind = _PARTS[name]
    if not isinstance(values, Mapping):
        raise ConfigError(name, values, "a table of fields")
    return kind(**_checked(name, kind, values))


def _with_parts(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: part_from(key, value) if key in _PARTS else _tupled(value) for key, value in values.items()}


def _tupled(value: Any) -> Any:
    return tuple(_tupled(item) for item in value) if isinstance(value, list) else value


def _checked(name: str, kind: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    allowed = [field.name for field in fields(kind)]
    for key in values:
        if key not in allowed:
            raise ConfigError(f"{name}: field", key, "one of " + ", ".join(allowed))
    return dict(values)
