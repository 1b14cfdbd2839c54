"""Who is calling: static keys and signed tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from athena_async.errors import ConfigError

ANONYMOUS = "anonymous"


class Unauthenticated(Exception):
    """A call without a token that counts. The message never holds the token."""


class TokenVerifier(Protocol):
    """What knows signed tokens."""

    def client_of(self, token: str) -> str:
        """The client that a token was issued to.

        Raises:
            Unauthenticated: malformed, expired, foreign or for another audience.
        """
        ...


@dataclass(frozen=True, slots=True)
class Affiliates:
    """Which affiliates each client may name; ``by_client`` is added to ``for_all``; None permits all.

    In a mapping the client ``*`` stands for every client.
    """

    for_all: frozenset[str] | None = None
    by_client: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, allowed: Iterable[str] | Mapping[str, Iterable[str]] | None) -> Affiliates:
        if allowed is None:
            return cls()
        if isinstance(allowed, Mapping):
            return cls(frozenset(allowed.get("*", ())), {client: frozenset(names) for client, names in allowed.items()})
        return cls(frozenset(allowed))

    def permits(self, client: str, affiliate: str) -> bool:
        """Whether the client may classify on behalf of the affiliate. An empty name never is one."""
        if not affiliate or self.for_all is None:
            return bool(affiliate)
        return affiliate in self.for_all or affiliate in self.by_client.get(client, ())


class Authenticator:
    """Tells the client of a call from its metadata. Keys are held as digests only."""

    def __init__(self, api_keys: Iterable[str], verifier: TokenVerifier | None) -> None:
        self._clients: dict[bytes, str] = {}
        self._verifier = verifier
        for number, text in enumerate(api_keys, 1):
            client, key = _split_key(text, f"api-key-{number}")
            digest = _digest(key)
            if digest in self._clients:
                raise ConfigError("api_keys", "(not shown)", "without duplicates")
            self._clients[digest] = client

    def client_of(self, authorization: str | None) -> str:
        """The client of a call.

        Args:
            authorization: value of the metadata of this name; None where there is none.

        Raises:
            Unauthenticated: no token, or none that counts.
        """
        if not self._clients and self._verifier is None:
            return ANONYMOUS
        if authorization is None:
            raise Unauthenticated("authorization metadata is missing")
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthenticated("authorization metadata is not of the form 'Bearer TOKEN'")
        client = self._clients.get(_digest(token.strip()))
        if client is not None:
            return client
        if self._verifier is None:
            raise Unauthenticated("the token is not known")
        return self._verifier.client_of(token.strip())

    def __repr__(self) -> str:
        return f"Authenticator({len(self._clients)} keys, verifier={self._verifier is not None})"


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _split_key(text: str, unnamed: str) -> tuple[str, str]:
    """``CLIENT=KEY`` or ``KEY``. Keys in Base64 may end in ``=``, which begins no key."""
    client, _, key = text.partition("=")
    return (client, key) if client and key.strip("=") else (unnamed, text)
