"""What the batch controller answers: bounds for the next batch, and its own state for the curious."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """Bounds on what is sent next.

    Attributes:
        images: most images of the next batch.
        size_bytes: most bytes of the next batch, but for a single image that is larger.
        in_flight: batches that the endpoint may have unanswered.
    """

    images: int
    size_bytes: int
    in_flight: int


@dataclass(frozen=True, slots=True)
class ControllerState:
    """A controller as `AthenaClient.stats` shows it.

    Attributes:
        images, size_bytes, in_flight: the plan.
        per_image_s, per_batch_s: fit of an endpoint's time for a batch of n, ``per_image_s * n + per_batch_s``;
            with several batches in flight this is the time between two answers.
        baseline_s: least latency of the last 10 to 20 s; 0.0 before any.
        latency_p95_s: estimate at the present plan; 0.0 before any.
        images_per_s: throughput at the present plan; 0.0 before any.
        application_limited: the last batch had room left, so nothing was learnt from it.
        decreases: how often latency or the server made it reduce the plan.
        reason: of the last change.
    """

    images: int
    size_bytes: int
    in_flight: int
    per_image_s: float
    per_batch_s: float
    baseline_s: float
    latency_p95_s: float
    images_per_s: float
    application_limited: bool
    decreases: int
    reason: str
