"""The commands up to the network: help, usage errors, configuration."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from athena_async.cli.app import Settings, build_app
from athena_async.cli.options import Connection
from athena_async.config import TlsConfig
from athena_async.errors import ConfigError

COMMANDS = ("classify", "deployments", "doctor", "emulator")


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith(("ATHENA_", "OAUTH_", "USE_TLS"))]:
        monkeypatch.delenv(name)


def invoke(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"}).invoke(build_app(Settings()), arguments)


def test_help_lists_the_commands_and_the_exit_codes() -> None:
    shown = invoke("--help")
    assert shown.exit_code == 0
    assert all(command in shown.output for command in COMMANDS)
    assert "3 the service is out of reach" in " ".join(shown.output.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_each_option_has_help_worth_reading(command: str) -> None:
    assert invoke(command, "--help").exit_code == 0
    described = typer.main.get_command(build_app(Settings())).commands[command]  # type: ignore[attr-defined]
    assert described.help.count(".") >= 1
    for parameter in described.params:
        assert len(parameter.help or "") > 10, f"{command} {parameter.name}"


def test_version() -> None:
    assert re.fullmatch(r"athena-async \d+\.\d+\.\d+\S*\n", invoke("--version").output)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("classify",), "Missing argument"),
        (("classify", "{file}", "--resume"), "--resume needs --output"),
        (("classify", "{file}", "--overwrite", "-o", "-"), "--overwrite needs --output"),
        (("classify", "{file}", "--resume", "--overwrite", "-o", "{dir}/o.jsonl"), "exclude each other"),
        (("classify", "{file}", "--no-tls", "--ca", "{file}"), "--ca needs TLS"),
        (("classify", "{file}", "--drain-timeout", "-1"), "drain-timeout"),
        (("nonsense",), "No such command"),
    ],
)
def test_wrong_usage_is_explained(tmp_path: Path, arguments: tuple[str, ...], complaint: str) -> None:
    file = tmp_path / "a.jpg"
    file.touch()
    shown = invoke(*(argument.format(file=file, dir=tmp_path) for argument in arguments))
    assert shown.exit_code == 2
    assert complaint in shown.output


def test_the_command_line_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATHENA_HOST", "env.example")
    monkeypatch.setenv("ATHENA_AFFILIATE", "from-env")
    assert Connection().client_config().endpoints == ("env.example:443",)
    config = Connection(endpoint=["a:1", "b:2"], tls=False, deployment_id="d").client_config()
    assert (config.endpoints, config.tls, config.deployment_id) == (("a:1", "b:2"), False, "d")
    assert config.affiliate == "from-env"


def test_a_file_replaces_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATHENA_AFFILIATE", "from-env")
    file = tmp_path / "athena.toml"
    file.write_text('affiliate = "from-file"\nendpoints = ["f:1"]\n')
    config = Connection(config=file, endpoint=["a:1"]).client_config()
    assert (config.affiliate, config.endpoints) == ("from-file", ("a:1",))


def test_certificates_make_a_tls_config(tmp_path: Path) -> None:
    pem = tmp_path / "ca.pem"
    pem.touch()
    assert Connection(ca=pem, server_name="athena").client_config().tls == TlsConfig(ca=pem, server_name="athena")


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATHENA_PORT", "many")
    with pytest.raises(ConfigError, match=r"ATHENA_PORT is 'many'"):
        Connection().client_config()


def test_the_doctor_shows_settings_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OAUTH_CLIENT_ID", "team")
    monkeypatch.setenv("OAUTH_CLIENT_SECRET", "hunter2-canary")
    monkeypatch.setenv("ATHENA_POOL_CHANNELS", "3")
    shown = invoke("doctor", "--offline", "--json")
    found = {line["name"]: line for line in map(json.loads, shown.output.splitlines())}
    assert found["pool.channels"]["detail"] == "3"
    assert found["oauth.client_id"]["detail"] == "team"
    assert found["oauth.client_secret"]["detail"] == "set (not shown)"
    assert "canary" not in shown.output
    assert found["credentials"]["state"] == "ok"
    assert {"python", "grpcio", "protobuf", "anyio", "uvloop", "extra opencv", "extra emulator"} <= found.keys()


def test_the_doctor_finds_a_wrong_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATHENA_TIMEOUT_S", "-1")
    shown = invoke("doctor", "--offline")
    assert shown.exit_code == 1
    assert "ATHENA_TIMEOUT_S" in shown.output
