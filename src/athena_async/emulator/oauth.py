"""The token endpoint: OAuth2 client credentials, OpenID discovery, JWKS; and the tokens' verification.

Sources: RFC 6749 sections 2.3.1, 4.4 and 5.2 (client authentication, the grant, errors); RFC 7519
(JWT); OpenID Connect Discovery 1.0 section 4 (the document and its issuer); the request and answer
of the service's own endpoint in the API guide.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import math
import uuid
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote_plus

from athena_async.emulator.auth import Unauthenticated
from athena_async.emulator.clock import Clock
from athena_async.emulator.faults import Faults
from athena_async.emulator.http import Request, Response
from athena_async.errors import MissingExtraError

if TYPE_CHECKING:
    from joserfc.jwk import RSAKey

TOKEN_PATH = "/oauth/token"  # noqa: S105 - a path
JWKS_PATH = "/.well-known/jwks.json"
SCOPE = "classify:images"
_DISCOVERY_PATHS = ("/.well-known/openid-configuration", "/.well-known/oauth-authorization-server")
_ALGORITHM = "RS256"
_GRANT = "client_credentials"


class TokenIssuer:
    """Signs tokens and knows its own again. Invariant: a token counts while it is not expired on the
    emulator's clock, of the present series, signed by this issuer's key and for its audience.
    """

    def __init__(self, audience: str, lifetime_s: float, clock: Clock) -> None:
        self.audience = audience
        self.lifetime_s = lifetime_s
        self._clock = clock
        self._series = 0

    def prepare(self) -> None:
        """Makes the key, which takes a tenth of a second: call it off the event loop, before the first token."""
        _ = self._key

    def issue(
        self, client_id: str, issuer: str, *, lifetime_s: float | None = None, audience: str | None = None
    ) -> str:
        """A signed token; ``lifetime_s`` and ``audience`` other than the issuer's make one for tests."""
        from joserfc import jwt

        now = self._clock.now()
        claims = {
            "iss": issuer,
            "sub": f"{client_id}@clients",
            "azp": client_id,
            "aud": self.audience if audience is None else audience,
            "iat": math.floor(now),
            "exp": math.ceil(now + (self.lifetime_s if lifetime_s is None else lifetime_s)),
            "jti": uuid.uuid4().hex,
            "gty": "client-credentials",
            "series": self._series,
            "scope": SCOPE,
        }
        return jwt.encode({"alg": _ALGORITHM, "kid": self._key.kid, "typ": "JWT"}, claims, self._key)

    def client_of(self, token: str) -> str:
        """The client that a token was issued to.

        Raises:
            Unauthenticated: malformed, foreign, expired, revoked or for another audience.
        """
        from joserfc import jwt
        from joserfc.errors import JoseError

        try:
            claims = jwt.decode(token, self._key, algorithms=[_ALGORITHM]).claims
        except (JoseError, ValueError):
            raise Unauthenticated("the token is malformed or was not issued here") from None
        if claims["series"] != self._series or self._clock.now() >= claims["exp"]:
            raise Unauthenticated("the token has expired")
        if claims["aud"] != self.audience:
            raise Unauthenticated("the token is for another audience")
        return str(claims["azp"])

    def revoke(self) -> None:
        """Lets no token issued so far count any more."""
        self._series += 1

    def jwks(self) -> dict[str, object]:
        """The public key, as the JWKS document has it."""
        return {"keys": [{**self._key.as_dict(private=False), "use": "sig", "alg": _ALGORITHM}]}

    @cached_property
    def _key(self) -> RSAKey:
        """For RS256, what every OpenID library expects."""
        try:
            from joserfc.jwk import RSAKey
        except ImportError:
            raise MissingExtraError("oauth_clients", "emulator") from None
        return RSAKey.generate_key(2048, {"kid": uuid.uuid4().hex[:16]}, private=True)


class OAuthEndpoint:
    """Answers the requests of the token server."""

    def __init__(self, issuer: TokenIssuer, clients: Mapping[str, str], faults: Faults) -> None:
        self._issuer = issuer
        self._secrets = {client_id: _digest(secret) for client_id, secret in clients.items()}
        self._faults = faults

    async def handle(self, request: Request) -> Response:
        """Routes a request."""
        for suffix in _DISCOVERY_PATHS:
            if request.path.endswith(suffix):
                return _only(request, "GET", _discovery(request.origin + request.path.removesuffix(suffix)))
        if request.path.endswith(JWKS_PATH):
            return _only(request, "GET", self._issuer.jwks())
        if not request.path.endswith(TOKEN_PATH):
            return Response(404, {"error": "not_found"})
        if request.method != "POST":
            return Response(405, {"error": "method_not_allowed"}, (("allow", "POST"),))
        if self._faults.strikes("token_errors"):
            return Response(503, {"error": "temporarily_unavailable"})
        return self._token(request)

    def _token(self, request: Request) -> Response:
        fields = _fields(request)
        if fields is None:
            return _error(400, "invalid_request", "The body must be a JSON object or a form, with each field once.")
        basic = _basic_credentials(request.headers.get("authorization"))
        client_id, secret = basic or (fields.get("client_id", ""), fields.get("client_secret", ""))
        if not self._is_client(client_id, secret):
            challenge = (("www-authenticate", 'Basic realm="athena"'),) if basic else ()
            return _error(401, "invalid_client", "The client id or its secret is wrong.", challenge)
        if fields.get("grant_type") != _GRANT:
            return _error(400, "unsupported_grant_type", f"The grant type must be {_GRANT}.")
        if fields.get("audience") != self._issuer.audience:
            return _error(403, "access_denied", "There is no such audience, or none was named.")
        issuer = request.origin + request.path.removesuffix(TOKEN_PATH)
        body = {
            "access_token": self._issuer.issue(client_id, issuer),
            "token_type": "Bearer",
            "expires_in": int(self._issuer.lifetime_s),
            "scope": SCOPE,
        }
        return Response(200, body, (("pragma", "no-cache"),))

    def _is_client(self, client_id: str, secret: str) -> bool:
        expected = self._secrets.get(client_id, b"")
        return hmac.compare_digest(_digest(secret), expected)


def _discovery(issuer: str) -> dict[str, object]:
    return {
        "issuer": issuer,
        "authorization_endpoint": issuer + "/authorize",
        "token_endpoint": issuer + TOKEN_PATH,
        "jwks_uri": issuer + JWKS_PATH,
        "grant_types_supported": [_GRANT],
        "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [_ALGORITHM],
        "scopes_supported": [SCOPE],
    }


def _fields(request: Request) -> dict[str, str] | None:
    """The fields of a JSON or form body; None for anything else."""
    try:
        if request.content_type == "application/json":
            values = json.loads(request.body)
            return {str(key): str(value) for key, value in values.items()} if isinstance(values, dict) else None
        if request.content_type == "application/x-www-form-urlencoded":
            pairs = parse_qsl(request.body.decode(), keep_blank_values=True, max_num_fields=100)
            return dict(pairs) if len({key for key, _ in pairs}) == len(pairs) else None
    except ValueError:
        return None
    return None


def _basic_credentials(header: str | None) -> tuple[str, str] | None:
    """Client id and secret of HTTP Basic, each form-encoded as RFC 6749 section 2.3.1 has it."""
    scheme, _, value = (header or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        client_id, found, secret = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return (unquote_plus(client_id), unquote_plus(secret)) if found else ("", "")


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _only(request: Request, method: str, body: object) -> Response:
    if request.method not in (method, "HEAD"):
        return Response(405, {"error": "method_not_allowed"}, (("allow", method),))
    return Response(200, body)


def _error(status: int, error: str, description: str, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    return Response(status, {"error": error, "error_description": description}, headers)
