"""Configured by the environment or a file, over TLS, mTLS and with tokens of the emulator's own endpoint."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("joserfc")

from athena_async import AthenaClient, ClientConfig, ErrorCode, OAuthConfig, Outcome, TlsConfig
from athena_async.emulator import Emulator
from tests.integration.client.world import assert_classified, codes, config, hashes, photograph

pytestmark = pytest.mark.anyio

SECRET = "secret-of-the-team"
PHOTO = photograph("astronaut.png")


def clear(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    """An environment that says this and nothing else of us."""
    for name in [name for name in os.environ if name.startswith(("ATHENA_", "OAUTH_")) or name == "USE_TLS"]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


async def test_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Emulator() as emulator:
        host, _, port = emulator.address.rpartition(":")
        clear(
            monkeypatch,
            ATHENA_HOST=host,
            ATHENA_PORT=port,
            USE_TLS="false",
            ATHENA_AFFILIATE="from-env",
            ATHENA_DEPLOYMENT_ID="env-deployment",
            ATHENA_LIMITS_MAX_IN_FLIGHT="7",
        )
        async with AthenaClient.from_env(timeout_s=5.0) as client:
            assert_classified(await client.classify_many([PHOTO, *hashes(20)]), 21)
            assert (client.config.timeout_s, client.config.limits.max_in_flight) == (5.0, 7)
        assert {(r.affiliate, r.deployment) for r in emulator.audit.records} == {("from-env", "env-deployment")}


async def test_from_a_file(tmp_path: Path) -> None:
    async with Emulator(api_keys=("team=the-key",)) as emulator:
        (tmp_path / "key").write_text("the-key\n")
        (tmp_path / "athena.toml").write_text(
            f'endpoints = ["{emulator.address}"]\n'
            'affiliate = "from-file"\n'
            'api_key_file = "key"\n'
            "tls = false\n"
            "[preprocess]\n"
            'encoding = "png"\n'
        )
        async with AthenaClient.from_file(tmp_path / "athena.toml", deployment_id="mine") as client:
            assert (await client.classify(PHOTO)).ok
        (record,) = emulator.audit.records
    assert (record.client, record.affiliate, record.deployment) == ("team", "from-file", "mine")
    assert record.size_bytes < 448 * 448 * 3


async def test_tls_with_the_right_authority_and_without(tmp_path: Path) -> None:
    async with Emulator(tls_dir=tmp_path) as emulator:
        async with AthenaClient(config(emulator, tls=TlsConfig(ca=emulator.ca))) as client:
            assert_classified(await client.classify_many([PHOTO, *hashes(5)]), 6)
            assert (await client.classify_single(PHOTO)).ok
            assert await client.list_deployments()
        async with AthenaClient(config(emulator, tls=True, timeout_s=0.7)) as client:
            results = await client.classify_many(hashes(2))
        assert codes(results) == [ErrorCode.UNAVAILABLE] * 2
        assert {result.outcome for result in results} == {Outcome.FAILED}


async def test_mutual_tls_and_a_client_without_certificate(tmp_path: Path) -> None:
    async with Emulator(tls_dir=tmp_path, mtls=True) as emulator:
        shown = TlsConfig(ca=emulator.ca, cert=tmp_path / "client.pem", key=tmp_path / "client.key")
        async with AthenaClient(config(emulator, tls=shown)) as client:
            assert_classified(await client.classify_many([PHOTO, *hashes(5)]), 6)
        async with AthenaClient(config(emulator, tls=TlsConfig(ca=emulator.ca), timeout_s=0.7)) as client:
            (result,) = await client.classify_many(hashes(1))
        assert result.outcome is Outcome.FAILED
        assert result.attempts == 0


async def test_a_certificate_for_another_name_than_the_address(tmp_path: Path) -> None:
    async with Emulator(tls_dir=tmp_path) as emulator:
        tls = TlsConfig(ca=emulator.ca, server_name="localhost")
        async with AthenaClient(config(emulator, tls=tls)) as client:
            assert (await client.classify(PHOTO)).ok


async def test_a_token_of_the_emulators_endpoint(tmp_path: Path) -> None:
    async with Emulator(tls_dir=tmp_path, oauth_port=0, oauth_tls=True, oauth_clients={"team": SECRET}) as emulator:
        given = ClientConfig(
            endpoints=(emulator.address,),
            oauth=OAuthConfig(
                client_id="team", client_secret=SECRET, auth_url=f"{emulator.oauth_url}/oauth/token", ca=emulator.ca
            ),
            tls=TlsConfig(ca=emulator.ca),
            timeout_s=10.0,
        )
        async with AthenaClient(given) as client:
            assert_classified(await client.classify_many([PHOTO, *hashes(5)]), 6)
            emulator.revoke_tokens()
            assert (await client.classify_single(PHOTO)).ok, "a token that is refused is renewed"
            assert_classified(await client.classify_many(hashes(5)), 5)
        assert {record.client for record in emulator.audit.records} == {"team"}


async def test_a_wrong_key_fails_clearly_and_sends_nothing() -> None:
    async with Emulator(api_keys=("team=right",)) as emulator:
        async with AthenaClient(config(emulator, api_key="canary-key-77")) as client:
            results = await client.classify_many(hashes(3))
        assert codes(results) == [ErrorCode.UNAUTHENTICATED] * 3
        assert {(result.outcome, result.attempts) for result in results} == {(Outcome.FAILED, 0)}
        assert emulator.audit.total == 0
        assert not any("canary" in str(result.error) for result in results)
