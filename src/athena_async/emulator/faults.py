"""The fault plan: what goes wrong, how often, by which seed; changeable while the emulator runs.

Each kind of fault draws from a sequence of its own, made of the seed and its name: whether the 17th
request is dropped does not depend on what else goes wrong, nor on timing.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Literal, get_args

from athena_async import _check as check
from athena_async.emulator.decoding import Refusal
from athena_async.errors import ConfigError, ErrorCode

FaultKind = Literal[
    "refuse",
    "expired_tokens",
    "token_errors",
    "drop_streams",
    "half_close",
    "blackhole",
    "goaway",
    "delay",
    "global_errors",
    "omit",
    "duplicate",
    "reorder",
    "foreign",
    "image_errors",
]
FAULT_KINDS: tuple[FaultKind, ...] = get_args(FaultKind)

_SERVICE_CODES = tuple(
    code.value
    for code in (
        ErrorCode.UNSPECIFIED,
        ErrorCode.IMAGE_TOO_LARGE,
        ErrorCode.MODEL_ERROR,
        ErrorCode.AFFILIATE_NOT_PERMITTED,
        ErrorCode.DEPLOYMENT_ID_INVALID,
        ErrorCode.CORRELATION_ID_INVALID,
    )
)
_STATUS_CODES = (
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultPlan:
    """What goes wrong. Each kind of fault is a probability, 0 to 1, per occasion.

    Attributes:
        seed: the same seed and the same occasions give the same faults.
        refuse: per call; it ends with ``refuse_code`` before anything is read.
        expired_tokens: per call; a token that counts is taken for expired (UNAUTHENTICATED).
        token_errors: per request to the token endpoint; answered 503.
        drop_streams: per request; the stream ends with ``drop_code`` after the request was read.
        half_close: per request; the service ends the stream with OK, whatever is unanswered.
        blackhole: per request; the stream stays open, but is neither read nor written any more.
        goaway: per request; every connection is told to go away, and a new listener takes its place.
        delay: per request; its answers come ``delay_s`` later.
        global_errors: per request; it is answered with one global error and not processed.
        omit: per response; it is never sent, though its inputs were processed and billed.
        duplicate: per response; it is sent twice.
        reorder: per response; its outputs are shuffled, and it comes ``reorder_s`` later.
        foreign: per response; an answer to an input that nobody here sent goes before it.
        image_errors: per input; it is answered with ``image_error_code`` and not processed.
        drop_loses_request: the request that a dropped stream ended on is lost, and not processed.
    """

    seed: int = 0
    refuse: float = 0.0
    expired_tokens: float = 0.0
    token_errors: float = 0.0
    drop_streams: float = 0.0
    half_close: float = 0.0
    blackhole: float = 0.0
    goaway: float = 0.0
    delay: float = 0.0
    global_errors: float = 0.0
    omit: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    foreign: float = 0.0
    image_errors: float = 0.0
    refuse_code: str = "UNAVAILABLE"
    drop_code: str = "UNAVAILABLE"
    drop_loses_request: bool = False
    delay_s: float = 1.0
    reorder_s: float = 0.05
    global_error_code: str = "UNSPECIFIED"
    image_error_code: str = "MODEL_ERROR"

    def __post_init__(self) -> None:
        for kind in FAULT_KINDS:
            check.between(f"faults.{kind}", getattr(self, kind), 0.0, 1.0)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise ConfigError("faults.seed", self.seed, "a whole number")
        if not isinstance(self.drop_loses_request, bool):
            raise ConfigError("faults.drop_loses_request", self.drop_loses_request, "true or false")
        check.choice("faults.refuse_code", self.refuse_code, _STATUS_CODES)
        check.choice("faults.drop_code", self.drop_code, _STATUS_CODES)
        check.choice("faults.global_error_code", self.global_error_code, _SERVICE_CODES)
        check.choice("faults.image_error_code", self.image_error_code, _SERVICE_CODES)
        check.not_negative("faults.delay_s", self.delay_s)
        check.not_negative("faults.reorder_s", self.reorder_s)

    def changed(self, changes: Mapping[str, object]) -> FaultPlan:
        """The plan with other values for the fields named.

        Raises:
            ConfigError: no such field, or no such value.
        """
        names = [field.name for field in fields(self)]
        for name in changes:
            if name not in names:
                raise ConfigError("faults: field", name, "one of " + ", ".join(names))
        return replace(self, **changes)  # type: ignore[arg-type]


class Faults:
    """The plan in force, its dice, and the faults asked for by hand.

    Invariant: ``counts`` holds every fault that was ever dealt, by kind.
    """

    def __init__(self, plan: FaultPlan | None = None) -> None:
        self._plan = plan or FaultPlan()
        self._dice: dict[FaultKind, random.Random] = {}
        self._due: Counter[FaultKind] = Counter()
        self.counts: Counter[FaultKind] = Counter()

    @property
    def plan(self) -> FaultPlan:
        return self._plan

    @plan.setter
    def plan(self, plan: FaultPlan) -> None:
        """Puts a plan in force at once; another seed begins new sequences."""
        if plan.seed != self._plan.seed:
            self._dice.clear()
        self._plan = plan

    def update(self, **changes: object) -> FaultPlan:
        """Changes fields of the plan in force.

        Raises:
            ConfigError: no such field, or no such value.
        """
        self.plan = self._plan.changed(changes)
        return self._plan

    def inject(self, kind: FaultKind, times: int = 1) -> None:
        """Deals the fault on the next ``times`` occasions, whatever the plan says."""
        check.choice("kind", kind, FAULT_KINDS)
        check.count("times", times, 1)
        self._due[kind] += times

    def strikes(self, kind: FaultKind) -> bool:
        """Whether the fault happens on this occasion. Each call is one occasion."""
        probability: float = getattr(self._plan, kind)
        if self._due[kind]:
            self._due[kind] -= 1
        elif not probability or self._random(kind).random() >= probability:
            return False
        self.counts[kind] += 1
        return True

    def image_error(self) -> Refusal | None:
        """The injected error of an input, if it is to get one."""
        if not self.strikes("image_errors"):
            return None
        return Refusal(ErrorCode(self._plan.image_error_code), "Injected by the fault plan.")

    def shuffled(self, count: int) -> list[int]:
        """An order for the outputs of a response."""
        order = list(range(count))
        self._random("reorder").shuffle(order)
        return order

    def foreign_id(self) -> str:
        """A correlation id that nobody here sent."""
        return f"foreign-{self._random('foreign').getrandbits(64):016x}"

    def as_mapping(self) -> dict[str, object]:
        """The plan, the faults still due and those dealt, for the admin endpoint."""
        return {"plan": asdict(self._plan), "due": dict(+self._due), "dealt": dict(self.counts)}

    def _random(self, kind: FaultKind) -> random.Random:
        if kind not in self._dice:
            self._dice[kind] = random.Random(f"{self._plan.seed}:{kind}")  # noqa: S311 - faults, no secrets
        return self._dice[kind]

    def __repr__(self) -> str:
        active = {kind: value for kind in FAULT_KINDS if (value := getattr(self._plan, kind))}
        return f"Faults({active}, due={dict(+self._due)}, dealt={dict(self.counts)})"
