"""Recovery against its promises, whatever happens in whatever order."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from athena_async.config import RetryConfig
from athena_async.streams.recovery import RETENTION_S, LatencyEstimate, Recovery
from athena_async.streams.ticket import Ticket
from tests.unit.streams.fakes import ticket

GRACE_S = 2.0
GRACE_MAX_S = 20.0


class RecoveryMachine(RuleBasedStateMachine):
    """Notes for each orphan what happened since its loss, in the words of the promise."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.counter = 0
        self.reading = False
        self.recovery = Recovery(RetryConfig(grace_min_s=GRACE_S, grace_max_s=GRACE_MAX_S), LatencyEstimate())
        self.orphans: dict[Ticket, float] = {}
        self.gone: set[Ticket] = set()
        self.read_since_s: float | None = None
        self.last_word: dict[Ticket, int | None] = {}

    @rule(count=st.integers(1, 4))
    def lose(self, count: int) -> None:
        lost = [ticket(f"id-{self.counter + i}") for i in range(count)]
        self.counter += count
        self.orphans.update(dict.fromkeys(lost, self.now))
        self.recovery.orphan(lost, self.now)

    @rule(is_reading=st.booleans())
    def read(self, is_reading: bool) -> None:
        if is_reading != self.reading:
            self.read_since_s = self.now if is_reading else None
        self.reading = is_reading
        self.recovery.reading(is_reading, self.now)

    @rule(count=st.sampled_from([None, 0, 0, 1, 7]))
    def hear_backlog(self, count: int | None) -> None:
        for orphan in self.orphans:
            self.last_word[orphan] = count
        self.recovery.backlog(count, self.now)

    @rule(seconds=st.sampled_from([0.01, 0.5, 1.0, 2.0, 10.0, 30.0, 1800.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def stall(self) -> None:
        self.now += 30.0
        if self.reading:
            self.read_since_s = self.now
        self.recovery.stalled(self.now)

    @precondition(lambda self: self.orphans)
    @rule(data=st.data(), by_answer=st.booleans())
    def settle(self, data: st.DataObject, by_answer: bool) -> None:
        one = data.draw(st.sampled_from(list(self.orphans)))
        left = self.recovery.answered(one, self.now) if by_answer else self.recovery.discard(one)
        assert left
        del self.orphans[one]
        self.gone.add(one)

    @rule()
    def ask(self) -> None:
        for one in self.recovery.due(self.now):
            assert one not in self.gone, "an image that left became due"
            lost_s = self.orphans.pop(one)
            self.gone.add(one)
            assert self.reading, "due though nobody reads"
            assert self.read_since_s is not None
            read_s = self.now - max(lost_s, self.read_since_s)
            if self.now - lost_s <= RETENTION_S:
                assert read_s >= GRACE_S, "due within the grace"
                assert self.last_word.get(one, 1) in (0, None), "due while the deployment holds answers, or unasked"

    @invariant()
    def every_orphan_is_there_once(self) -> None:
        found = self.recovery.tickets()
        assert len(found) == len(self.recovery) == len(self.orphans)
        assert set(found) == set(self.orphans)

    def teardown(self) -> None:
        """Nothing is kept for ever: with streams read and an empty deployment all of it becomes due."""
        self.read(True)
        self.hear_backlog(0)
        self.now += GRACE_S
        assert set(self.recovery.due(self.now)) == set(self.orphans)


RecoveryMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestRecovery = RecoveryMachine.TestCase
