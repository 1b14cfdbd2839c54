"""A program that only reads what other clients of a deployment leave it."""

from __future__ import annotations

import asyncio

from athena_async import AthenaClient
from athena_async.testing import FakeAthena
from tests.simulation.runs import config
from tests.unit.streams.fakes import good
from tests.virtual_time import run_virtual


def test_a_reader_of_foreign_results_has_a_stream_again_after_every_loss() -> None:
    async def main() -> None:
        service = FakeAthena()
        async with AthenaClient(config(), connect=service.connect, seed=1) as client:
            foreign = client.foreign_results()
            for turn in range(3):
                reading = asyncio.ensure_future(anext(foreign))
                await asyncio.sleep(1.0)
                service.drop()
                await asyncio.sleep(30.0)
                service.send([good(f"theirs-{turn}")])
                assert (await asyncio.wait_for(reading, 5.0)).correlation_id == f"theirs-{turn}"
            await foreign.aclose()

    run_virtual(main())
