"""Memory is bounded whatever a client does."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from athena_async.emulator import Emulator, ServiceModel

pytestmark = pytest.mark.anyio


async def pump(call: object, message: object, limit: int) -> int:
    """Writes without ever reading, until the other side lets nothing more through."""
    sent = 0
    while sent < limit:
        write = asyncio.ensure_future(call.write(message))  # type: ignore[attr-defined]
        done, _ = await asyncio.wait({write}, timeout=0.5)
        if not done:
            call.cancel()  # type: ignore[attr-defined]
            await asyncio.gather(write, return_exceptions=True)
            return sent
        sent += 1
    return sent


async def test_a_client_that_never_reads_is_not_read_on(lab: SimpleNamespace) -> None:
    """Its answers fill the socket, then the deployment; then its requests stay where they are."""
    limit = 300
    async with Emulator(max_unanswered=limit) as emulator, lab.connect(emulator.address) as stub:
        call = stub.Classify()
        padding = "p" * 3000  # the affiliate makes requests large, so that the windows fill soon

        def message(n: int) -> object:
            return lab.request(*(lab.item(f"{n}-{k}", affiliate=padding) for k in range(50)))

        emulator.hold()
        for n in range(400):
            write = asyncio.ensure_future(call.write(message(n)))
            done, _ = await asyncio.wait({write}, timeout=0.5)
            if not done:
                break
        else:
            pytest.fail("the emulator took everything in")
        assert len(emulator.audit) < limit + 100
        assert emulator.deployments.all()[0].backlog < limit + 100
        emulator.release()
        got = await lab.read_ids(call, limit)
        assert len(set(got)) == len(got)
        await asyncio.wait({write})


async def test_what_is_in_work_is_bounded_in_bytes(lab: SimpleNamespace) -> None:
    model = ServiceModel(fixed_s=3600.0)
    async with (
        Emulator(model=model, max_processing_bytes=2_000_000) as emulator,
        lab.connect(emulator.address) as stub,
    ):
        call = stub.Classify()
        sent = await pump(call, lab.request(lab.item("x", bytes(602_112))), 100)
        assert sent < 40
        assert emulator.deployments.all()[0].backlog <= 4


@pytest.mark.parametrize("delayed", [False, True])
async def test_the_sink_reads_no_further_than_it_may_write(lab: SimpleNamespace, delayed: bool) -> None:
    model = ServiceModel(fixed_s=3600.0) if delayed else ServiceModel()
    async with Emulator(sink=True, model=model) as emulator, lab.connect(emulator.address) as stub:
        call = stub.Classify()
        message = lab.request(*(lab.item(f"{n:060}") for n in range(200)))
        assert await pump(call, message, 2_000) < 2_000
        await lab.until(lambda: emulator.live_streams == 0)
