"""The policy behind ``auto``, against a simulated link: a token bucket behind gRPC's write buffers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from athena_async.config import RAW_FRAME_BYTES
from athena_async.images.encoding import EncodingPolicy

MBIT = 1e6 / 8
WEBP_BYTES = int(0.45 * RAW_FRAME_BYTES)
STEP_S = 0.005


@dataclass
class Writer:
    """One stream: a buffer of 3.7 MB below, and the write in hand, which ends once it fits in."""

    buffered: float = 0.0
    pending: float = 0.0
    size: int = 0
    began: float = 0.0


@dataclass
class Link:
    """Images flow from two preparing threads through a bounded queue and two writers into a link."""

    bytes_per_s: Callable[[float], float]
    offered_per_s: Callable[[float], float] = lambda _: 1e9
    read_per_s: float = 1e9
    policy: EncodingPolicy = field(default_factory=EncodingPolicy)
    changes: list[tuple[float, str]] = field(default_factory=list)
    delivered: float = 0.0
    now: float = 0.0

    def run(self, seconds: float, *, always: str | None = None) -> Link:
        queue: deque[int] = deque()
        writers = [Writer(), Writer()]
        credit, read_credit, choice = 0.0, 0.0, "none"
        while self.now < seconds:
            self.now += STEP_S
            asked = always or self.policy.choose(self.now)
            if asked != choice:
                choice = asked
                self.changes.append((self.now, choice))
            size, cost_s = (RAW_FRAME_BYTES, 0.003) if choice == "none" else (WEBP_BYTES, 0.0075)
            credit = min(credit + STEP_S * min(2 / cost_s, self.offered_per_s(self.now)), 4)
            while credit >= 1 and len(queue) < 16:
                credit -= 1
                queue.append(size)
                self.policy.observe_frame(RAW_FRAME_BYTES, size, cost_s)
            read_credit = min(read_credit + STEP_S * self.read_per_s * size, 1e12)
            read_credit -= self._drain(writers, min(self.bytes_per_s(self.now) * STEP_S, read_credit), size)
            self._write(writers, queue)
        return self

    def _drain(self, writers: list[Writer], tokens: float, size: int) -> float:
        drained = 0.0
        for writer in sorted(writers, key=lambda w: w.buffered):
            part = min(writer.buffered, (tokens - drained) / (1 if drained else 2))
            writer.buffered -= part
            drained += part
        self.delivered += drained / size
        return drained

    def _write(self, writers: list[Writer], queue: deque[int]) -> None:
        for writer in writers:
            if not writer.pending and queue:
                batch = [queue.popleft() for _ in range(min(6, len(queue)))]
                writer.pending = writer.size = sum(batch)
                writer.began = self.now
            fits = min(writer.pending, 3.7e6 - writer.buffered)
            writer.pending -= fits
            writer.buffered += fits
            if writer.size and not writer.pending:
                self.policy.observe_batch(writer.size, self.now - writer.began, self.now)
                writer.size = 0


def constant(value: float) -> Callable[[float], float]:
    return lambda _: value


def test_a_narrow_link_gets_webp_and_more_images() -> None:
    auto = Link(constant(50 * MBIT)).run(60)
    raw = Link(constant(50 * MBIT)).run(60, always="none")
    assert auto.policy.choose(60) == "webp"
    assert auto.changes[0][0] < 3
    assert len(auto.changes) == 1
    assert auto.delivered >= 1.6 * raw.delivered


@pytest.mark.parametrize("mbit", [5_000, 10_000, 100_000])
def test_a_link_that_keeps_up_stays_raw(mbit: int) -> None:
    link = Link(constant(mbit * MBIT)).run(60)
    assert link.changes == []
    assert link.policy.snapshot().encoding == "none"


def test_a_narrow_link_with_few_images_stays_raw() -> None:
    assert Link(constant(50 * MBIT), offered_per_s=constant(5)).run(60).changes == []


def test_a_link_that_worsens_gets_webp_soon() -> None:
    link = Link(lambda now: (10_000 if now < 20 else 50) * MBIT).run(40)
    assert [choice for _, choice in link.changes] == ["webp"]
    assert 20 < link.changes[0][0] < 25


def test_a_link_that_improves_gets_raw_again_and_keeps_it() -> None:
    link = Link(lambda now: (50 if now < 20 else 10_000) * MBIT).run(90)
    assert [choice for _, choice in link.changes] == ["webp", "none"]
    assert 20 < link.changes[1][0] < 40


def test_fewer_images_get_raw_again() -> None:
    link = Link(constant(50 * MBIT), offered_per_s=lambda now: 1e9 if now < 20 else 4).run(60)
    assert [choice for _, choice in link.changes] == ["webp", "none"]


def test_a_slow_server_is_not_taken_for_a_slow_link_for_long() -> None:
    link = Link(constant(10_000 * MBIT), read_per_s=20).run(120)
    in_webp_s = sum(
        (link.changes[i + 1][0] if i + 1 < len(link.changes) else 120) - at
        for i, (at, choice) in enumerate(link.changes)
        if choice == "webp"
    )
    assert in_webp_s < 40
    assert len(link.changes) <= 8


@pytest.mark.parametrize("mbit", [20, 100, 300, 600, 900, 1200, 1600, 2400])
def test_it_does_not_flap_and_never_costs_much(mbit: int) -> None:
    auto = Link(constant(mbit * MBIT)).run(120)
    best = max(Link(constant(mbit * MBIT)).run(120, always=choice).delivered for choice in ("none", "webp"))
    assert len(auto.changes) <= 12
    assert auto.delivered >= 0.85 * best


def test_without_the_codec_it_stays_raw() -> None:
    assert Link(constant(50 * MBIT), policy=EncodingPolicy(webp=False)).run(20).changes == []


def test_a_pause_or_two_are_no_evidence() -> None:
    """The first wait says that buffers are full; two more are wanted."""
    policy = EncodingPolicy()
    for step in range(100):
        policy.observe_batch(3_600_000, 0.001, step / 10)
    choices = []
    for now in (11.5, 13.0, 14.5):
        policy.observe_batch(3_600_000, 1.5, now)
        choices.append(policy.choose(now))
    assert choices == ["none", "none", "webp"]


def test_hash_only_frames_do_not_count_as_well_compressed() -> None:
    """Were they taken for pixels that shrink to nothing, few images on a narrow link would seem to fit in raw."""
    link = Link(constant(50 * MBIT))
    for _ in range(1000):
        link.policy.observe_frame(RAW_FRAME_BYTES, 0, 0.0)
    link.run(30)
    assert [choice for _, choice in link.changes] == ["webp"]


def test_the_snapshot_tells_choice_reason_and_rate() -> None:
    snapshot = Link(constant(50 * MBIT)).run(10).policy.snapshot()
    assert snapshot.encoding == "webp"
    assert snapshot.reason == "the network is slow: WebP brings more images"
    assert snapshot.link_bytes_per_s == pytest.approx(50 * MBIT, rel=0.5)
    assert 0.5 < snapshot.waiting_fraction <= 1
