"""Jobs in a program: the example of the documentation, and a stop with the real client."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from athena_async import AthenaClient, ClientConfig, Outcome
from athena_async.emulator import Emulator, ServiceModel
from athena_async.jobs import Job, RunLimits, file_source, open_output
from tests.integration.cli.harness import emulator, environment, make_photos

DOCUMENT = Path(__file__).parents[3] / "docs" / "jobs.md"


def test_the_example_of_the_documentation_runs(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    make_photos(tmp_path / "photos", 7)
    with emulator() as endpoint:
        host, port = endpoint.split(":")
        ended = subprocess.run(
            [sys.executable, "-c", example],
            cwd=tmp_path,
            env=environment(ATHENA_HOST=host, ATHENA_PORT=port, USE_TLS="false"),
            capture_output=True,
            text=True,
            timeout=15,
            check=True,
        )
    assert ended.stdout == "{<Outcome.CLASSIFIED: 'CLASSIFIED'>: 7} []\n"
    assert len((tmp_path / "results.jsonl").read_bytes().splitlines()) == 7


@pytest.mark.anyio
async def test_a_stop_drains_what_is_in_flight(tmp_path: Path) -> None:
    make_photos(tmp_path / "photos", 100)
    output = tmp_path / "out.jsonl"
    async with Emulator(model=ServiceModel(fixed_s=0.05, parallelism=1)) as service:
        config = ClientConfig(endpoints=(service.address,), tls=False)
        async with AthenaClient(config) as client:
            source = file_source([tmp_path / "photos"], recursive=False)
            job = Job(client, source, open_output(output), limits=RunLimits(drain_timeout_s=10.0))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(job.run)
                while not job.report.settled_count:
                    await anyio.sleep(0.01)
                job.stop.set("enough")
        sent = sum(record.outcome == "CLASSIFIED" for record in service.audit.records)
    assert job.report.outcomes[Outcome.CLASSIFIED] == sent
    assert job.report.outcomes.total() + job.report.left_count <= 100
    assert len(output.read_bytes().splitlines()) == job.report.settled_count
    assert job.report.stopped == "enough"


@pytest.mark.anyio
async def test_files_that_vanish_fail_alone_and_are_tried_again(tmp_path: Path) -> None:
    paths = make_photos(tmp_path / "photos", 3)
    source = file_source(paths, recursive=False)
    async with Emulator() as service:
        for expected in (2, 1):
            async with AthenaClient(ClientConfig(endpoints=(service.address,), tls=False)) as client:
                job = Job(client, source, open_output(tmp_path / "out.jsonl", resume=True))
                data = paths[0].read_bytes()
                if expected == 2:
                    paths[0].unlink()
                await job.run()
                paths[0].write_bytes(data)
            assert job.report.outcomes == {Outcome.CLASSIFIED: expected}
