from __future__ import annotations

import json
from pathlib import Path

from tests.integration.cli.harness import athena, emulator, make_photos


def test_deployments_as_table_and_as_json(tmp_path: Path) -> None:
    (photo,) = make_photos(tmp_path / "photos", 1)
    with emulator() as endpoint:
        connection = ("--endpoint", endpoint, "--no-tls")
        assert athena("deployments", *connection).stdout == "no deployments\n"
        assert athena("classify", photo, "--deployment-id", "team-a", *connection).returncode == 0
        table = athena("deployments", *connection)
        lines = athena("deployments", "--json", *connection)
    assert (table.returncode, lines.returncode) == (0, 0)
    assert table.stdout.split() == ["deployment", "backlog", "team-a", "0"]
    assert json.loads(lines.stdout) == {"deployment_id": "team-a", "backlog": 0}


def test_a_service_out_of_reach_is_exit_3() -> None:
    ended = athena("deployments", "--endpoint", "127.0.0.1:1", "--no-tls")
    assert ended.returncode == 3
    assert ended.stderr.startswith("athena-async: UNAVAILABLE")
    assert len(ended.stderr.splitlines()) == 1
