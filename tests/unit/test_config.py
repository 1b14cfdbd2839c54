"""Configuration values: checked when made, frozen, and silent about secrets."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from athena_async.config import (
    BatchingConfig,
    BreakerConfig,
    ClientConfig,
    LimitsConfig,
    OAuthConfig,
    PoolConfig,
    PreprocessConfig,
    RetryConfig,
    TlsConfig,
)
from athena_async.errors import ConfigError

CANARY = "canary-81b0-secret"

WRONG: list[tuple[Callable[[], object], str]] = [
    (lambda: ClientConfig(endpoints=()), "endpoints"),
    (lambda: ClientConfig(endpoints=("h",)), "endpoints"),
    (lambda: ClientConfig(endpoints=("h:0",)), "endpoints"),
    (lambda: ClientConfig(endpoints=("http://h:1",)), "endpoints"),
    (lambda: ClientConfig(endpoints=("h:1", "h:1")), "endpoints"),
    (lambda: ClientConfig(affiliate=""), "affiliate"),
    (lambda: ClientConfig(deployment_id=""), "deployment_id"),
    (lambda: ClientConfig(deployment_id="d" * 64), "deployment_id"),
    (lambda: ClientConfig(timeout_s=0), "timeout_s"),
    (lambda: ClientConfig(timeout_s=float("inf")), "timeout_s"),
    (lambda: ClientConfig(timeout_s=True), "timeout_s"),
    (lambda: ClientConfig(keepalive_interval_s=-1), "keepalive_interval_s"),
    (lambda: ClientConfig(tls="yes"), "tls"),  # type: ignore[arg-type]
    (lambda: ClientConfig(api_key=CANARY + "\n"), "api_key"),
    (lambda: ClientConfig(api_key=""), "api_key"),
    (lambda: ClientConfig(api_key=CANARY, api_key_file="f"), "api_key_file"),
    (lambda: ClientConfig(api_key=CANARY, tls=False), "tls"),
    (lambda: OAuthConfig(client_id="", client_secret=CANARY), "oauth.client_id"),
    (lambda: OAuthConfig(client_id="x", client_secret=CANARY + " "), "oauth.client_secret"),
    (lambda: OAuthConfig(client_id="x", client_secret=CANARY, auth_url="ftp://h"), "oauth.auth_url"),
    (lambda: OAuthConfig(client_id="x", client_secret="y", auth_url=f"https://me:{CANARY}@h/"), "oauth.auth_url"),
    (lambda: OAuthConfig(client_id="x", client_secret="y", auth_url="https:///token"), "oauth.auth_url"),
    (lambda: OAuthConfig(client_id="x", client_secret=CANARY, refresh_fraction=1.0), "oauth.refresh_fraction"),
    (lambda: OAuthConfig(client_id="x", client_secret=CANARY, body="xml"), "oauth.body"),  # type: ignore[arg-type]
    (lambda: TlsConfig(cert="c"), "tls.key"),
    (lambda: TlsConfig(key="k"), "tls.cert"),
    (lambda: TlsConfig(ca="/nowhere.pem"), "tls.ca"),
    (lambda: PoolConfig(channels=0), "pool.channels"),
    (lambda: PoolConfig(channels=9), "pool.max_channels"),
    (lambda: PoolConfig(balancer="best"), "pool.balancer"),  # type: ignore[arg-type]
    (lambda: PoolConfig(weights={"h:1": -1}), "pool.weights[h:1]"),
    (lambda: BatchingConfig(fixed_size=201), "batching.fixed_size"),
    (lambda: BatchingConfig(linger_s=-0.1), "batching.linger_s"),
    (lambda: ClientConfig(batching=BatchingConfig(max_bytes=600_000)), "batching.max_bytes"),
    (lambda: PreprocessConfig(hashes=("md4",)), "preprocess.hashes"),  # type: ignore[arg-type]
    (lambda: PreprocessConfig(threads=0), "preprocess.threads"),
    (lambda: RetryConfig(max_attempts=0), "retry.max_attempts"),
    (lambda: RetryConfig(cap_s=0.01), "retry.cap_s"),
    (lambda: RetryConfig(budget_images=-1), "retry.budget_images"),
    (lambda: BreakerConfig(ejection_max_s=1), "breaker.ejection_max_s"),
    (lambda: BreakerConfig(panic_fraction=1.5), "breaker.panic_fraction"),
    (lambda: LimitsConfig(max_in_flight=0), "limits.max_in_flight"),
    (lambda: LimitsConfig(images_per_second=0), "limits.images_per_second"),
]


@pytest.mark.parametrize(("make", "field"), WRONG, ids=[field for _, field in WRONG])
def test_a_wrong_value_names_its_field_and_no_secret(make: Callable[[], object], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.field == field
    assert " but must be " in str(caught.value)
    assert CANARY not in str(caught.value) + repr(caught.value)


def test_defaults_are_valid_and_frozen() -> None:
    config = ClientConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.timeout_s = 1.0  # type: ignore[misc]


def test_where_nothing_is_resized_a_batch_may_be_smaller_than_a_frame() -> None:
    ClientConfig(batching=BatchingConfig(max_bytes=1024), preprocess=PreprocessConfig(resize=False))


def test_one_endpoint_may_be_a_plain_text() -> None:
    assert ClientConfig(endpoints="h:1").endpoints == ("h:1",)  # type: ignore[arg-type]


@pytest.mark.parametrize("endpoint", ["localhost:1", "127.0.0.1:1", "127.8.0.1:1", "[::1]:1"])
def test_credentials_may_go_to_this_machine_in_plaintext(endpoint: str) -> None:
    assert ClientConfig(endpoints=(endpoint,), api_key=CANARY, tls=False).api_key == CANARY


@pytest.mark.parametrize("endpoint", ["localhost.example:1", "10.0.0.1:1", "[::2]:1", "127.0.0.1.nip.io:1"])
def test_credentials_never_leave_this_machine_in_plaintext_unasked(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="unprotected"):
        ClientConfig(endpoints=("localhost:1", endpoint), api_key_file="f", tls=False)
    ClientConfig(endpoints=(endpoint,), api_key_file="f", tls=False, allow_plaintext_credentials=True)


@pytest.mark.parametrize(("host", "refused"), [("issuer.example", True), ("127.0.0.1:8081", False), ("[::1]", False)])
def test_the_client_secret_neither(host: str, refused: bool) -> None:
    oauth = OAuthConfig(client_id="x", client_secret=CANARY, auth_url=f"http://{host}/token")
    if refused:
        with pytest.raises(ConfigError, match="client secret would be sent unprotected"):
            ClientConfig(oauth=oauth)
        ClientConfig(oauth=oauth, allow_plaintext_credentials=True)
    else:
        ClientConfig(oauth=oauth)


def test_repr_shows_no_secret() -> None:
    config = ClientConfig(oauth=OAuthConfig(client_id="x", client_secret=CANARY))
    assert CANARY not in repr(config) + str(config) + repr(config.oauth)
    assert CANARY not in repr(ClientConfig(api_key=CANARY))


def test_a_configuration_travels_to_another_process(tmp_path: Path) -> None:
    (tmp_path / "ca").touch()
    config = ClientConfig(tls=TlsConfig(ca=tmp_path / "ca"), pool=PoolConfig(weights={"h:1": 1.0}))
    assert pickle.loads(pickle.dumps(config)) == config
