"""Who we are to the service: the metadata of each call, and when it changes.

NoCredentials            nothing is sent
StaticKey                ``api_key``: one bearer token for good
KeyFile                  ``api_key_file``: a token in a file, read again when the file changes
ClientCredentialsSource  ``oauth``: tokens of an OAuth2 endpoint (`athena_async.auth.oauth2`)
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from athena_async.auth._files import Signature, signature
from athena_async.config import ClientConfig
from athena_async.errors import CredentialsError
from athena_async.events import CredentialsRefreshed, Observer

Metadata = tuple[tuple[str, str], ...]

LONGEST_KEY_BYTES = 16 * 1024


class Credentials(Protocol):
    """Where the metadata of calls comes from. Made for one event loop; no method shows a secret.

    Cancelling any method affects only the call that is cancelled.
    """

    async def metadata(self) -> Metadata:
        """The ``authorization`` header of a call that begins now, or nothing.

        Raises:
            CredentialsError: there is none; ``retryable`` says whether there may be one later.
        """
        ...

    def refused(self, metadata: Metadata) -> None:
        """The service answered UNAUTHENTICATED to a call with ``metadata``.

        The next `metadata` gets new credentials once, unless that has happened since. Where there
        can be no new ones, or these are refused too, it raises.
        """
        ...

    async def wait_changed(self) -> None:
        """Returns when open streams should be renewed, as new calls get other credentials.

        Returns at once for a change since it last returned. Meant for one caller, who calls it
        again and again; it also is what keeps watch between calls.
        """
        ...

    async def aclose(self) -> None:
        """Ends what runs in the background. Nothing may be asked afterwards."""
        ...


def credentials_from_config(config: ClientConfig, emit: Observer | None = None) -> Credentials:
    """The credentials that ``config`` names; nothing is read or asked yet.

    Raises:
        MissingExtraError: ``oauth`` is configured and its extra is not installed.
    """
    if config.oauth is not None:
        from athena_async.auth.oauth2 import ClientCredentialsSource

        return ClientCredentialsSource(config.oauth, emit=emit)
    if config.api_key_file is not None:
        return KeyFile(config.api_key_file, emit=emit)
    if config.api_key is not None:
        return StaticKey(config.api_key)
    return NoCredentials()


def bearer(token: str) -> Metadata:
    """The metadata that carries ``token``."""
    return (("authorization", f"Bearer {token}"),)


class NoCredentials:
    """Nothing is sent. Once the service has asked for more, that is said clearly."""

    def __init__(self) -> None:
        self._refused = False

    async def metadata(self) -> Metadata:
        if self._refused:
            raise CredentialsError("the service asks for credentials: set api_key, api_key_file or oauth")
        return ()

    def refused(self, metadata: Metadata) -> None:
        self._refused = True

    async def wait_changed(self) -> None:
        await asyncio.Event().wait()

    async def aclose(self) -> None:
        """Nothing to end."""

    def __repr__(self) -> str:
        return f"NoCredentials(refused={self._refused})"


class StaticKey:
    """One bearer token for good: refused once, it stays refused."""

    def __init__(self, key: str) -> None:
        self._metadata = bearer(key)
        self._refused = False

    async def metadata(self) -> Metadata:
        if self._refused:
            raise CredentialsError("the service refuses the api_key: it is wrong, expired or was withdrawn")
        return self._metadata

    def refused(self, metadata: Metadata) -> None:
        self._refused = self._refused or metadata == self._metadata

    async def wait_changed(self) -> None:
        await asyncio.Event().wait()

    async def aclose(self) -> None:
        """Nothing to end."""

    def __repr__(self) -> str:
        return f"StaticKey(refused={self._refused})"


@dataclass(frozen=True, slots=True)
class _KeyRead:
    """One reading of a key file: a key, or why there is none."""

    signature: Signature | None
    key: str | None = field(default=None, repr=False)
    problem: str = ""


def _read_key(path: Path, known: Signature | None) -> _KeyRead | None:
    """None where the file is still as ``known``. Runs in a thread.

    The signature is taken before reading: what changes in between is seen the next time.
    """
    found = signature(path)
    if found is not None and found == known:
        return None
    try:
        with path.open("rb") as file:
            key = file.read(LONGEST_KEY_BYTES + 1).decode("latin-1").strip()
    except OSError as error:
        return _KeyRead(found, problem=f"api_key_file {path} cannot be read: {error.strerror}")
    if not (key and key.isascii() and key.isprintable() and len(key) <= LONGEST_KEY_BYTES):
        return _KeyRead(found, problem=f"api_key_file {path} must hold one key of printable ASCII, and nothing else")
    return _KeyRead(found, key)


class KeyFile:
    """A bearer token in a file that may be replaced at any time.

    - The file is looked at every ``poll_s`` at most, and read only when it changed; both in a thread.
    - A file that vanishes or is empty, as in the midst of a rotation, leaves the last key in use.
    - A key that the service refused is not used again; another one in the file is.

    Args:
        path: the file; blanks and line ends around the key are dropped.
        poll_s: seconds between two looks.
        clock: seconds, monotonic.
        emit: is told when the key has changed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        poll_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        emit: Observer | None = None,
    ) -> None:
        self._path = Path(path)
        self._poll_s = poll_s
        self._clock = clock
        self._emit = emit
        self._looking = asyncio.Lock()
        self._looked_s = float("-inf")
        self._signature: Signature | None = None
        self._key: str | None = None
        self._refused_key: str | None = None
        self._problem = f"api_key_file {self._path} has not been read yet"
        self._changes = 0
        self._changes_told = 0

    async def metadata(self) -> Metadata:
        await self._look(self._poll_s)
        if self._key is None:
            raise CredentialsError(self._problem, retryable=True)
        if self._key == self._refused_key:
            raise CredentialsError(f"the service refuses the key in {self._path}: put a valid one there")
        return bearer(self._key)

    def refused(self, metadata: Metadata) -> None:
        if self._key is not None and metadata == bearer(self._key):
            self._refused_key = self._key
            self._looked_s = float("-inf")

    async def wait_changed(self) -> None:
        while self._changes == self._changes_told:
            await asyncio.sleep(self._poll_s)
            await self._look(0.5 * self._poll_s)
        self._changes_told = self._changes

    async def aclose(self) -> None:
        """Nothing to end: the file is watched by `wait_changed` itself."""

    async def _look(self, every_s: float) -> None:
        async with self._looking:
            now = self._clock()
            if now - self._looked_s >= every_s:
                found = await asyncio.to_thread(_read_key, self._path, self._signature)
                self._looked_s = now
                self._take(found)

    def _take(self, found: _KeyRead | None) -> None:
        if found is None:
            return
        if found.key is None:
            self._problem = found.problem
            return
        changed = self._key is not None and found.key != self._key
        self._key, self._signature = found.key, found.signature
        if changed:
            self._changes += 1
            if self._emit is not None:
                self._emit(CredentialsRefreshed(asyncio.get_running_loop().time(), "key file changed"))

    def __repr__(self) -> str:
        state = "unread" if self._key is None else "refused" if self._key == self._refused_key else "read"
        return f"KeyFile({os.fspath(self._path)!r}, {state}, changes={self._changes})"
