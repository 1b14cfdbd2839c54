"""Which Pillow this process runs on: Pillow or Pillow-SIMD, whole or half, with which codecs and known holes.

Both distributions install the same package `PIL`, and pip installs both without a word: the later one wins,
and removing either breaks the other.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import PIL
from PIL import features

from athena_async.images.resize import is_simd

_DISTRIBUTIONS = ("pillow", "pillow-simd")
_PROOF = "PIL/_version.py"
"""The file that cannot be the same in both."""

CODECS = ("jpg", "zlib", "webp", "libtiff", "jpg_2000", "avif")


@dataclass(frozen=True, slots=True)
class Hole:
    """A published vulnerability of this build."""

    name: str
    summary: str
    fixed_in: str


_HOLES: tuple[tuple[tuple[int, ...], Hole], ...] = (
    ((13, 0, 0), Hole("CVE-2026-112403", "heap overflow in the JPEG decoder (critical)", "Pillow 13.0.0")),
)


@dataclass(frozen=True, slots=True)
class PillowBuild:
    """The active build, for people and for decisions.

    Attributes:
        name: ``Pillow`` or ``Pillow-SIMD``, by what is imported and not by what is installed.
        version: of the code that is imported.
        installed: distributions that brought files for `PIL`, with their versions.
        owner: the distribution whose files are on disk; None where they are nobody's, as in a source tree.
        codecs: version of each codec that we use; None where this build lacks it.
        holes: published vulnerabilities that it has.
    """

    name: str
    version: str
    installed: tuple[tuple[str, str], ...]
    owner: str | None
    codecs: Mapping[str, str | None]
    holes: tuple[Hole, ...]

    @property
    def installed_twice(self) -> bool:
        """Whether both distributions brought their files: one of them is broken, and removing one breaks both."""
        return len(self.installed) > 1

    @property
    def missing_codecs(self) -> tuple[str, ...]:
        """Codecs that we use and this build lacks."""
        return tuple(name for name, version in self.codecs.items() if version is None)


def pillow_build() -> PillowBuild:
    """Looks at the Pillow of this process. Reads files: not for the event loop."""
    owners = {name: digest for name in _DISTRIBUTIONS if (digest := _recorded_digest(name)) is not None}
    return describe(
        PIL.__version__,
        {name: importlib.metadata.version(name) for name in owners},
        next((name for name, digest in owners.items() if digest == _actual_digest()), None),
        {name: _codec_version(name) for name in CODECS},
    )


def describe(
    version: str, installed: Mapping[str, str], owner: str | None, codecs: Mapping[str, str | None]
) -> PillowBuild:
    """Draws the conclusions from what was found; pure."""
    release = tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
    return PillowBuild(
        name="Pillow-SIMD" if is_simd(version) else "Pillow",
        version=version,
        installed=tuple(installed.items()),
        owner=owner,
        codecs=dict(codecs),
        holes=tuple(hole for fixed, hole in _HOLES if release < fixed),
    )


def _recorded_digest(distribution: str) -> str | None:
    """What a distribution says `PIL/_version.py` was when installed; None where it brought no such file."""
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    entry = next((file for file in files if file.as_posix() == _PROOF), None)
    return None if entry is None else entry.hash.value if entry.hash else ""


def _actual_digest() -> str:
    data = (Path(PIL.__file__).parent / "_version.py").read_bytes()
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _codec_version(name: str) -> str | None:
    if not features.check(name):
        return None
    return features.version(name) or "present"
