from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.cli.harness import athena, emulator


def findings(*arguments: object, **changes: str) -> tuple[int, dict[str, dict[str, str]]]:
    ended = athena("doctor", "--json", *arguments, **changes)
    assert "Traceback" not in ended.stderr
    return ended.returncode, {found["name"]: found for found in map(json.loads, ended.stdout.splitlines())}


def test_all_well() -> None:
    with emulator() as endpoint:
        code, found = findings("--endpoint", endpoint, "--no-tls")
    assert code == 0
    assert found["connection"]["state"] == "ok"
    assert found["TLS"]["state"] == "note"
    assert found["token"]["detail"] == "no token needed; 0 deployments"


def test_a_closed_port_is_named_with_its_remedy() -> None:
    code, found = findings("--endpoint", "127.0.0.1:1", "--no-tls")
    assert code == 1
    assert found["connection"]["state"] == "broken"
    assert "refused" in found["connection"]["detail"].lower()
    assert found["connection"]["remedy"]
    assert "token" not in found


@pytest.mark.parametrize(
    ("key", "state", "text"),
    [("right", "ok", "token accepted"), ("wrong", "broken", "UNAUTHENTICATED"), ("", "broken", "UNAUTHENTICATED")],
)
def test_tokens(key: str, state: str, text: str) -> None:
    with emulator("--api-key", "right") as endpoint:
        code, found = findings("--endpoint", endpoint, "--no-tls", ATHENA_API_KEY=key)
    assert found["token"]["state"] == state
    assert text in found["token"]["detail"]
    assert code == (0 if state == "ok" else 1)
    assert ("ATHENA_API_KEY" in found["token"]["remedy"]) is (state == "broken")


def test_tls_step_by_step(tmp_path: Path) -> None:
    with emulator("--tls-dir", tmp_path) as endpoint:
        _, unknown = findings("--endpoint", endpoint, "--tls")
        code, known = findings("--endpoint", endpoint, "--ca", tmp_path / "ca.pem")
    assert unknown["TLS"]["state"] == "broken"
    assert "--ca" in unknown["TLS"]["remedy"]
    assert code == 0
    assert known["TLS"]["detail"] == "TLSv1.3, h2"


def test_plaintext_service_asked_for_tls() -> None:
    with emulator() as endpoint:
        code, found = findings("--endpoint", endpoint, "--tls")
    assert code == 1
    assert found["TLS"]["state"] == "broken"
    assert "--no-tls" in found["TLS"]["remedy"]


def test_for_people_each_fault_has_its_remedy_below() -> None:
    ended = athena("doctor", "--endpoint", "127.0.0.1:1", "--no-tls")
    assert ended.returncode == 1
    lines = ended.stdout.splitlines()
    (at,) = [number for number, line in enumerate(lines) if line.startswith("  broken ")]
    assert lines[at + 1].startswith("         remedy: ")
    assert "Endpoint 127.0.0.1:1" in lines
