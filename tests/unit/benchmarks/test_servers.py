"""What links and servers cost, as values; and that child processes end with their parent."""

from __future__ import annotations

import grpc
import pytest

from athena_async import wire
from athena_async.emulator import ServiceModel
from benchmarks import children, hand_rolled
from benchmarks.proxy import TokenBucket
from benchmarks.server import Pace

pytestmark = pytest.mark.anyio

BASE = ServiceModel(fixed_s=1.0, per_image_s=0.1)


def test_a_bucket_lets_a_burst_pass_and_then_its_rate() -> None:
    bucket = TokenBucket(bytes_per_s=1000, burst_bytes=500)
    assert bucket.take(500, now_s=10.0) == 0.0
    assert bucket.take(1000, now_s=10.0) == pytest.approx(1.0)
    assert bucket.take(1000, now_s=10.0) == pytest.approx(2.0)


def test_a_bucket_that_rested_holds_no_more_than_its_burst() -> None:
    bucket = TokenBucket(bytes_per_s=1000, burst_bytes=500)
    bucket.take(500, now_s=0.0)
    assert bucket.take(1500, now_s=1000.0) == pytest.approx(1.0)


def test_a_factor_multiplies_every_cost() -> None:
    model = Pace(factor=20.0).model(BASE, passed_s=3.0)
    assert (model.fixed_s, model.per_image_s) == (20.0, 2.0)


@pytest.mark.parametrize(("passed_s", "expected"), [(0.0, 1.0), (5.0, 3.0), (10.0, 5.0), (999.0, 5.0)])
def test_a_drift_rises_and_stays(passed_s: float, expected: float) -> None:
    assert Pace(drift_factor=5.0, drift_s=10.0).model(BASE, passed_s).fixed_s == pytest.approx(expected)


async def test_a_child_serves_heeds_commands_and_ends_with_its_block() -> None:
    message = wire.single_request(wire.frame_input("bench", "one", wire.Payload(b"x", wire.ImageFormat.PNG)))
    async with children.start("benchmarks.server", '{"fixed_s": 0.001}') as child:
        child.send(factor=2)
        async with hand_rolled.connections(child.endpoint, 1) as channels:
            assert len(await hand_rolled.unary(channels[0], message, 3)) == 3
            child.send(hang=1)
            call = channels[0].unary_unary(wire.CLASSIFY_SINGLE)

            async def until_it_hangs() -> None:
                while True:
                    await call(message, timeout=0.5)

            with pytest.raises(grpc.aio.AioRpcError, match="DEADLINE_EXCEEDED"):
                await until_it_hangs()
    assert child.process.returncode == 0


async def test_a_proxy_carries_both_ways() -> None:
    message = wire.single_request(wire.frame_input("bench", "one", wire.Payload(b"x" * 100_000, wire.ImageFormat.PNG)))
    link = ("--mbit-per-s", "400", "--latency-ms", "1")
    async with (
        children.start("benchmarks.server") as server,
        children.start("benchmarks.proxy", "--to", server.endpoint, *link) as proxy,
        hand_rolled.connections(proxy.endpoint, 1) as channels,
    ):
        assert min(await hand_rolled.unary(channels[0], message, 3)) > 0.002
