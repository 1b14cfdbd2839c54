from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from athena_async.channels.health import HealthBoard
from athena_async.channels.pool import Pool
from athena_async.config import BreakerConfig, MiB, PoolConfig


@dataclass
class Lane:
    """A channel as plain values."""

    channel_id: int
    endpoint: str = "a:1"
    outstanding_bytes: int = 0
    outstanding_images: int = 0
    created_s: float = 0.0
    used_s: float = 0.0
    stalled: bool = False
    ready: bool = True

    def __repr__(self) -> str:
        return f"#{self.channel_id}"


class Bench:
    """A pool, and the fleet around it in few lines: `adjust` opens and closes what it is told to."""

    def __init__(self, *endpoints: str, seed: int = 1, **config: object) -> None:
        self.config = PoolConfig(**{"max_age_s": 0.0, **config})  # type: ignore[arg-type]
        self.endpoints = endpoints or ("a:1",)
        rng = random.Random(seed)
        self.health = HealthBoard(self.endpoints, BreakerConfig(), rng)
        self.pool: Pool[Lane] = Pool(self.endpoints, self.config, self.health, rng)
        self.opened: list[Lane] = []
        self.drained: list[tuple[int, str]] = []

    def adjust(self, now: float = 0.0, *, waiting: bool = True, ready: bool = True) -> None:
        resize = self.pool.adjust(now, waiting=waiting)
        for endpoint in resize.open:
            lane = Lane(len(self.opened) + 1, endpoint, created_s=now, ready=ready)
            self.opened.append(lane)
            self.pool.add(lane, now)
        self.drained.extend((lane.channel_id, reason) for lane, reason in resize.drain)

    def end_drained(self) -> None:
        """The lanes that were drained finish what they carried."""
        for lane in self.pool.lanes():
            if lane.channel_id in dict(self.drained):
                self.pool.remove(lane)

    def ids(self) -> list[int]:
        return [lane.channel_id for lane in self.pool.lanes()]

    def pick(self, now: float = 0.0) -> int | None:
        lane = self.pool.pick(now, self.pool.endpoints)
        return None if lane is None else lane.channel_id


# --- how many ---


def test_without_work_nothing_is_opened_and_with_work_what_is_configured() -> None:
    bench = Bench("a:1", "b:1", channels=2)
    bench.adjust(waiting=False)
    assert bench.ids() == []
    bench.adjust()
    assert [lane.endpoint for lane in bench.opened] == ["a:1", "a:1", "b:1", "b:1"]
    bench.adjust()
    assert len(bench.pool) == 4


def test_a_lane_that_ended_is_replaced_only_for_work() -> None:
    bench = Bench(channels=2)
    bench.adjust()
    bench.pool.remove(bench.opened[0])
    bench.adjust(waiting=False)
    assert bench.ids() == [2]
    bench.adjust()
    assert bench.ids() == [2, 3]


def test_does_not_grow_for_a_lane_that_hangs() -> None:
    bench = Bench(channels=1, max_channels=3, grow_unacked_bytes=8 * MiB)
    bench.adjust()
    bench.opened[0].outstanding_bytes, bench.opened[0].stalled = 8 * MiB, True
    bench.adjust()
    assert len(bench.pool) == 1
    bench.opened[0].stalled = False
    bench.adjust()
    assert len(bench.pool) == 2


def test_grows_one_at_a_time_while_every_lane_is_full_and_images_wait() -> None:
    bench = Bench(channels=1, max_channels=3, grow_unacked_bytes=8 * MiB)
    bench.adjust()
    bench.opened[0].outstanding_bytes = 8 * MiB
    bench.adjust(waiting=False)
    assert len(bench.pool) == 1, "nothing waits"
    bench.adjust()
    assert len(bench.pool) == 2
    bench.adjust()
    assert len(bench.pool) == 2, "the new one is empty"
    for lane in bench.opened:
        lane.outstanding_bytes = 8 * MiB
    for _ in range(5):
        bench.adjust()
        for lane in bench.opened:
            lane.outstanding_bytes = 8 * MiB
    assert len(bench.pool) == 3, "never more than max_channels"


def test_each_endpoint_grows_by_itself() -> None:
    bench = Bench("a:1", "b:1", channels=1)
    bench.adjust()
    bench.opened[0].outstanding_bytes = bench.config.grow_unacked_bytes
    bench.adjust()
    assert [lane.endpoint for lane in bench.pool.lanes()] == ["a:1", "b:1", "a:1"]


def grown(bench: Bench, now: float = 0.0) -> None:
    bench.adjust(now)
    for lane in bench.opened:
        lane.outstanding_bytes = bench.config.grow_unacked_bytes
    bench.adjust(now)


def test_shrinks_to_the_configured_size_after_quiet_the_emptiest_first() -> None:
    bench = Bench(channels=1)
    grown(bench)
    bench.opened[0].outstanding_bytes, bench.opened[1].outstanding_bytes = 100, 0
    bench.adjust(29.0, waiting=False)
    assert bench.drained == []
    bench.adjust(31.0, waiting=False)
    assert bench.drained == [(2, "idle")]
    bench.end_drained()
    bench.adjust(500.0, waiting=False)
    assert bench.ids() == [1], "never below the configured number"


def test_a_busy_lane_keeps_a_grown_pool() -> None:
    bench = Bench(channels=1)
    grown(bench)
    bench.opened[0].outstanding_bytes = bench.config.grow_unacked_bytes // 2
    for second in range(0, 300, 10):
        bench.adjust(float(second), waiting=False)
    assert bench.drained == []
    bench.opened[0].outstanding_bytes = 0
    bench.adjust(319.0, waiting=False)
    assert bench.drained == []
    bench.adjust(321.0, waiting=False)
    assert len(bench.drained) == 1


# --- renewal ---


def test_ages_are_spread_around_the_configured_one() -> None:
    expired_s = []
    for seed in range(200):
        bench = Bench(channels=1, max_age_s=1000.0, seed=seed)
        bench.adjust()
        second = 700.0
        while not any(member.retiring for member in bench.pool._members.values()):
            second += 10.0
            bench.pool.adjust(second, waiting=False)
        expired_s.append(second)
    assert 800.0 <= min(expired_s) < 850.0
    assert 1150.0 < max(expired_s) <= 1210.0


def test_age_zero_never_renews() -> None:
    bench = Bench(channels=1, max_age_s=0.0)
    bench.adjust()
    bench.adjust(1e9)
    assert (bench.ids(), bench.drained) == ([1], [])


def test_the_new_lane_is_ready_before_the_old_one_drains() -> None:
    bench = Bench(channels=1)
    bench.adjust()
    bench.pool.retire(bench.opened[0], "certificate changed")
    bench.adjust(1.0, waiting=False, ready=False)
    assert (bench.ids(), bench.drained) == ([1, 2], [])
    assert bench.pick() == 1, "the old one serves until then"
    bench.opened[1].ready = True
    assert bench.pick() == 2, "and no longer"
    bench.adjust(2.0, waiting=False)
    assert bench.drained == [(1, "certificate changed")]
    bench.end_drained()
    bench.adjust(3.0, waiting=False)
    assert bench.ids() == [2]


def test_another_lane_of_the_endpoint_is_no_replacement() -> None:
    bench = Bench(channels=2)
    bench.adjust()
    bench.pool.retire(bench.opened[0], "age")
    bench.adjust(1.0, waiting=False, ready=False)
    bench.opened[1].ready = True
    bench.adjust(2.0, waiting=False, ready=False)
    assert (bench.ids(), bench.drained) == ([1, 2, 3], []), "its replacement is not connected yet"
    bench.opened[2].ready = True
    bench.adjust(3.0, waiting=False)
    assert bench.drained == [(1, "age")]


def test_all_that_retire_at_once_are_drained_one_by_one_as_they_are_replaced() -> None:
    bench = Bench(channels=2)
    bench.adjust()
    for lane in list(bench.opened):
        bench.pool.retire(lane, "renewed")
    bench.adjust(1.0, waiting=False, ready=False)
    bench.opened[2].ready = True
    bench.adjust(2.0, waiting=False)
    assert bench.drained == [(1, "renewed")]
    bench.end_drained()
    bench.opened[3].ready = True
    bench.adjust(3.0, waiting=False)
    assert bench.drained[-1] == (2, "renewed")


def test_retiring_twice_keeps_the_first_reason_and_a_stranger_is_harmless() -> None:
    bench = Bench(channels=1)
    bench.adjust()
    bench.pool.retire(bench.opened[0], "going away")
    bench.pool.retire(bench.opened[0], "again")
    bench.pool.retire(Lane(99), "unknown")
    bench.pool.remove(Lane(99))
    bench.pool.answered(Lane(99), 0.1, 0.0)
    bench.adjust(1.0)
    bench.adjust(1.0)
    assert set(bench.drained) == {(1, "going away")}


def test_replacements_do_not_pile_up_while_none_gets_ready() -> None:
    bench = Bench(channels=2)
    bench.adjust()
    for lane in bench.opened:
        bench.pool.retire(lane, "going away")
    for second in range(50):
        bench.adjust(float(second), ready=False)
    assert len(bench.pool) == 4


def test_one_endpoints_new_lane_does_not_drain_anothers_old_one() -> None:
    bench = Bench("a:1", "b:1", channels=1)
    bench.adjust()
    for lane in list(bench.opened):
        bench.pool.retire(lane, "renewed")
    bench.adjust(1.0, ready=False)
    next(lane for lane in bench.opened[2:] if lane.endpoint == "a:1").ready = True
    bench.adjust(2.0)
    assert bench.drained == [(1, "renewed")]


# --- which ---


def test_takes_turns_among_lanes_that_are_ready() -> None:
    bench = Bench(channels=3)
    bench.adjust()
    assert sorted(str(bench.pick()) for _ in range(6)) == ["1", "1", "2", "2", "3", "3"]
    bench.opened[0].ready = False
    assert {bench.pick() for _ in range(4)} == {2, 3}
    assert bench.pool.pick(0.0, ()) is None


def test_only_endpoints_with_room_are_picked() -> None:
    bench = Bench("a:1", "b:1", channels=1)
    bench.adjust()
    picked = [bench.pool.pick(0.0, ("b:1",)) for _ in range(4)]
    assert picked == 4 * [bench.opened[1]]


def test_no_lane_of_an_ejected_endpoint_is_picked() -> None:
    bench = Bench("a:1", "b:1", "c:1", channels=1)
    bench.adjust()
    for _ in range(3):
        bench.health.failed("b:1", "refused", 0.0)
    assert {bench.pick(0.1) for _ in range(6)} == {1, 3}


def test_a_retiring_lane_serves_only_while_its_endpoint_has_no_other() -> None:
    bench = Bench("a:1", "b:1", channels=1)
    bench.adjust()
    bench.pool.retire(bench.opened[0], "age")
    assert {bench.pick() for _ in range(4)} == {1, 2}
    bench.adjust(1.0)
    assert {bench.pick() for _ in range(6)} == {2, 3}


def test_the_least_loaded_of_two_wins() -> None:
    bench = Bench(channels=2, balancer="least_loaded")
    bench.adjust()
    bench.opened[0].outstanding_bytes = 10 * MiB
    assert {bench.pick() for _ in range(10)} == {2}


def test_latency_counts_for_the_least_loaded() -> None:
    bench = Bench(channels=2, balancer="least_loaded")
    bench.adjust()
    slow, fast = bench.opened
    slow.outstanding_bytes = fast.outstanding_bytes = MiB
    bench.pool.answered(slow, 1.0, 0.0)
    bench.pool.answered(fast, 0.01, 0.0)
    assert {bench.pick(0.1) for _ in range(10)} == {2}


@pytest.mark.parametrize("waiting", [True, False])
def test_adjusting_without_a_change_changes_nothing(waiting: bool) -> None:
    bench = Bench("a:1", "b:1", channels=2)
    bench.adjust()
    for second in range(100):
        bench.adjust(float(second), waiting=waiting)
    assert (bench.ids(), bench.drained) == ([1, 2, 3, 4], [])


def test_repr_shows_the_lanes() -> None:
    bench = Bench(channels=2)
    assert repr(bench.pool) == "Pool(no channels)"
    bench.adjust()
    assert repr(bench.pool) == "Pool(#1, #2)"
