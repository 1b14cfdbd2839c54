"""The list of known hashes, made up for tests: which inputs match it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from athena_async.errors import ConfigError

HASH_LENGTHS = {"md5": 32, "sha1": 40}
_HEX = re.compile(r"[0-9a-fA-F]+")


class KnownHashes:
    """A set of MD5 and SHA1 digests. ``repr`` shows how many, never which."""

    def __init__(self, digests: Iterable[str] = ()) -> None:
        self._digests = frozenset(digest.lower() for digest in digests)

    @classmethod
    def read(cls, path: Path) -> KnownHashes:
        """Reads one digest a line, its kind told by its length; ``md5:`` or ``sha1:`` may stand before it.

        Blank lines and what follows a ``#`` are skipped.

        Raises:
            ConfigError: the file cannot be read, or a line holds no digest; names the line, not the digest.
        """
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise ConfigError("known_hashes", str(path), f"a readable file ({error.strerror})") from None
        return cls(filter(None, (_digest(line, f"{path}:{number}") for number, line in enumerate(lines, 1))))

    def __contains__(self, digest: str) -> bool:
        return digest.lower() in self._digests

    def __len__(self) -> int:
        return len(self._digests)

    def __repr__(self) -> str:
        return f"KnownHashes({len(self)} digests)"


def is_digest(kind: str, value: str) -> bool:
    """Whether ``value`` is hexadecimal and of the length of ``kind`` (md5 or sha1)."""
    return len(value) == HASH_LENGTHS[kind] and _HEX.fullmatch(value) is not None


def _digest(line: str, place: str) -> str | None:
    text = line.split("#", 1)[0].strip()
    if not text:
        return None
    kind, _, value = text.rpartition(":")
    kinds = (kind.lower(),) if kind else tuple(HASH_LENGTHS)
    value = value.strip()
    if not any(name in HASH_LENGTHS and is_digest(name, value) for name in kinds):
        raise ConfigError("known_hashes", place, "a line with one MD5 or SHA1 digest in hexadecimal")
    return value
