"""Configuration from JSON, TOML and flags, and its validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from athena_async.emulator import Behaviour, EmulatorConfig, FaultPlan, ServiceModel
from athena_async.emulator.settings import config_from_json, fields_from_flags, read_faults
from athena_async.errors import ConfigError


def test_json_holds_fields_and_parts() -> None:
    config = config_from_json(
        '{"port": 7, "api_keys": ["a", "b"], "faults": {"omit": 0.5}, "model": {"fixed_s": 1},'
        ' "behaviour": {"duplicate_ids": "accept"}}'
    )
    assert config.port == 7
    assert config.api_keys == ("a", "b")
    assert config.faults == FaultPlan(omit=0.5)
    assert config.model == ServiceModel(fixed_s=1)
    assert config.behaviour == Behaviour(duplicate_ids="accept")


@pytest.mark.parametrize(
    ("text", "named"),
    [("[]", "JSON object"), ("{", "JSON object"), ('{"prot": 1}', "prot"), ('{"faults": {"omit": 2}}', "faults.omit")],
)
def test_wrong_json_is_refused_by_name(text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        config_from_json(text)


def test_toml_keys_outside_a_table_are_faults(tmp_path: Path) -> None:
    file = tmp_path / "faults.toml"
    file.write_text("seed = 3\ndrop_streams = 0.1\n[model]\nfixed_s = 0.2\n")
    assert read_faults(file) == {
        "faults": FaultPlan(seed=3, drop_streams=0.1),
        "model": ServiceModel(fixed_s=0.2),
    }


@pytest.mark.parametrize("text", ["not toml", "nonsense = 1", "[faults]\nomit = 'x'", "[other]\nx = 1", "faults = 3"])
def test_wrong_toml_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "faults.toml"
    file.write_text(text)
    with pytest.raises(ConfigError):
        read_faults(file)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere.toml"):
        read_faults(tmp_path / "nowhere.toml")


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "faults.toml"
    file.write_text("omit = 0.1\ndelay_s = 2.0\n")
    fields = fields_from_flags(file, ["omit=0.9", "drop_code=INTERNAL", "drop_loses_request=true"], ["parallelism=2"])
    assert fields["faults"] == FaultPlan(omit=0.9, delay_s=2.0, drop_code="INTERNAL", drop_loses_request=True)
    assert fields["model"] == ServiceModel(parallelism=2)


@pytest.mark.parametrize("flag", ["omit", "nonsense=1", "omit=many"])
def test_wrong_flags_are_refused(flag: str) -> None:
    with pytest.raises(ConfigError):
        fields_from_flags(None, [flag], [])


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"port": 70_000}, "port"),
        ({"api_keys": "key"}, "api_keys"),
        ({"api_keys": (" padded ",)}, "api_keys"),
        ({"affiliates": "acme"}, "affiliates"),
        ({"oauth_port": 0}, "oauth_clients"),
        ({"oauth_clients": {"id": ""}}, "oauth_clients"),
        ({"mtls": True}, "tls_dir"),
        ({"oauth_tls": True}, "tls_dir"),
        ({"known_hashes": "/nowhere"}, "known_hashes"),
        ({"expected_outputs": "/nowhere"}, "expected_outputs"),
        ({"time_scale": 0}, "time_scale"),
        ({"max_message_bytes": 0}, "max_message_bytes"),
    ],
)
def test_wrong_fields_are_refused_by_name(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        EmulatorConfig(**fields)


@pytest.mark.parametrize(
    "fields",
    [{"duplicate_ids": "perhaps"}, {"classes": "other"}, {"outputs_per_response": 0}, {"stream_idle_timeout_s": 0}],
)
def test_wrong_behaviour_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="behaviour"):
        Behaviour(**fields)


def test_no_secret_shows() -> None:
    config = EmulatorConfig(api_keys=("canary-key",), oauth_clients={"id": "canary-secret"})
    assert "canary" not in repr(config)
    with pytest.raises(ConfigError) as caught:
        EmulatorConfig(oauth_clients={"id": "canary\nsecret"})
    assert "canary" not in str(caught.value)
