"""What only a network of our own can do: links that go down, names that nobody knows."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from athena_async import AthenaClient, PoolConfig
from athena_async.events import Event
from tests.faults.namespace import THERE, Namespace, namespace
from tests.faults.world import config, in_flight, inputs, noticed_after_s

pytestmark = [pytest.mark.anyio, pytest.mark.root]

# The defaults are 10 and 5 s, and take as long to prove: ATHENA_TEST_PINGS=10,5
INTERVAL_S, TIMEOUT_S = (float(part) for part in os.environ.get("ATHENA_TEST_PINGS", "2,1").split(","))


@pytest.fixture
def network() -> Iterator[Namespace]:
    with namespace() as found:
        yield found


@pytest.fixture
def service(network: Namespace) -> Iterator[str]:
    """An emulator on the other side of the link, slow enough to have images in flight."""
    given = json.dumps({"host": THERE, "port": 0, "model": {"fixed_s": 2.0}})
    command = network.command(sys.executable, "-m", "athena_async.emulator", given)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["grpc"]
        finally:
            process.kill()


@pytest.mark.timeout(60)
async def test_a_link_that_goes_down_is_noticed_and_nothing_is_lost(network: Namespace, service: str) -> None:
    """P10: no packet says that the peer is gone."""
    seen: list[Event] = []
    pool = PoolConfig(channels=1, ping_interval_s=INTERVAL_S, ping_timeout_s=TIMEOUT_S, probe_interval_s=0.1)
    settings = config(service, pool=pool, timeout_s=40.0, keepalive_interval_s=10.0)
    async with AthenaClient(settings, observers=[seen.append]) as client:
        work = asyncio.create_task(client.classify_many(inputs(16)))
        await in_flight(client, 16)
        await asyncio.sleep(0.3)
        network.link("down")
        noticed_s = await noticed_after_s(seen, INTERVAL_S + TIMEOUT_S + 0.5)
        print(f"P10: noticed after {noticed_s:.1f} s with pings each {INTERVAL_S:g} s and {TIMEOUT_S:g} s patience")
        network.link("up")
        results = await work
        assert all(result.ok for result in results), {str(r.error) for r in results if not r.ok}


def test_a_name_that_cannot_be_looked_up_is_a_clear_error_at_the_deadline(network: Namespace) -> None:
    network.link("down")
    command = network.command(sys.executable, "-m", "tests.faults.lookup_run")
    ended = subprocess.run(command, capture_output=True, text=True, timeout=19, check=True)
    rows, waited_s = map(json.loads, ended.stdout.splitlines())
    assert 3.0 <= waited_s <= 5.0
    assert {(outcome, code, attempts) for outcome, code, attempts, _ in rows} == {("FAILED", "UNAVAILABLE", 0)}
    assert all("athena.invalid" in message for *_, message in rows), rows[0]
