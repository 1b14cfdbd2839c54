"""From inputs to outputs: the checks of the service, the scores, the audit. Knows nothing of streams."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from athena_async._proto.athena import models_pb2
from athena_async.config import MAX_ID_LENGTH
from athena_async.emulator.audit import CLASSIFIED, AuditLog, AuditRecord, Rpc
from athena_async.emulator.auth import Affiliates
from athena_async.emulator.clock import Clock
from athena_async.emulator.config import Behaviour
from athena_async.emulator.decoding import Refusal, decode, decompress, unreadable
from athena_async.emulator.expected import ExpectedOutputs
from athena_async.emulator.faults import Faults
from athena_async.emulator.known import KnownHashes, is_digest
from athena_async.emulator.scoring import BENIGN_CLASSES, LIVE_CLASSES, score
from athena_async.errors import ErrorCode
from athena_async.results import Classification

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_HASH_KINDS = {models_pb2.HASH_TYPE_MD5: "md5", models_pb2.HASH_TYPE_SHA1: "sha1"}


class Caller(NamedTuple):
    """On whose behalf, and how, inputs came."""

    client: str
    rpc: Rpc
    deployment_id: str | None


@dataclass(slots=True)
class Work:
    """One input on its way. ``refusal`` is why it gets an error; without one it is to be scored."""

    input: models_pb2.ClassificationInput = field(repr=False)
    correlation_id: str
    affiliate: str
    size_bytes: int
    refusal: Refusal | None = None
    admitted: bool = False
    classifications: tuple[Classification, ...] = ()

    @classmethod
    def of(cls, item: models_pb2.ClassificationInput) -> Work:
        return cls(item, item.correlation_id, item.affiliate, len(item.data))

    def output(self) -> models_pb2.ClassificationOutput:
        if self.refusal is not None:
            return models_pb2.ClassificationOutput(correlation_id=self.correlation_id, error=error_of(self.refusal))
        return models_pb2.ClassificationOutput(
            correlation_id=self.correlation_id,
            classifications=[models_pb2.Classification(label=c.label, weight=c.weight) for c in self.classifications],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Processor:
    """Scores inputs and writes the audit.

    Attributes:
        executor: where images are decoded, so that the event loop stays free.
    """

    affiliates: Affiliates
    known: KnownHashes
    expected: ExpectedOutputs | None
    faults: Faults
    behaviour: Behaviour
    max_image_bytes: int
    clock: Clock
    audit: AuditLog
    executor: Executor

    def affiliate_refusal(self, client: str, works: Sequence[Work]) -> Refusal | None:
        """Why a request fails for an affiliate, by the first that is not permitted."""
        for work in works:
            if not self.affiliates.permits(client, work.affiliate):
                return Refusal(
                    ErrorCode.AFFILIATE_NOT_PERMITTED,
                    f"Affiliate ID '{work.affiliate}' is not permitted for this client "
                    "or does not have Athena enabled.",
                )
        return None

    async def process(self, works: Sequence[Work]) -> None:
        """Scores what is not refused yet, in place, and lets go of the image data.

        A cancelled call leaves some works unscored.
        """
        pending = [work for work in works if work.refusal is None]
        for work in pending:
            work.refusal = self.faults.image_error()
        if any(work.size_bytes for work in pending):
            await asyncio.get_running_loop().run_in_executor(self.executor, self._score_all, pending)
        else:
            self._score_all(pending)

    def record(self, caller: Caller, works: Sequence[Work], outcome: str | None = None) -> None:
        """Writes the audit of works that are at their end; ``outcome`` where it is not their answer."""
        now = self.clock.now()
        self.audit.add(
            AuditRecord(
                at=now,
                client=caller.client,
                affiliate=work.affiliate,
                deployment=caller.deployment_id,
                correlation_id=work.correlation_id,
                size_bytes=work.size_bytes,
                outcome=outcome or (work.refusal.code.value if work.refusal else CLASSIFIED),
                rpc=caller.rpc,
                billed=outcome is None and work.refusal is None,
            )
            for work in works
        )

    def _score_all(self, works: Sequence[Work]) -> None:
        for work in works:
            if work.refusal is None:
                try:
                    work.classifications = self._score(work.input)
                except Refusal as refusal:
                    work.refusal = refusal
            work.input.Clear()

    def _score(self, item: models_pb2.ClassificationInput) -> tuple[Classification, ...]:
        """Known hashes first; after a match, or without data, the model is not asked."""
        if not item.data and not item.hashes:
            raise unreadable("the input has neither data nor hashes")
        matches = self._known_matches(item.hashes)
        if not item.data or any(match.weight for match in matches):
            return matches
        data = decompress(item.data, item.encoding, self.max_image_bytes)
        pixels = decode(data, item.format, strict=self.behaviour.strict_format)
        found = self._expected_output(item, pixels)
        classes = BENIGN_CLASSES if self.behaviour.classes == "benign" else LIVE_CLASSES
        return (found or score(pixels, classes)) + matches

    def _expected_output(
        self, item: models_pb2.ClassificationInput, pixels: NDArray[np.uint8]
    ) -> tuple[Classification, ...] | None:
        if self.expected is None:
            return None
        return self.expected.by_hashes(found.value for found in item.hashes) or self.expected.by_pixels(pixels)

    def _known_matches(self, hashes: Sequence[models_pb2.ImageHash]) -> tuple[Classification, ...]:
        """KnownCSAM labels for the kinds of hash that were sent, 1 where any of the kind is known."""
        found: dict[str, float] = {}
        for item in hashes:
            kind = _HASH_KINDS.get(item.type)
            if kind is None:
                continue
            if not is_digest(kind, item.value):
                raise unreadable(f"a hash is no {kind.upper()} digest in hexadecimal")
            found[kind] = max(found.get(kind, 0.0), float(item.value in self.known))
        return tuple(Classification(f"KnownCSAM-{kind.upper()}", found[kind]) for kind in sorted(found))


def correlation_refusal(correlation_id: str) -> Refusal | None:
    """Why a correlation id is invalid in itself."""
    if 1 <= len(correlation_id) <= MAX_ID_LENGTH:
        return None
    return Refusal(
        ErrorCode.CORRELATION_ID_INVALID,
        f"The correlation id has {len(correlation_id)} characters; it must have 1 to {MAX_ID_LENGTH}.",
    )


def deployment_refusal(deployment_id: str) -> Refusal | None:
    """Why a deployment id is invalid."""
    if 1 <= len(deployment_id) <= MAX_ID_LENGTH:
        return None
    return Refusal(
        ErrorCode.DEPLOYMENT_ID_INVALID,
        f"The deployment id has {len(deployment_id)} characters; it must have 1 to {MAX_ID_LENGTH}.",
    )


def error_of(refusal: Refusal) -> models_pb2.ClassificationError:
    return models_pb2.ClassificationError(
        code=models_pb2.ErrorCode.Value(f"ERROR_CODE_{refusal.code}"), message=refusal.message
    )
