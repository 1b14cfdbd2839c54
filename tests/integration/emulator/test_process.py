"""The emulator as a process: its command, its admin endpoint, the pytest plugin."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from athena_async.cli.emulator import emulator as emulator_command
from athena_async.emulator.process import EmulatorProcess, EmulatorStartError
from athena_async.errors import ConfigError

pytestmark = pytest.mark.anyio

COMMAND = "import typer; from athena_async.cli.emulator import emulator; typer.run(emulator)"


@pytest.fixture(scope="module")
def running() -> Iterator[EmulatorProcess]:
    with EmulatorProcess() as found:
        yield found


@pytest.fixture
def process(running: EmulatorProcess) -> EmulatorProcess:
    """As freshly started."""
    running.reset()
    return running


async def test_it_answers_and_shows_its_audit(process: EmulatorProcess, lab: SimpleNamespace) -> None:
    async with lab.connect(process.address) as stub:
        await stub.ClassifySingle(lab.item("one"))
        assert [record["correlation_id"] for record in process.audit()] == ["one"]
        stats = process.ask("GET", "/stats")
        assert stats["audit"] == {"total": 1, "billed": 1, "outcomes": {"CLASSIFIED": 1}}
        assert stats["live_streams"] == 0


async def test_faults_and_model_change_while_it_runs(process: EmulatorProcess, lab: SimpleNamespace) -> None:
    async with lab.connect(process.address) as stub:
        process.set_faults(image_errors=1.0, image_error_code="MODEL_ERROR")
        assert (await stub.ClassifySingle(lab.item("one"))).error.code == lab.m.ERROR_CODE_MODEL_ERROR
        process.reset()
        assert not (await stub.ClassifySingle(lab.item("two"))).HasField("error")
        process.inject("image_errors")
        assert (await stub.ClassifySingle(lab.item("three"))).HasField("error")
        assert process.ask("PATCH", "/model", {"fixed_s": 0.01})["fixed_s"] == 0.01
        assert process.ask("PATCH", "/model", {"per_image_s": 0.02})["fixed_s"] == 0.01
        assert process.ask("PUT", "/model", {})["fixed_s"] == 0.0
        assert process.ask("GET", "/faults")["dealt"]["image_errors"] >= 2


async def test_streams_are_held_released_and_dropped(process: EmulatorProcess, lab: SimpleNamespace) -> None:
    async with lab.connect(process.address) as stub:
        process.ask("POST", "/hold")
        call = stub.Classify()
        await call.write(lab.request(lab.item("one")))
        await lab.until(lambda: process.ask("GET", "/stats")["audit"]["total"] == 1)
        [deployment] = process.ask("GET", "/stats")["deployments"]
        assert (deployment["backlog"], deployment["kept"], deployment["streams"]) == (1, 1, 1)
        process.ask("POST", "/release")
        assert await lab.read_ids(call, 1) == ["one"]
        assert process.ask("POST", "/streams/drop", {"code": "ABORTED"}) == {"dropped": 1}
        assert (await lab.status_of(call))[0].name == "ABORTED"
        process.ask("POST", "/tokens/revoke")
        process.ask("POST", "/goaway")


@pytest.mark.parametrize(
    ("method", "path", "body", "named"),
    [
        ("PATCH", "/faults", {"omit": 3}, "faults.omit"),
        ("PATCH", "/faults", {"nonsense": 3}, "nonsense"),
        ("PUT", "/model", {"nonsense": 3}, "nonsense"),
        ("POST", "/faults/omit", {"times": 0}, "times"),
        ("POST", "/faults/nonsense", {}, "no POST"),
        ("POST", "/streams/drop", {"code": "OK"}, "code"),
        ("POST", "/clock/advance", {"seconds": 1}, "ManualClock"),
        ("GET", "/audit?after=x", None, "after"),
        ("DELETE", "/faults", None, "no DELETE"),
        ("GET", "/nothing", None, "no GET"),
    ],
)
def test_what_cannot_be_is_refused_with_a_reason(
    process: EmulatorProcess, method: str, path: str, body: dict[str, Any] | None, named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        process.ask(method, path, body)


def test_web_pages_change_nothing(process: EmulatorProcess) -> None:
    request = urllib.request.Request(process.admin_url + "/hold", method="POST", headers={"origin": "http://evil"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    with caught.value as error:
        assert error.code == 403


def test_it_stops_cleanly_and_its_end_is_seen() -> None:
    process = EmulatorProcess()
    assert "running" in repr(process)
    assert process.stop() == 0
    assert process.stop() == 0
    assert "ended with 0" in repr(process)


def test_a_process_that_cannot_start_says_why(process: EmulatorProcess) -> None:
    with pytest.raises(EmulatorStartError, match="nonsense"):
        EmulatorProcess(nonsense=1)
    with pytest.raises(EmulatorStartError, match=f"cannot listen on 127.0.0.1:{process.port}"):
        EmulatorProcess(port=process.port)


def run_command(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_command_prints_one_line_and_stops_on_a_signal(
    lab: SimpleNamespace, tmp_path: Path, number: signal.Signals
) -> None:
    arguments = ["--port", "0", "--tls-dir", str(tmp_path / "tls"), "--oauth-port", "0", "--oauth-tls"]
    arguments += ["--oauth-client", "id:secret", "--api-key", "key", "--affiliate", "acme", "--time-scale", "60"]
    arguments += ["--audit", str(tmp_path / "audit.jsonl"), "--fault", "omit=0.0", "--model", "fixed_s=0.001"]
    process = run_command(*arguments)
    assert process.stdout is not None
    addresses = json.loads(process.stdout.readline())
    assert set(addresses) == {"grpc", "oauth", "admin", "ca"}
    assert addresses["grpc"].startswith("127.0.0.1:")
    assert addresses["oauth"].startswith("https://127.0.0.1:")
    import grpc

    credentials = grpc.ssl_channel_credentials(Path(addresses["ca"]).read_bytes())
    async with lab.connect(addresses["grpc"], credentials=credentials) as stub:
        await stub.ClassifySingle(lab.item("one"), metadata=lab.bearer("key"))
        open_call = stub.Classify(metadata=lab.bearer("key"))
        await open_call.write(lab.request())
        process.send_signal(number)
        out, errors = process.communicate(timeout=10)
    assert (process.returncode, out, errors) == (0, "", "")
    assert json.loads((tmp_path / "audit.jsonl").read_text())["correlation_id"] == "one"


def test_the_command_explains_every_flag_of_its_own() -> None:
    app = typer.Typer()
    app.command()(emulator_command)
    wide = {"COLUMNS": "200", "TERMINAL_WIDTH": "200", "NO_COLOR": "1", "TERM": "dumb"}
    text = CliRunner().invoke(app, ["--help"], env=wide).output
    flags = (
        "port tls-dir oauth-port oauth-tls oauth-client audience api-key affiliate known-hashes "
        "expected-outputs audit faults time-scale sink mtls admin-port"
    )
    for name in flags.split():
        assert f"--{name}" in text


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--oauth-client", "nosecret"], "--oauth-client"),
        (["--oauth-port", "0"], "oauth_clients"),
        (["--fault", "nonsense=1"], "nonsense"),
        (["--mtls"], "tls_dir"),
    ],
)
def test_the_command_refuses_what_cannot_be(arguments: list[str], named: str) -> None:
    app = typer.Typer()
    app.command()(emulator_command)
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, ConfigError)
    assert named in str(result.exception)


def run_pytest(folder: Path, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", *arguments, str(folder)],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=60,
        env={**os.environ, **(env or {})},
        check=False,
    )


def test_users_get_the_fixture_and_the_option(tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text(
        textwrap.dedent(
            """
            import os, socket

            def test_fixture(athena_emulator):
                socket.create_connection((athena_emulator.host, athena_emulator.port)).close()
                assert athena_emulator.audit() == []

            def test_same_again(athena_emulator, request):
                wanted = f"{athena_emulator.host}:{athena_emulator.port}"
                if request.config.getoption("athena_emulator"):
                    assert os.environ["ATHENA_HOST"] + ":" + os.environ["ATHENA_PORT"] == wanted
                    assert os.environ["USE_TLS"] == "false"
                    assert "ATHENA_API_KEY" not in os.environ
                else:
                    assert "ATHENA_HOST" not in os.environ
                    assert os.environ["ATHENA_API_KEY"] == "real"
            """
        )
    )
    for arguments in ((), ("--athena-emulator",)):
        result = run_pytest(tmp_path, *arguments, env={"ATHENA_API_KEY": "real"})
        assert "2 passed" in result.stdout, result.stdout + result.stderr


def test_the_plugin_starts_nothing_that_nobody_asked_for(tmp_path: Path) -> None:
    (tmp_path / "test_none.py").write_text(
        "import sys\n\ndef test_none():\n"
        "    assert 'athena_async.emulator.pytest_plugin' in sys.modules\n"
        "    assert not {'athena_async.emulator.server', 'numpy', 'h11', 'cryptography'} & set(sys.modules)\n"
    )
    result = run_pytest(tmp_path)
    assert "1 passed" in result.stdout, result.stdout + result.stderr


async def test_the_command_permits_affiliates_by_client(lab: SimpleNamespace) -> None:
    process = run_command("--port", "0", "--api-key", "a=ka", "--affiliate", "a=acme", "--affiliate", "shared")
    assert process.stdout is not None
    try:
        async with lab.connect(json.loads(process.stdout.readline())["grpc"]) as stub:
            for name, refused in (("acme", False), ("shared", False), ("other", True)):
                output = await stub.ClassifySingle(lab.item("x", affiliate=name), metadata=lab.bearer("ka"))
                assert output.HasField("error") is refused
    finally:
        process.terminate()
        process.communicate(timeout=10)
