"""What links and server profiles cost, as values; and that child processes end with their parent."""

from __future__ import annotations

import pytest

from benchmarks import children
from benchmarks.profiles import Cost
from benchmarks.proxy import TokenBucket

pytestmark = pytest.mark.anyio


def test_a_bucket_lets_a_burst_pass_and_then_its_rate() -> None:
    bucket = TokenBucket(bytes_per_s=1000, burst_bytes=500)
    assert bucket.take(500, now_s=10.0) == 0.0
    assert bucket.take(1000, now_s=10.0) == pytest.approx(1.0)
    assert bucket.take(1000, now_s=10.0) == pytest.approx(2.0)


def test_a_bucket_that_rested_holds_no_more_than_its_burst() -> None:
    bucket = TokenBucket(bytes_per_s=1000, burst_bytes=500)
    bucket.take(500, now_s=0.0)
    assert bucket.take(1500, now_s=1000.0) == pytest.approx(1.0)


def test_costs_add_up() -> None:
    cost = Cost(fixed_s=1.0, per_item_s=0.1, knee=32, per_item_over_s=1.0, factor=2.0)
    assert cost.of(32, now_s=0.0) == pytest.approx(8.4)
    assert cost.of(34, now_s=0.0) == pytest.approx(2 * (1.0 + 3.4 + 2.0))


@pytest.mark.parametrize(("now_s", "expected"), [(90.0, 1.0), (105.0, 3.0), (110.0, 5.0), (999.0, 5.0)])
def test_a_drift_rises_and_stays(now_s: float, expected: float) -> None:
    cost = Cost(fixed_s=1.0, drift_factor=5.0, drift_s=10.0, drift_from_s=100.0)
    assert cost.of(1, now_s) == pytest.approx(expected)


async def test_a_child_ends_when_the_block_is_left() -> None:
    async with children.start("benchmarks.profiles", "--fixed-s", "0.001") as child:
        assert child.endpoint.startswith("127.0.0.1:")
        child.send(hang=1)
        process = child.process
    assert process.returncode == 0
