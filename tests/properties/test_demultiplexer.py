"""The demultiplexer against a model of what each answer means."""

from __future__ import annotations

from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from athena_async.streams.demultiplexer import CorrelationIds, Demultiplexer
from athena_async.streams.ticket import Ticket
from tests.unit.streams.fakes import batch_of, good, ticket

REMEMBERED = 3
CHOSEN = st.sampled_from(["a", "b", "c", "d", "e", "f"])


class DemultiplexerMachine(RuleBasedStateMachine):
    """Users choose a few ids and use them again; the rest are made."""

    def __init__(self) -> None:
        super().__init__()
        self.ids = CorrelationIds("own")
        self.table = Demultiplexer(self.ids.prefix, remembered=REMEMBERED)
        self.open: dict[str, Ticket] = {}
        self.made: list[str] = []
        self.settled: deque[str] = deque()

    @rule(chosen=st.none() | CHOSEN)
    def register(self, chosen: str | None) -> None:
        one = ticket(chosen or self.ids.next())
        taken = self.table.register(one)
        assert taken is (one.correlation_id not in self.open)
        if taken:
            self.open[one.correlation_id] = one
        if chosen is None:
            self.made.append(one.correlation_id)

    @rule(data=st.data())
    def send(self, data: st.DataObject) -> None:
        unsent = [one for one in self.open.values() if not one.attempts]
        if unsent:
            batch_of([data.draw(st.sampled_from(unsent))])

    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        if self.open:
            name = data.draw(st.sampled_from(sorted(self.open)))
            self.table.forget(self.open.pop(name))
            if name not in self.made:
                if name in self.settled:
                    self.settled.remove(name)
                self.settled.append(name)
                while len(self.settled) > REMEMBERED:
                    self.settled.popleft()

    @rule(data=st.data())
    def route(self, data: st.DataObject) -> None:
        known = CHOSEN | st.sampled_from(self.made) if self.made else CHOSEN
        names = data.draw(st.lists(known | st.sampled_from(["theirs", "own", ""]), max_size=8))
        routed = self.table.route([good(name) for name in names])
        matched, foreign, late_count = [], [], 0
        for name in names:
            if name in self.open and self.open[name].attempts and name not in matched:
                matched.append(name)
            elif name in matched or name in self.made or name in self.settled:
                late_count += 1
            else:
                foreign.append(name)
        assert [(one.correlation_id, answer.correlation_id) for one, answer in routed.matched] == [
            (name, name) for name in matched
        ]
        assert all(one is self.open[one.correlation_id] for one, _ in routed.matched)
        assert routed.late_count == late_count
        assert [answer.correlation_id for answer in routed.foreign] == foreign
        assert len(routed.matched) + routed.late_count + len(routed.foreign) == len(names), "none is dropped"

    @invariant()
    def the_open_ones_are_open(self) -> None:
        assert self.table.open_tickets() == list(self.open.values())
        assert len(self.table) == len(self.open)


DemultiplexerMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestDemultiplexer = DemultiplexerMachine.TestCase
