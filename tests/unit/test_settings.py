"""Configuration from the environment and from TOML: every field, and errors that name what the user wrote."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from athena_async._settings_table import parts, settings
from athena_async.config import (
    DEFAULT_ENDPOINT,
    BatchingConfig,
    ClientConfig,
    OAuthConfig,
    PoolConfig,
    PreprocessConfig,
    TlsConfig,
)
from athena_async.errors import ConfigError
from athena_async.settings import configuration_markdown

CANARY = "canary-6f1e-secret"
ROOT = Path(__file__).parents[2]


def wrong(environ: dict[str, str], **overrides: object) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        ClientConfig.from_env(environ, **overrides)
    assert CANARY not in str(caught.value) + repr(caught.value) + repr(caught.value.args)
    return caught.value


def file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "athena.toml"
    path.write_text(text)
    return path


def wrong_file(tmp_path: Path, text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        ClientConfig.from_file(file(tmp_path, text))
    assert CANARY not in str(caught.value) + repr(caught.value)
    return caught.value


def test_nothing_set_gives_the_defaults() -> None:
    assert ClientConfig.from_env({}) == ClientConfig()


def test_every_field_has_a_setting() -> None:
    fields = {field.name for field in dataclasses.fields(ClientConfig)} - set(parts()) | {"tls"}
    for part, cls in parts().items():
        fields |= {f"{part}.{field.name}" for field in dataclasses.fields(cls)}
    assert set(settings()) == fields


OTHER_VALUES: dict[str, tuple[str, object]] = {
    "endpoints": ("one:1, two:2", ("one:1", "two:2")),
    "deployment_id": ("team-7", "team-7"),
    "api_key": (CANARY, CANARY),
    "api_key_file": ("/keys/athena", "/keys/athena"),
    "oauth.client_id": ("id", "id"),
    "oauth.client_secret": (CANARY, CANARY),
    "oauth.auth_url": ("https://issuer/token", "https://issuer/token"),
    "oauth.body": ("form", "form"),
    "oauth.ca": ("/roots.pem", "/roots.pem"),
    "tls.server_name": ("athena.example", "athena.example"),
    "pool.balancer": ("weighted", "weighted"),
    "pool.weights": ("one:1=2, two:2=0.5", {"one:1": 2.0, "two:2": 0.5}),
    "batching.fixed_size": ("20", 20),
    "preprocess.resampling": ("antialias", "antialias"),
    "preprocess.resizer": ("PILLOW", "pillow"),
    "preprocess.encoding": ("none", "none"),
    "preprocess.hashes": ("sha1", ("sha1",)),
    "preprocess.isolation": ("process", "process"),
    "preprocess.threads": ("3", 3),
    "retry.budget_images": ("0", 0),
    "retry.budget_ratio": ("0.5", 0.5),
    "limits.images_per_second": ("12.5", 12.5),
    "oauth.refresh_fraction": ("0.5", 0.5),
    "breaker.panic_fraction": ("0.25", 0.25),
}
"""A value other than the default where one cannot be made from the default itself."""


def other_value(path: str, default: object) -> tuple[str, object]:
    if path in OTHER_VALUES:
        return OTHER_VALUES[path]
    if isinstance(default, bool):
        return str(not default), not default
    if isinstance(default, int | float):
        return str(default + 1), default + 1
    return "other", "other"


@pytest.mark.parametrize("path", [path for path in settings() if path not in ("tls.ca", "tls.cert", "tls.key")])
def test_every_variable_reaches_its_field(path: str) -> None:
    setting = settings()[path]
    text, expected = other_value(path, setting.default)
    for variable in setting.variables:
        needed = {"OAUTH_CLIENT_ID": "x", "OAUTH_CLIENT_SECRET": "y"} if path.startswith("oauth.") else {}
        needed.pop(setting.variables[0], None)
        value: object = ClientConfig.from_env(needed | {variable: text})
        for name in path.split("."):
            value = getattr(value, name)
        assert value == expected


def test_tls_files_come_from_variables(tmp_path: Path) -> None:
    for name in ("ca", "cert", "key"):
        (tmp_path / name).touch()
    environ = {f"ATHENA_TLS_{name.upper()}": str(tmp_path / name) for name in ("ca", "cert", "key")}
    expected = TlsConfig(ca=str(tmp_path / "ca"), cert=str(tmp_path / "cert"), key=str(tmp_path / "key"))
    assert ClientConfig.from_env(environ | {"USE_TLS": "yes"}).tls == expected


@pytest.mark.parametrize(
    ("environ", "endpoint"),
    [
        ({"ATHENA_HOST": "athena.example"}, "athena.example:443"),
        ({"ATHENA_HOST": "athena.example:50051"}, "athena.example:50051"),
        ({"ATHENA_HOST": "::1", "ATHENA_PORT": "50051"}, "[::1]:50051"),
        ({"ATHENA_PORT": "50051"}, DEFAULT_ENDPOINT.replace("443", "50051")),
        ({"ATHENA_HOST": "", "ATHENA_PORT": " "}, DEFAULT_ENDPOINT),
    ],
)
def test_host_and_port_are_one_endpoint(environ: dict[str, str], endpoint: str) -> None:
    assert ClientConfig.from_env(environ).endpoints == (endpoint,)


@pytest.mark.parametrize(
    ("environ", "variable", "words"),
    [
        ({"ATHENA_HOST": "h", "ATHENA_ENDPOINTS": "h:1"}, "ATHENA_HOST", "ATHENA_ENDPOINTS is set too"),
        ({"ATHENA_HOST": "h:1", "ATHENA_PORT": "2"}, "ATHENA_HOST", "ATHENA_PORT is set too"),
        ({"ATHENA_HOST": "https://h"}, "ATHENA_HOST", "without a scheme"),
        ({"ATHENA_PORT": "65536"}, "ATHENA_PORT", "'65536', but must be a whole number from 1 to 65535"),
        ({"ATHENA_ENDPOINTS": "h:1,,h:2"}, "ATHENA_ENDPOINTS", "host:port"),
        ({"USE_TLS": "maybe"}, "USE_TLS", "'maybe', but must be true or false"),
        ({"ATHENA_TLS_CERT": "/c"}, "ATHENA_TLS_KEY", "together with ATHENA_TLS_CERT"),
        ({"ATHENA_TLS_CA": "/nowhere.pem"}, "ATHENA_TLS_CA", "'/nowhere.pem', but must be a readable PEM file"),
        ({"ATHENA_TLS_CA": "/c", "USE_TLS": "false"}, "USE_TLS", "'false', but must be true, since ATHENA_TLS_CA"),
        ({"USE_TLS": "true", "ATHENA_TLS": "true"}, "ATHENA_TLS", "since USE_TLS is set too"),
        ({"ATHENA_TIMEOUT_S": "soon"}, "ATHENA_TIMEOUT_S", "'soon', but must be a number"),
        ({"ATHENA_TIMEOUT_S": "nan"}, "ATHENA_TIMEOUT_S", "'nan', but must be a number above 0"),
        ({"ATHENA_POOL_CHANNELS": "0"}, "ATHENA_POOL_CHANNELS", "'0', but must be a whole number from 1 to 64"),
        ({"ATHENA_POOL_CHANNELS": "2.5"}, "ATHENA_POOL_CHANNELS", "a whole number"),
        ({"ATHENA_POOL_WEIGHTS": "h:1=none"}, "ATHENA_POOL_WEIGHTS", "name=value"),
        ({"ATHENA_POOL_WEIGHTS": "h:1=0"}, "ATHENA_POOL_WEIGHTS", "a number above 0"),
        ({"ATHENA_POOL_BALANCER": "best"}, "ATHENA_POOL_BALANCER", "one of round_robin, random, weighted"),
        ({"ATHENA_PREPROCESS_HASHES": "md5,md4"}, "ATHENA_PREPROCESS_HASHES", "one of md5, sha1"),
        ({"OAUTH_CLIENT_ID": "id"}, "OAUTH_CLIENT_SECRET", "given, since OAUTH_CLIENT_ID is set"),
        ({"OAUTH_CLIENT_SECRET": CANARY}, "OAUTH_CLIENT_ID", "given, since OAUTH_CLIENT_SECRET is set"),
        ({"ATHENA_API_KEY": CANARY + "\x01"}, "ATHENA_API_KEY", "printable ASCII"),
        ({"ATHENA_API_KEY": CANARY, "USE_TLS": "0"}, "USE_TLS", "or set ATHENA_ALLOW_PLAINTEXT_CREDENTIALS"),
        ({"ATHENA_API_KEY": CANARY, "ATHENA_API_KEY_FILE": "/k"}, "ATHENA_API_KEY_FILE", "ATHENA_API_KEY is set too"),
        (
            {"OAUTH_CLIENT_ID": "id", "OAUTH_CLIENT_SECRET": "s", "OAUTH_AUTH_URL": f"https://me:{CANARY}@issuer"},
            "OAUTH_AUTH_URL",
            "without user name and password",
        ),
        (
            {"OAUTH_CLIENT_ID": "id", "OAUTH_CLIENT_SECRET": CANARY, "OAUTH_AUTH_URL": "http://issuer/token"},
            "OAUTH_AUTH_URL",
            "client secret would be sent unprotected",
        ),
    ],
)
def test_a_wrong_value_names_variable_value_and_what_is_allowed(
    environ: dict[str, str], variable: str, words: str
) -> None:
    error = wrong(environ)
    assert error.field == variable
    assert words in str(error)


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("ATHENA_POOL_CHANELS", "ATHENA_POOL_CHANNELS"),
        ("ATHENA_APIKEY", "ATHENA_API_KEY"),
        ("ATHENA_TIMEOUT", "ATHENA_TIMEOUT_S"),
        ("ATHENA_LINGER_S", "ATHENA_BATCHING_LINGER_S"),
        ("ATHENA_OAUTH_CLIENT_SECRT", "OAUTH_CLIENT_SECRET"),
        ("ATHENA_PORTS", "ATHENA_PORT"),
    ],
)
def test_a_misspelt_variable_is_an_error_with_the_closest_name(misspelt: str, meant: str) -> None:
    error = wrong({misspelt: CANARY})
    assert error.field == misspelt
    assert str(error).endswith(f"did you mean {meant}?")


def test_variables_of_other_programs_are_left_alone() -> None:
    others = {"ATHENA_WORKGROUP": "a", "ATHENA_S3_STAGING_DIR": "s3://b", "ATHENA_TEST_AFFILIATE": "c"}
    assert ClientConfig.from_env(others) == ClientConfig()


def test_overrides_win_and_displace_what_they_exclude() -> None:
    environ = {"OAUTH_CLIENT_ID": "a", "OAUTH_CLIENT_SECRET": "b", "ATHENA_HOST": "h", "ATHENA_POOL_CHANNELS": "64"}
    config = ClientConfig.from_env(environ, api_key="key", endpoints=("e:1",), pool=PoolConfig(channels=3))
    assert (config.api_key, config.oauth, config.endpoints) == ("key", None, ("e:1",))
    assert config.pool == PoolConfig(channels=3)


def test_a_wrong_override_is_named_as_a_field() -> None:
    assert wrong({"ATHENA_TIMEOUT_S": "3"}, timeout_s=0).field == "timeout_s"
    error = wrong({}, api_keys=CANARY)
    assert str(error).endswith("did you mean api_key?")


def test_a_file_has_fields_as_keys_and_parts_as_tables(tmp_path: Path) -> None:
    (tmp_path / "roots.pem").touch()
    path = file(
        tmp_path,
        """
        endpoints = ["one:443", "two:443"]
        timeout_s = 60
        [oauth]
        client_id = "id"
        client_secret = "secret"
        [tls]
        ca = "roots.pem"
        [pool]
        balancer = "weighted"
        weights = {"one:443" = 3, "two:443" = 1.5}
        [preprocess]
        hashes = []
        threads = 2
        """,
    )
    assert ClientConfig.from_file(path, affiliate="acme") == ClientConfig(
        endpoints=("one:443", "two:443"),
        affiliate="acme",
        timeout_s=60.0,
        oauth=OAuthConfig(client_id="id", client_secret="secret"),
        tls=TlsConfig(ca=str(tmp_path / "roots.pem")),
        pool=PoolConfig(balancer="weighted", weights={"one:443": 3.0, "two:443": 1.5}),
        preprocess=PreprocessConfig(hashes=(), threads=2),
    )


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("timeout = 3", "timeout", "did you mean timeout_s?"),
        ("[pool]\nchanels = 3", "pool.chanels", "did you mean pool.channels?"),
        (f"api_keyy = '{CANARY}'", "api_keyy", "did you mean api_key?"),
        ("[pool]\nchannels = '3'", "pool.channels", "'3', but must be a whole number"),
        ("[pool]\nchannels = true", "pool.channels", "a whole number"),
        ("[pool]\nchannels = 100", "pool.channels", "100, but must be a whole number from 1 to 64"),
        ("[preprocess]\nresize = 1", "preprocess.resize", "true or false"),
        ("[preprocess]\nhashes = 'md5'", "preprocess.hashes", "a list"),
        ("pool = 3", "pool", "a table"),
        (f"oauth = '{CANARY}'", "oauth", "a table"),
        (f"api_key = ['{CANARY}']", "api_key", "a text"),
        ("[oauth]\nclient_id = 'x'", "oauth.client_secret", "given, since oauth.client_id is set"),
        ("tls = 'yes'", "tls", "true or false"),
        ("timeout_s = ", "configuration file", "valid TOML: Invalid value (at"),
        (f'api_key = "{CANARY}', "configuration file", "valid TOML"),
    ],
)
def test_a_wrong_file_names_key_value_and_what_is_allowed(tmp_path: Path, text: str, key: str, words: str) -> None:
    error = wrong_file(tmp_path, text)
    assert error.field == key
    assert words in str(error)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml.*No such file"):
        ClientConfig.from_file(tmp_path / "nowhere.toml")


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "athena.toml").write_bytes(b"affiliate = '\xff'")
    with pytest.raises(ConfigError, match="not UTF-8"):
        ClientConfig.from_file(tmp_path / "athena.toml")


def test_the_reference_is_fresh_and_whole() -> None:
    text = configuration_markdown()
    assert (ROOT / "docs/configuration.md").read_text() == text, "run: python -m athena_async.settings > docs/..."
    for setting in settings().values():
        row = next(line for line in text.splitlines() if f"| `{setting.path}` | `{setting.variables[0]}` |" in line)
        assert not row.endswith("|  |"), f"{setting.path} has no description in its docstring"


def test_parts_can_be_given_in_code() -> None:
    assert ClientConfig.from_env({}, batching=BatchingConfig(fixed_size=3)).batching.fixed_size == 3
