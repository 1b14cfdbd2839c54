"""Keys, affiliates, tokens and the token endpoint, without a socket."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote_plus, urlencode

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet, OctKey, RSAKey

from athena_async.emulator import Faults, ManualClock
from athena_async.emulator.auth import Affiliates, Authenticator, Unauthenticated
from athena_async.emulator.http import Request, Response
from athena_async.emulator.oauth import OAuthEndpoint, TokenIssuer
from athena_async.errors import ConfigError

ORIGIN = "http://127.0.0.1:8081"
SECRET = "s3cret+with/odd:characters%"

pytestmark = pytest.mark.anyio


class TestKeys:
    def test_nobody_is_asked_where_there_are_no_keys(self) -> None:
        assert Authenticator((), None).client_of(None) == "anonymous"

    def test_keys_name_their_client(self) -> None:
        keys = Authenticator(("plain", "acme=old", "acme=new", "cGFkZGVk=="), None)
        assert keys.client_of("Bearer plain") == "api-key-1"
        assert keys.client_of("Bearer old") == keys.client_of("bearer new") == "acme"
        assert keys.client_of("Bearer cGFkZGVk==") == "api-key-4"

    @pytest.mark.parametrize("header", [None, "", "plain", "Basic plain", "Bearer", "Bearer ", "Bearer canary"])
    def test_anything_else_is_unauthenticated_and_not_repeated(self, header: str | None) -> None:
        with pytest.raises(Unauthenticated) as caught:
            Authenticator(("plain",), None).client_of(header)
        assert "canary" not in str(caught.value)

    def test_one_key_has_one_client(self) -> None:
        with pytest.raises(ConfigError):
            Authenticator(("a=same", "b=same"), None)


class TestAffiliates:
    def test_none_permits_every_name_that_is_not_empty(self) -> None:
        assert Affiliates.of(None).permits("client", "acme")
        assert not Affiliates.of(None).permits("client", "")

    def test_names_for_all(self) -> None:
        assert Affiliates.of(("acme",)).permits("client", "acme")
        assert not Affiliates.of(("acme",)).permits("client", "other")

    def test_names_by_client(self) -> None:
        affiliates = Affiliates.of({"a": ("acme",), "*": ("shared",)})
        assert affiliates.permits("a", "acme")
        assert affiliates.permits("b", "shared")
        assert not affiliates.permits("b", "acme")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(scope="module")
def key() -> TokenIssuer:
    """One key pair for all tests: it takes a moment to make."""
    return TokenIssuer("athena", 3600.0, ManualClock())


@pytest.fixture
def issuer(clock: ManualClock, key: TokenIssuer) -> TokenIssuer:
    issuer = TokenIssuer("athena", 3600.0, clock)
    issuer.__dict__["_key"] = key._key
    return issuer


class TestTokens:
    def test_a_token_counts_until_it_expires(self, issuer: TokenIssuer, clock: ManualClock) -> None:
        token = issuer.issue("client", ORIGIN)
        assert issuer.client_of(token) == "client"
        clock.advance(3599.0)
        assert issuer.client_of(token) == "client"
        clock.advance(1.0)
        with pytest.raises(Unauthenticated, match="expired"):
            issuer.client_of(token)

    def test_revoked_tokens_do_not_count_and_new_ones_do(self, issuer: TokenIssuer) -> None:
        token = issuer.issue("client", ORIGIN)
        issuer.revoke()
        with pytest.raises(Unauthenticated, match="expired"):
            issuer.client_of(token)
        assert issuer.client_of(issuer.issue("client", ORIGIN)) == "client"

    def test_another_audience_does_not_count(self, issuer: TokenIssuer) -> None:
        with pytest.raises(Unauthenticated, match="audience"):
            issuer.client_of(issuer.issue("client", ORIGIN, audience="other"))

    def test_foreign_malformed_and_unsigned_tokens_do_not_count(self, issuer: TokenIssuer) -> None:
        good = issuer.issue("client", ORIGIN)
        claims = jwt.decode(good, issuer._key).claims
        shared = OctKey.generate_key(256)
        header, payload, _ = good.split(".")
        unsigned = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
        forged = [
            jwt.encode({"alg": "RS256"}, claims, RSAKey.generate_key(2048)),
            jwt.encode({"alg": "HS256"}, claims, shared),
            f"{unsigned}.{payload}.",
            f"{header}.{payload}.",
            good[:-4],
            "nonsense",
            "a.b.c",
            "",
        ]
        for token in forged:
            with pytest.raises(Unauthenticated, match="malformed or was not issued here"):
                issuer.client_of(token)

    def test_the_published_key_verifies(self, issuer: TokenIssuer) -> None:
        published = KeySet.import_key_set(issuer.jwks())  # type: ignore[arg-type]
        claims = jwt.decode(issuer.issue("client", ORIGIN), published).claims
        assert claims["iss"] == ORIGIN
        assert claims["aud"] == "athena"
        assert claims["exp"] - claims["iat"] == 3600
        assert "d" not in issuer.jwks()["keys"][0]  # type: ignore[index]


class TestEndpoint:
    @pytest.fixture
    def endpoint(self, issuer: TokenIssuer) -> OAuthEndpoint:
        return OAuthEndpoint(issuer, {"id": SECRET}, Faults())

    async def post(
        self, endpoint: OAuthEndpoint, fields: Mapping[str, Any], *, form: bool = False, **headers: str
    ) -> Response:
        body = urlencode(fields).encode() if form else json.dumps(fields).encode()
        kind = "application/x-www-form-urlencoded; charset=utf-8" if form else "application/json"
        return await endpoint.handle(
            Request("POST", "/oauth/token", "", {"content-type": kind, **headers}, body, ORIGIN)
        )

    grant = {"client_id": "id", "client_secret": SECRET, "audience": "athena", "grant_type": "client_credentials"}

    @pytest.mark.parametrize("form", [False, True], ids=["json", "form"])
    async def test_a_token_for_a_client(self, endpoint: OAuthEndpoint, issuer: TokenIssuer, form: bool) -> None:
        response = await self.post(endpoint, self.grant, form=form)
        assert response.status == 200
        body: Any = response.body
        assert set(body) == {"access_token", "token_type", "expires_in", "scope"}
        assert (body["token_type"], body["expires_in"]) == ("Bearer", 3600)
        assert issuer.client_of(body["access_token"]) == "id"

    @pytest.mark.parametrize("form", [False, True], ids=["json", "form"])
    async def test_a_client_may_use_basic(self, endpoint: OAuthEndpoint, form: bool) -> None:
        basic = base64.b64encode(f"id:{quote_plus(SECRET)}".encode()).decode()
        fields = {"audience": "athena", "grant_type": "client_credentials"}
        assert (await self.post(endpoint, fields, form=form, authorization=f"Basic {basic}")).status == 200

    @pytest.mark.parametrize(
        ("changes", "status", "error"),
        [
            ({"client_id": "other"}, 401, "invalid_client"),
            ({"client_secret": "wrong"}, 401, "invalid_client"),
            ({"client_secret": ""}, 401, "invalid_client"),
            ({"audience": "other"}, 403, "access_denied"),
            ({"audience": ""}, 403, "access_denied"),
            ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ],
    )
    async def test_wrong_fields(
        self, endpoint: OAuthEndpoint, changes: dict[str, str], status: int, error: str
    ) -> None:
        for form in (False, True):
            response = await self.post(endpoint, {**self.grant, **changes}, form=form)
            assert response.status == status
            assert response.body["error"] == error  # type: ignore[index]
            assert SECRET not in str(response.body)

    async def test_wrong_basic_is_challenged(self, endpoint: OAuthEndpoint) -> None:
        for value in ("!!!", base64.b64encode(b"id:wrong").decode(), base64.b64encode(b"nocolon").decode()):
            response = await self.post(endpoint, self.grant, authorization=f"Basic {value}")
            assert response.status == 401
            assert response.headers[0][0] == "www-authenticate"

    @pytest.mark.parametrize(
        ("kind", "body"),
        [
            ("application/json", b"["),
            ("application/json", b"[]"),
            ("text/plain", b"x"),
            ("application/x-www-form-urlencoded", b"audience=a&audience=b"),
        ],
    )
    async def test_a_body_of_another_kind(self, endpoint: OAuthEndpoint, kind: str, body: bytes) -> None:
        request = Request("POST", "/oauth/token", "", {"content-type": kind}, body, ORIGIN)
        response = await endpoint.handle(request)
        assert response.status == 400
        assert response.body["error"] == "invalid_request"  # type: ignore[index]

    @pytest.mark.parametrize("prefix", ["", "/tenant"])
    async def test_discovery_names_the_address_asked(self, endpoint: OAuthEndpoint, prefix: str) -> None:
        path = prefix + "/.well-known/openid-configuration"
        response = await endpoint.handle(Request("GET", path, "", {}, b"", "https://localhost:9"))
        body: Any = response.body
        assert body["issuer"] == f"https://localhost:9{prefix}"
        assert body["token_endpoint"] == f"https://localhost:9{prefix}/oauth/token"
        keys = await endpoint.handle(Request("GET", prefix + "/.well-known/jwks.json", "", {}, b"", ORIGIN))
        assert body["jwks_uri"] == f"https://localhost:9{prefix}/.well-known/jwks.json"
        assert keys.body["keys"][0]["alg"] == "RS256"  # type: ignore[index]

    async def test_other_methods_and_paths(self, endpoint: OAuthEndpoint) -> None:
        for method, path, status in (
            ("GET", "/oauth/token", 405),
            ("POST", "/.well-known/jwks.json", 405),
            ("GET", "/elsewhere", 404),
        ):
            assert (await endpoint.handle(Request(method, path, "", {}, b"", ORIGIN))).status == status

    async def test_the_fault_plan_takes_it_down(self, issuer: TokenIssuer) -> None:
        faults = Faults()
        faults.inject("token_errors")
        endpoint = OAuthEndpoint(issuer, {"id": SECRET}, faults)
        assert [(await self.post(endpoint, self.grant)).status for _ in range(2)] == [503, 200]
