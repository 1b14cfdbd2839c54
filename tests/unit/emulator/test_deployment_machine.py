"""A deployment against the simplest model of it: whatever happens, each answer is taken once or expires."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from athena_async.emulator.deployments import ANSWER_LIFETIME_S, Deployment, Kept, Origin


class DeploymentMachine(RuleBasedStateMachine):
    """Streams come and go, inputs are admitted and answered, time passes."""

    streams = Bundle("streams")

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.deployment = Deployment("client", "d", 0.0, 0.0)
        self.serial = 0
        self.working: dict[str, Origin] = {}
        self.waiting: dict[str, tuple[float, Origin]] = {}
        self.done: list[str] = []
        self.origins: list[Origin] = []
        self.woken: set[int] = set()
        self.in_line: set[int] = set()

    @rule(target=streams)
    def connect(self) -> int:
        number = len(self.origins)
        self.origins.append(Origin(lambda: None))
        return number

    @rule(stream=streams)
    def send(self, stream: int) -> None:
        self.serial += 1
        correlation_id = f"{self.serial}"
        self.deployment.admit(correlation_id)
        self.origins[stream].unanswered += 1
        self.working[correlation_id] = self.origins[stream]

    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        if self.working:
            correlation_id = data.draw(st.sampled_from(sorted(self.working)))
            origin = self.working.pop(correlation_id)
            self.waiting[correlation_id] = (self.now, origin)
            self.deployment.keep(Kept(b"", (correlation_id,), origin, 1, self.now))

    @rule()
    def take(self) -> None:
        fresh = [name for name, (at, _) in self.waiting.items() if self.now - at < ANSWER_LIFETIME_S]
        kept = self.deployment.take(self.now)
        assert (kept.correlation_ids[0] if kept else None) == (fresh[0] if fresh else None)
        self.expire()
        if kept:
            del self.waiting[kept.correlation_ids[0]]
            self.done.append(kept.correlation_ids[0])

    @rule(seconds=st.floats(0.0, 2000.0))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.deployment.expire(self.now)
        self.expire()

    def expire(self) -> None:
        for name, (at, _) in list(self.waiting.items()):
            if self.now - at >= ANSWER_LIFETIME_S:
                del self.waiting[name]

    @rule(stream=streams)
    def wait_in_line(self, stream: int) -> None:
        if stream not in self.in_line and not self.deployment.kept_count:
            self.in_line.add(stream)
            self.deployment.wait(lambda: self.wake(stream))

    def wake(self, stream: int) -> None:
        assert stream in self.in_line
        self.in_line.discard(stream)
        self.woken.add(stream)

    @invariant()
    def owes_what_is_in_work_or_waits(self) -> None:
        assert self.deployment.backlog == len(self.working) + len(self.waiting)
        assert self.deployment.kept_count == len(self.waiting)
        owed = [*self.working.values(), *(origin for _, origin in self.waiting.values())]
        assert all(origin.unanswered == sum(other is origin for other in owed) for origin in self.origins)

    @invariant()
    def takes_nothing_twice(self) -> None:
        assert len(set(self.done)) == len(self.done)


TestDeploymentMachine = DeploymentMachine.TestCase
TestDeploymentMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
