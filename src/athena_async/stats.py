"""What `AthenaClient.stats` shows: a picture of one moment."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from athena_async.batching.controller import ControllerState
from athena_async.channels.health import EndpointHealth
from athena_async.engine import Engine
from athena_async.errors import ErrorCode
from athena_async.resilience.retry import BudgetState
from athena_async.results import Outcome


@dataclass(frozen=True, slots=True)
class ChannelStats:
    """One channel: where it leads, its stream's state, and what is unanswered on it."""

    endpoint: str
    channel_id: int
    state: str
    batches: int
    images: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ClientStats:
    """The client at one moment.

    Attributes:
        deployment_id: the deployment in use.
        accepted_count, settled_count: images over the client's life, without those of `classify_single`; their
            difference is in flight.
        outcomes, errors: settled images by outcome, and by code of their error.
        in_flight_bytes: bytes held for images in flight: originals and frames.
        preparing_count, ready_count, sent_count, orphan_count: where those in flight are: in preprocessing,
            waiting for a channel, on a stream, or possibly sent on a stream that was lost.
        resent_count: images handed to the network again; each may have been billed again.
        late_count: answers to images that were settled already.
        foreign_count, foreign_dropped_count: answers to other clients; those that nobody took in time.
        sent_bytes: what was written to the network.
        encoding, encoding_reason: what preprocessing makes of pixels now, and why.
        backlog: answers that wait in the deployment, as it last said to a probe or to `AthenaClient.list_deployments`;
            None where it was not asked yet.
        controllers: the adaptive batcher's state by endpoint.
        endpoints: health by endpoint.
        channels: all channels.
        retry_budget: resends left.
    """

    deployment_id: str
    accepted_count: int
    settled_count: int
    outcomes: Mapping[Outcome, int]
    errors: Mapping[ErrorCode, int]
    in_flight_bytes: int
    preparing_count: int
    ready_count: int
    sent_count: int
    orphan_count: int
    resent_count: int
    late_count: int
    foreign_count: int
    foreign_dropped_count: int
    sent_bytes: int
    encoding: str
    encoding_reason: str
    backlog: int | None
    controllers: Mapping[str, ControllerState]
    endpoints: tuple[EndpointHealth, ...]
    channels: tuple[ChannelStats, ...]
    retry_budget: BudgetState


def client_stats(engine: Engine) -> ClientStats:
    """The engine at this moment."""
    flow = engine.flow
    totals, now = flow.settlement.totals, asyncio.get_running_loop().time()
    sessions = flow.fleet.pool.lanes()
    orphan_count = len(flow.arbiter.recovery)
    return ClientStats(
        deployment_id=flow.deployment_id,
        accepted_count=totals.accepted_count,
        settled_count=totals.settled_count,
        outcomes=dict(totals.outcomes),
        errors=dict(totals.errors),
        in_flight_bytes=flow.limit.size_bytes,
        preparing_count=len(engine.preparation),
        ready_count=len(flow.batcher),
        sent_count=sum(batch.open_count for session in sessions for batch in session.batches),
        orphan_count=orphan_count,
        resent_count=totals.resent_count,
        late_count=totals.late_count,
        foreign_count=totals.foreign_count,
        foreign_dropped_count=totals.foreign_dropped_count,
        sent_bytes=totals.sent_bytes,
        encoding=flow.encoding_now(),
        encoding_reason=flow.encoding_reason,
        backlog=flow.backlog,
        controllers={endpoint: controller.snapshot() for endpoint, controller in flow.controllers.items()},
        endpoints=flow.health.snapshot(now),
        channels=tuple(
            ChannelStats(s.endpoint, s.channel_id, s.state, len(s.batches), s.outstanding_images, s.outstanding_bytes)
            for s in sessions
        ),
        retry_budget=flow.budget.snapshot(),
    )
