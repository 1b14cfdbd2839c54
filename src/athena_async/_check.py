"""Checks of configuration values: each returns nothing or raises `ConfigError`."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Collection
from urllib.parse import urlsplit

from athena_async.errors import ConfigError


def _number(field: str, value: object, allowed: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(field, value, allowed)
    return value


def positive(field: str, value: object) -> None:
    if _number(field, value, "a number above 0") <= 0:
        raise ConfigError(field, value, "a number above 0")


def not_negative(field: str, value: object) -> None:
    if _number(field, value, "a number of at least 0") < 0:
        raise ConfigError(field, value, "a number of at least 0")


def between(field: str, value: object, low: float, high: float, *, open_ends: bool = False) -> None:
    allowed = f"a number {'strictly ' if open_ends else ''}between {low:g} and {high:g}"
    number = _number(field, value, allowed)
    if not low <= number <= high or (open_ends and number in (low, high)):
        raise ConfigError(field, value, allowed)


def count(field: str, value: object, low: int, high: int | None = None) -> None:
    allowed = f"a whole number of at least {low}" if high is None else f"a whole number from {low} to {high}"
    if isinstance(value, bool) or not isinstance(value, int) or value < low or (high is not None and value > high):
        raise ConfigError(field, value, allowed)


def optional(checker: Callable[..., None], field: str, value: object, *bounds: float) -> None:
    """None, or what ``checker`` takes."""
    if value is not None:
        checker(field, value, *bounds)


def choice(field: str, value: object, allowed: Collection[str]) -> None:
    if value not in allowed:
        raise ConfigError(field, value, "one of " + ", ".join(allowed))


def text(field: str, value: object, longest: int | None = None) -> None:
    allowed = "a text that is not empty" if longest is None else f"a text of 1 to {longest} characters"
    if not isinstance(value, str) or not value or (longest is not None and len(value) > longest):
        raise ConfigError(field, value, allowed)


def secret(field: str, value: object) -> None:
    """A token or password: printable ASCII without spaces at its ends, and never shown."""
    if (
        not isinstance(value, str)
        or not value
        or value != value.strip()
        or not (value.isascii() and value.isprintable())
    ):
        raise ConfigError(field, "(not shown)", "printable ASCII without spaces around it, and not empty")


def address(field: str, value: str) -> None:
    """An http(s) URL; one with a password in it is neither taken nor shown."""
    url = urlsplit(value)
    if url.scheme not in ("http", "https") or not url.hostname or "@" in url.netloc:
        shown = "(not shown)" if "@" in value else value
        raise ConfigError(field, shown, "an http:// or https:// address without user name and password")


_ENDPOINT = re.compile(r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<host>[^\s:/\[\]]+)):(?P<port>\d{1,5})")


def endpoint(field: str, value: object) -> None:
    match = _ENDPOINT.fullmatch(value) if isinstance(value, str) else None
    if match is None or not 1 <= int(match["port"]) <= 65535:
        raise ConfigError(field, value, "'host:port' or '[ipv6]:port', without a scheme")


def is_loopback(value: str) -> bool:
    """Whether ``host:port`` names this machine: localhost, 127.0.0.0/8 or ::1."""
    match = _ENDPOINT.fullmatch(value)
    host = (match["v6"] or match["host"]) if match else value
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def protected(credentials: str, tls: bool, endpoints: Collection[str], auth_url: str | None) -> None:
    """Neither a token nor a client secret travels in plaintext, but to this machine itself."""
    remedy = "(or set allow_plaintext_credentials)"
    remote = [name for name in endpoints if not is_loopback(name)]
    if remote and not tls:
        allowed = f"True, since {credentials} would be sent unprotected to {remote[0]} {remedy}"
        raise ConfigError("tls", False, allowed)
    url = urlsplit(auth_url or "")
    if url.scheme == "http" and not is_loopback(url.hostname or ""):
        allowed = f"an https:// address, since the client secret would be sent unprotected {remedy}"
        raise ConfigError("oauth.auth_url", f"http://{url.hostname}", allowed)
