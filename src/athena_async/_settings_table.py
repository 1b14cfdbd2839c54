"""The table of all settings: derived from the fields of `ClientConfig` and of its parts, by their types."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

from athena_async.config import ClientConfig
from athena_async.errors import ConfigError

_VARIABLES = {
    "tls": "USE_TLS",
    "oauth.client_id": "OAUTH_CLIENT_ID",
    "oauth.client_secret": "OAUTH_CLIENT_SECRET",
    "oauth.auth_url": "OAUTH_AUTH_URL",
    "oauth.audience": "OAUTH_AUDIENCE",
}
"""Variables with a name of their own, which Athena users have already; all others are ATHENA_PART_FIELD."""

NOT_SHOWN = "(not shown)"


@dataclass(frozen=True, slots=True)
class Kind:
    """How values of one type are read. Both readers raise ValueError or TypeError for a wrong value.

    Attributes:
        allowed: what is accepted, in words.
        from_text: reads a variable's text, which is not empty.
        from_toml: reads a value that the TOML parser gave.
        is_path: whether a relative value in a file is meant from that file's folder.
    """

    allowed: str
    from_text: Callable[[str], object]
    from_toml: Callable[[object], object]
    is_path: bool = False


@dataclass(frozen=True, slots=True)
class Setting:
    """One field: ``path`` is its TOML key, ``variables`` its names in the environment, preferred first."""

    path: str
    kind: Kind
    default: object
    secret: bool

    @property
    def variables(self) -> tuple[str, ...]:
        general = "ATHENA_" + self.path.upper().replace(".", "_")
        return (_VARIABLES[self.path], general) if self.path in _VARIABLES else (general,)

    @property
    def field(self) -> str:
        return self.path.rpartition(".")[2]

    def wrong(self, name: str, value: object) -> ConfigError:
        return ConfigError(name, NOT_SHOWN if self.secret else value, self.kind.allowed)


def _one_of(table: Mapping[str, object]) -> Callable[[str], object]:
    def read(text: str) -> object:
        if text.lower() not in table:
            raise ValueError
        return table[text.lower()]

    return read


def _instance(*types: type) -> Callable[[object], object]:
    def read(value: object) -> object:
        if isinstance(value, bool) != (bool in types) or not isinstance(value, types):
            raise TypeError
        return types[0](value)

    return read


_TRUTH = dict.fromkeys(("true", "1", "yes", "on"), True) | dict.fromkeys(("false", "0", "no", "off"), False)

_KINDS: dict[object, Kind] = {
    bool: Kind("true or false", _one_of(_TRUTH), _instance(bool)),
    int: Kind("a whole number", int, _instance(int)),
    float: Kind("a number", float, _instance(float, int)),
    str: Kind("a text", str, _instance(str)),
    os.PathLike: Kind("a path", str, _instance(str), is_path=True),
}


def _choice(names: tuple[str, ...]) -> Kind:
    def read(value: object) -> object:
        if value not in names:
            raise ValueError
        return value

    return Kind("one of " + ", ".join(names), lambda text: read(text.lower()), read)


def _sequence(item: Kind) -> Kind:
    def from_toml(value: object) -> object:
        if not isinstance(value, list):
            raise TypeError
        return tuple(item.from_toml(element) for element in value)

    def from_text(text: str) -> object:
        return () if text.lower() == "none" else tuple(item.from_text(part.strip()) for part in text.split(","))

    return Kind(f"a list, each item {item.allowed}", from_text, from_toml)


def _mapping(item: Kind) -> Kind:
    def from_toml(value: object) -> object:
        if not isinstance(value, dict):
            raise TypeError
        return {name: item.from_toml(element) for name, element in value.items()}

    def from_text(text: str) -> object:
        pairs = (part.rpartition("=") for part in text.split(","))
        return {name.strip(): item.from_text(number.strip()) for name, _, number in pairs}

    return Kind(f"name=value pairs, each value {item.allowed}", from_text, from_toml)


def _kind(annotation: object) -> Kind:
    """The kind of a field's type; of a union the member that a text can give (None is "not set")."""
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation in _KINDS:
        return _KINDS[annotation]
    if origin in _KINDS:
        return _KINDS[origin]
    if origin is Literal:
        return _choice(args)
    if origin is tuple:
        return _sequence(_kind(args[0]))
    if origin is Mapping:
        return _mapping(_kind(args[1]))
    members = [member for member in args if member is not type(None) and not dataclasses.is_dataclass(member)]
    if not members:
        raise TypeError(f"no setting can be made of {annotation}")
    return _kind(members[-1])


@functools.cache
def parts() -> Mapping[str, type]:
    """Name to class of the parts of `ClientConfig`, in the order of its fields."""
    found: dict[str, type] = {}
    for name, annotation in get_type_hints(ClientConfig).items():
        candidates = [t for t in (annotation, *get_args(annotation)) if dataclasses.is_dataclass(t)]
        if candidates:
            found[name] = cast(type, candidates[0])
    return found


@functools.cache
def settings() -> Mapping[str, Setting]:
    """Every setting by its path, in the order of the fields, those of the parts last."""
    found = list(_settings_of(ClientConfig, ""))
    for part, cls in parts().items():
        found += _settings_of(cls, part + ".")
    return {setting.path: setting for setting in found}


def _settings_of(cls: Any, prefix: str) -> Iterator[Setting]:
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if not prefix and field.name in parts() and field.name != "tls":
            continue  # has no value of its own, only fields; tls has both
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        yield Setting(prefix + field.name, _kind(hints[field.name]), default, secret=not field.repr)
