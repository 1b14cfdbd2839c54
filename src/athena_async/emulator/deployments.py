"""Deployments: who shares which answers, and for how long. Pure: the time is an argument.

A deployment is opened by its first request. Its answers go to whichever of its streams asks next,
are kept for an hour at most, and are gone once taken: there is no acknowledgement. Without activity
for 24 hours it is removed with all that it holds. Sources: the service's API guide and its guides
for integrators ("Response and Deployment Lifecycle").
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from athena_async.results import DeploymentInfo

ANSWER_LIFETIME_S = 3600.0
IDLE_LIFETIME_S = 24 * 3600.0

Callback = Callable[[], None]


@dataclass(slots=True, eq=False)
class Origin:
    """The stream that asked. It may end once it has half-closed and nothing of it is unanswered."""

    wake: Callback
    unanswered: int = 0
    half_closed: bool = False

    @property
    def finished(self) -> bool:
        return self.half_closed and self.unanswered <= 0

    def settle(self, count: int) -> None:
        self.unanswered -= count
        if self.finished:
            self.wake()


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """A response that waits for a stream.

    Attributes:
        message: the serialized ClassifyResponse.
        correlation_ids: the inputs that it answers.
        origin: the stream that asked, and its ``input_count`` inputs that are settled with this response.
        kept_at_s: since when it is kept.
    """

    message: bytes = field(repr=False)
    correlation_ids: tuple[str, ...]
    origin: Origin | None
    input_count: int
    kept_at_s: float


class Deployment:
    """One deployment of one client.

    Invariants: an id is in ``_unanswered`` from its admission until its answer is taken, dropped or
    expired; each kept response is taken by one stream; streams that wait for an answer are served in
    the order in which they began to wait.

    Attributes:
        backlog: inputs whose answer has not been taken yet, be it unfinished or kept.
        ready_s: before this time, in seconds of the event loop, nothing is finished: it starts.
        generation: rises when everything is purged; work begun before then has nowhere to go.
        asleep: removed, while streams are still attached.
    """

    def __init__(self, client: str, deployment_id: str, now_s: float, ready_s: float) -> None:
        self.client = client
        self.deployment_id = deployment_id
        self.last_activity_s = now_s
        self.ready_s = ready_s
        self.generation = 0
        self.stream_count = 0
        self.asleep = False
        self.expired_count = 0
        self.backlog = 0
        self._unanswered: dict[str, int] = {}
        self._kept: deque[Kept] = deque()
        self._waiting: deque[Callback] = deque()
        self._crowded: list[Callback] = []

    @property
    def kept_count(self) -> int:
        """Responses that wait for a stream."""
        return len(self._kept)

    def is_unanswered(self, correlation_id: str) -> bool:
        return correlation_id in self._unanswered

    def admit(self, correlation_id: str) -> None:
        """Takes an input in; its answer is owed from now on."""
        self._unanswered[correlation_id] = self._unanswered.get(correlation_id, 0) + 1
        self.backlog += 1

    def keep(self, kept: Kept) -> None:
        """Keeps a response and wakes the stream that has waited longest."""
        self._kept.append(kept)
        self.pass_on()

    def take(self, now_s: float) -> Kept | None:
        """Hands out the oldest response that has not expired, and forgets it."""
        self._expire_answers(now_s)
        if not self._kept:
            return None
        kept = self._kept.popleft()
        self.last_activity_s = max(self.last_activity_s, now_s)
        self.settle(kept.correlation_ids, kept.origin, kept.input_count)
        return kept

    def settle(self, correlation_ids: Iterable[str], origin: Origin | None, input_count: int) -> None:
        """Owes these inputs no answer any more: it was taken, lost on purpose, or has expired."""
        for correlation_id in correlation_ids:
            left = self._unanswered.pop(correlation_id, 0) - 1
            self.backlog -= left >= 0
            if left > 0:
                self._unanswered[correlation_id] = left
        if origin is not None:
            origin.settle(input_count)
        self._report_room()

    def wait(self, callback: Callback) -> None:
        """Puts a stream at the end of the line for answers. Its callback is called once."""
        self._waiting.append(callback)

    def wait_for_room(self, callback: Callback) -> None:
        """Calls back once when something has been settled."""
        self._crowded.append(callback)

    def unwait(self, callback: Callback) -> None:
        """Takes a stream out of the line, wherever it is."""
        self._waiting = deque(waiting for waiting in self._waiting if waiting is not callback)

    def leave(self, callback: Callback) -> None:
        """As `unwait`; an answer that the stream was woken for goes to the next one."""
        self.unwait(callback)
        self.pass_on()

    def pass_on(self) -> None:
        """Wakes one waiting stream where there is an answer for it."""
        if self._kept and self._waiting:
            self._waiting.popleft()()

    def wake_all(self) -> None:
        """Wakes every waiting stream, so that each looks at the state again."""
        waiting, self._waiting = self._waiting, deque()
        for callback in waiting:
            callback()

    def remove(self) -> None:
        """Purges everything; streams that are still attached sleep until a request wakes the deployment."""
        self.generation += 1
        self.asleep = True
        kept, self._kept = self._kept, deque()
        self._unanswered.clear()
        self.backlog = 0
        for response in kept:
            if response.origin is not None:
                response.origin.settle(response.input_count)
        self._report_room()

    def _report_room(self) -> None:
        crowded, self._crowded = self._crowded, []
        for callback in crowded:
            callback()

    def _expire_answers(self, now_s: float) -> None:
        while self._kept and now_s - self._kept[0].kept_at_s >= ANSWER_LIFETIME_S:
            kept = self._kept.popleft()
            self.expired_count += kept.input_count
            self.settle(kept.correlation_ids, kept.origin, kept.input_count)

    def expire(self, now_s: float) -> bool:
        """Drops what is too old; returns whether the deployment itself is."""
        self._expire_answers(now_s)
        return now_s - self.last_activity_s >= IDLE_LIFETIME_S

    def __repr__(self) -> str:
        return (
            f"Deployment({self.deployment_id!r}, backlog={self.backlog}, kept={self.kept_count}, "
            f"streams={self.stream_count})"
        )


class Deployments:
    """All deployments, by client and id. Emulators that are given the same instance share them."""

    def __init__(self) -> None:
        self._all: dict[tuple[str, str], Deployment] = {}

    def open(self, client: str, deployment_id: str, now_s: float, ready_s: float = 0.0) -> Deployment:
        """The client's deployment of this id; started where there is none.

        Args:
            ready_s: until when a deployment that starts now gives no answers.
        """
        self.expire(now_s)
        found = self._all.get((client, deployment_id))
        if found is None:
            found = self._all[client, deployment_id] = Deployment(client, deployment_id, now_s, ready_s)
        elif found.asleep:
            found.asleep, found.ready_s = False, ready_s
        found.last_activity_s = max(found.last_activity_s, now_s)
        return found

    def listed(self, client: str, now_s: float) -> list[DeploymentInfo]:
        """What ListDeployments answers: the client's own, oldest first."""
        self.expire(now_s)
        return [
            DeploymentInfo(found.deployment_id, found.backlog)
            for found in self._all.values()
            if found.client == client and not found.asleep
        ]

    def all(self) -> list[Deployment]:
        """Every client's, those asleep among them."""
        return list(self._all.values())

    def expire(self, now_s: float) -> None:
        """Drops answers past their hour and deployments past their day."""
        for key, found in list(self._all.items()):
            if found.expire(now_s) and not found.asleep:
                found.remove()
            if found.asleep and not found.stream_count:
                del self._all[key]

    def __len__(self) -> int:
        return sum(not found.asleep for found in self._all.values())

    def __repr__(self) -> str:
        return f"Deployments({len(self)})"
