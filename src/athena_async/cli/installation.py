"""What is installed here, and what is wrong with it."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec

from athena_async._version import __version__
from athena_async.cli.exits import EXTRAS
from athena_async.cli.findings import Finding, State

_SECTION = "Installation"
_PACKAGES = ("grpcio", "protobuf", "anyio", "aiolimiter", "structlog", "uvloop", "typer", "rich")
_WITHDRAWN_GRPCIO = "1.78.1"


def installation_findings() -> list[Finding]:
    """Versions, extras and images. Imports Pillow, so takes a moment."""
    return [*_versions(), *_extras(), *_images()]


def _versions() -> Iterator[Finding]:
    where = f"{platform.python_implementation()} {platform.python_version()} on {platform.platform(terse=True)}"
    yield Finding(_SECTION, "athena-async", State.OK, __version__)
    yield Finding(_SECTION, "python", State.OK, f"{where}, {sys.executable}")
    for package in _PACKAGES:
        yield _version(package)


def _version(package: str) -> Finding:
    try:
        version = metadata.version(package)
    except metadata.PackageNotFoundError:
        if package == "uvloop":
            return Finding(_SECTION, package, State.NOTE, "not installed: the loop of asyncio is used")
        return Finding(_SECTION, package, State.BROKEN, "not installed", f"pip install {package}")
    if (package, version) == ("grpcio", _WITHDRAWN_GRPCIO):
        return Finding(_SECTION, package, State.BROKEN, f"{version} was withdrawn: it hangs under fork", "Upgrade it.")
    return Finding(_SECTION, package, State.OK, version)


def _extras() -> Iterator[Finding]:
    for extra, modules in EXTRAS.items():
        missing = [module for module in modules if find_spec(module) is None]
        if missing:
            remedy = f"Where it is wanted: pip install 'athena-async[{extra}]'"
            yield Finding(_SECTION, f"extra {extra}", State.OK, "not installed", remedy)
        else:
            yield Finding(_SECTION, f"extra {extra}", State.OK, "installed")


def _images() -> Iterator[Finding]:
    """Which build of Pillow is at work, and what it can read."""
    yield from ()
