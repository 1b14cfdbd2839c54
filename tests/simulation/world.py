"""A service that loses, repeats, reorders and holds back answers, and cuts streams, as its seed says."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from athena_async.errors import ClassificationError, ErrorCode
from athena_async.results import Classification
from athena_async.testing import FakeAthena, FakeStream
from athena_async.wire import Answer, Input, ServiceError, write_response


@dataclass(frozen=True, slots=True)
class Weather:
    """How bad it is. Fractions are of answers.

    Attributes:
        latency_s: least and most seconds of processing.
        travel_s: most seconds that a response is under way; it is lost when its stream is cut meanwhile.
        replayed: answers that come a second time, later.
        foreign: answers to other clients, mixed in.
        omitted: answers that never come.
    """

    latency_s: tuple[float, float] = (0.01, 0.2)
    travel_s: float = 0.05
    replayed: float = 0.0
    foreign: float = 0.0
    omitted: float = 0.0


class StormyAthena(FakeAthena):
    """Invariants: what is lost is counted in ``lost_count``; every chance is drawn from the one ``rng``."""

    def __init__(self, weather: Weather, rng: random.Random) -> None:
        super().__init__(latency_s=lambda: rng.uniform(*weather.latency_s))
        self.lost_count = 0
        self.replayed_count = 0
        self.foreign_count = 0
        self.omitted_count = 0
        self._weather = weather
        self._rng = rng
        self._past: deque[Answer] = deque(maxlen=1000)

    def forget(self) -> None:
        """Answers kept too long are gone, as the service's are after an hour."""
        self.lost_count += len(self.kept)
        self.kept.clear()

    def send(self, answers: Sequence[Answer], global_error: ServiceError | None = None) -> bool:
        if not self.streams:
            return False
        mixed = self._mix(answers)
        self._rng.shuffle(mixed)
        while mixed:
            size = self._rng.randint(1, len(mixed))
            part, mixed = mixed[:size], mixed[size:]
            stream = self._rng.choice(self.streams)
            delay_s = self._rng.uniform(0, self._weather.travel_s)
            asyncio.get_running_loop().call_later(delay_s, self._arrive, stream, part)
        return True

    def _mix(self, answers: Sequence[Answer]) -> list[Answer]:
        mixed: list[Answer] = []
        for answer in answers:
            if self._rng.random() < self._weather.omitted:
                self.omitted_count += 1
                continue
            mixed.append(answer)
            self._past.append(answer)
            if self._rng.random() < self._weather.replayed:
                self.replayed_count += 1
                mixed.append(self._rng.choice(self._past))
            if self._rng.random() < self._weather.foreign:
                self.foreign_count += 1
                name = f"other-{self.foreign_count}"
                mixed.append(Answer(name, (Classification("UnknownCSAM-Goose", 0.5),), None))
        return mixed

    def _arrive(self, stream: FakeStream, part: Sequence[Answer]) -> None:
        if stream in self.streams:
            stream.put(write_response(part))
        else:
            self.lost_count += len(part)


class PoisonedAthena(StormyAthena):
    """Answers a request that holds an input of the affiliate ``bad`` with one global error, which names nobody."""

    def __init__(self, weather: Weather, rng: random.Random, error: ServiceError) -> None:
        super().__init__(weather, rng)
        self.error = error
        self.global_count = 0
        self._answer = self._weigh

    def _weigh(self, given: Input) -> dict[str, float] | ClassificationError:
        if given.affiliate == "bad":
            return ClassificationError(ErrorCode.AFFILIATE_NOT_PERMITTED, "Affiliate ID 'bad' is not permitted")
        return {"UnknownCSAM-Ducks": 1.0}

    def received(self, inputs: Sequence[Input]) -> None:
        if all(given.affiliate != "bad" for given in inputs):
            super().received(inputs)
            return
        delay_s = self._rng.uniform(*self._weather.latency_s)
        asyncio.get_running_loop().call_later(delay_s, self._refuse_all)

    def _refuse_all(self) -> None:
        self.global_count += 1
        if self.streams:
            self._rng.choice(self.streams).put(write_response((), self.error))


class ForgetfulAthena(StormyAthena):
    """Its backlog is of somebody else: it never says that it holds nothing."""

    @property
    def backlog(self) -> int:
        return super().backlog + 7
