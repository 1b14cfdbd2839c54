"""Endpoint health under any course of events: somebody is always eligible, and ejections keep their times."""

from __future__ import annotations

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from athena_async.channels.health import Ejection, EndpointState, HealthBoard
from athena_async.config import BreakerConfig

INDEX = st.integers(0, 6)


class HealthMachine(RuleBasedStateMachine):
    """Failures, successes, probes and health checks in any order."""

    @initialize(
        count=st.integers(1, 7), failures=st.integers(1, 4), panic=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
        seed=st.integers(0, 99),
    )  # fmt: skip
    def build(self, count: int, failures: int, panic: float, seed: int) -> None:
        self.endpoints = tuple(f"host{n}:443" for n in range(count))
        self.config = BreakerConfig(failures=failures, panic_fraction=panic)
        self.board = HealthBoard(self.endpoints, self.config, random.Random(seed))
        self.now = 0.0
        self.probes: set[str] = set()

    def endpoint(self, index: int) -> str:
        return self.endpoints[index % len(self.endpoints)]

    def check(self, ejection: Ejection | None) -> None:
        if ejection is not None:
            assert self.config.ejection_base_s <= ejection.ejected_s <= self.config.ejection_max_s
            assert self.board.state(ejection.endpoint, self.now) is EndpointState.OPEN

    @rule(index=INDEX)
    def failed(self, index: int) -> None:
        endpoint = self.endpoint(index)
        was = self.board.state(endpoint, self.now)
        ejection = self.board.failed(endpoint, "reset", self.now)
        self.check(ejection)
        self.probes.discard(endpoint)
        if was is EndpointState.HALF_OPEN:
            assert ejection is not None, "a failed probe ejects again"

    @rule(index=INDEX)
    def succeeded(self, index: int) -> None:
        endpoint = self.endpoint(index)
        was = self.board.state(endpoint, self.now)
        closed = self.board.succeeded(endpoint, self.now)
        assert not (closed and was is EndpointState.CLOSED)
        if was is EndpointState.HALF_OPEN:
            assert self.board.state(endpoint, self.now) is EndpointState.CLOSED
            self.probes.discard(endpoint)

    @rule(index=INDEX, seconds=st.floats(0.0001, 10.0))
    def answered(self, index: int, seconds: float) -> None:
        self.check(self.board.answered(self.endpoint(index), seconds, 10, self.now))

    @rule(index=INDEX)
    def send(self, index: int) -> None:
        endpoint = self.endpoint(index)
        if endpoint not in self.board.eligible(self.now):
            return
        if self.board.state(endpoint, self.now) is EndpointState.HALF_OPEN and not self.in_panic():
            assert endpoint not in self.probes, "one probe at a time"
            self.probes.add(endpoint)
        self.board.probe_started(endpoint, self.now)

    @rule(index=INDEX)
    def drop_probe(self, index: int) -> None:
        self.board.probe_dropped(self.endpoint(index))
        self.probes.discard(self.endpoint(index))

    @rule(index=INDEX, alive=st.booleans())
    def health_checked(self, index: int, alive: bool) -> None:
        endpoint = self.endpoint(index)
        before = self.board.state(endpoint, self.now)
        self.board.health_checked(endpoint, alive, self.now)
        if self.board.state(endpoint, self.now) is EndpointState.CLOSED:
            assert before is EndpointState.CLOSED, "only batches close a breaker"

    @rule(seconds=st.floats(0.0, 400.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    def in_panic(self) -> bool:
        closed = [e for e in self.endpoints if self.board.state(e, self.now) is EndpointState.CLOSED]
        return len(closed) < self.config.panic_fraction * len(self.endpoints)

    @invariant()
    def somebody_is_closed_and_all_closed_are_eligible(self) -> None:
        closed = {e for e in self.endpoints if self.board.state(e, self.now) is EndpointState.CLOSED}
        assert closed
        assert closed <= set(self.board.eligible(self.now))

    @invariant()
    def ejected_ones_get_nothing_but_in_a_panic(self) -> None:
        eligible = self.board.eligible(self.now)
        if self.in_panic():
            assert eligible == self.endpoints
        else:
            assert all(self.board.state(e, self.now) is not EndpointState.OPEN for e in eligible)

    @invariant()
    def next_change_is_when_one_opens(self) -> None:
        wait_s = self.board.next_change_s(self.now)
        opened = [e for e in self.endpoints if self.board.state(e, self.now) is EndpointState.OPEN]
        assert (wait_s is None) == (not opened)
        if wait_s is not None:
            assert 0.0 < wait_s <= self.config.ejection_max_s
            half = [e for e in opened if self.board.state(e, self.now + wait_s + 1e-6) is EndpointState.HALF_OPEN]
            assert half


HealthMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestHealth = HealthMachine.TestCase
