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
from athena_async.images.build import PillowBuild, pillow_build

_SECTION = "Installation"
_PACKAGES = ("grpcio", "protobuf", "anyio", "aiolimiter", "structlog", "uvloop", "typer", "rich")
_WITHDRAWN_GRPCIO = "1.78.1"


def installation_findings() -> list[Finding]:
    """Versions, extras and images. Imports Pillow, so takes a moment."""
    return [*_versions(), *_extras(), *pillow_findings(pillow_build()), _resizer()]


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


def pillow_findings(build: PillowBuild) -> Iterator[Finding]:
    """Which build of Pillow is at work, what it reads, and what is wrong with it."""
    name = build.name
    yield Finding(_SECTION, "pillow", State.OK, f"{name} {build.version}")
    codecs = ", ".join(f"{codec} {version}" for codec, version in build.codecs.items() if version is not None)
    yield Finding(_SECTION, "pillow codecs", State.OK, codecs or "none")
    if build.missing_codecs:
        remedy = f"Where such images come: build {name} with them, or install the wheel of pillow."
        yield Finding(_SECTION, "pillow codecs missing", State.NOTE, ", ".join(build.missing_codecs), remedy)
    if build.installed_twice:
        both = " and ".join(f"{distribution} {version}" for distribution, version in build.installed)
        remedy = "pip uninstall both, then install the one that is wanted: removing one alone breaks the other."
        yield Finding(_SECTION, "pillow twice", State.BROKEN, f"{both} share the folder PIL", remedy)
    for hole in build.holes:
        detail = f"{hole.summary}; open in {name} {build.version}"
        remedy = f"{hole.fixed_in} has the fix; preprocess.isolation = 'process' confines it."
        yield Finding(_SECTION, hole.name, State.NOTE, detail, remedy)


def _resizer() -> Finding:
    if find_spec("cv2") is None:
        return Finding(_SECTION, "resizer", State.OK, "Pillow: at most 1 level from the official client's pixels")
    return Finding(_SECTION, "resizer", State.OK, "OpenCV: the official client's pixels")
