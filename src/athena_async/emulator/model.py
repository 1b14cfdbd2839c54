"""The service model: how long a request takes and when the service refuses more. Pure values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from athena_async import _check as check


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceModel:
    """How fast the emulated service is. The default answers as fast as it can.

    Latencies are real seconds, whatever the clock of the lifetimes.

    Attributes:
        fixed_s: cost of a request, whatever it holds.
        per_image_s: cost of each image.
        knee_images: from this image of a request on, each costs ``knee_factor`` times as much; None has no knee.
        knee_factor: see ``knee_images``.
        parallelism: requests served at a time; the others queue. None serves all at once.
        bandwidth_bytes_per_s: requests arrive one after another over a link of this rate; None is unlimited.
        queue_limit_images: images accepted and not finished beyond which a request is refused with
            RESOURCE_EXHAUSTED; None never refuses.
        startup_s: how much later the first answers of a deployment come.
    """

    fixed_s: float = 0.0
    per_image_s: float = 0.0
    knee_images: int | None = None
    knee_factor: float = 4.0
    parallelism: int | None = None
    bandwidth_bytes_per_s: float | None = None
    queue_limit_images: int | None = None
    startup_s: float = 0.0

    def __post_init__(self) -> None:
        check.not_negative("model.fixed_s", self.fixed_s)
        check.not_negative("model.per_image_s", self.per_image_s)
        check.not_negative("model.startup_s", self.startup_s)
        check.positive("model.knee_factor", self.knee_factor)
        for name in ("knee_images", "parallelism", "queue_limit_images"):
            if getattr(self, name) is not None:
                check.count(f"model.{name}", getattr(self, name), 1)
        if self.bandwidth_bytes_per_s is not None:
            check.positive("model.bandwidth_bytes_per_s", self.bandwidth_bytes_per_s)

    @property
    def instant(self) -> bool:
        """Whether no request ever waits or is refused."""
        return not (self.fixed_s or self.per_image_s or self.startup_s) and (
            self.bandwidth_bytes_per_s is None and self.queue_limit_images is None
        )

    def service_time_s(self, image_count: int) -> float:
        """Seconds that one server spends on a request of ``image_count`` images."""
        slow = max(0, image_count - self.knee_images) if self.knee_images is not None else 0
        return self.fixed_s + self.per_image_s * (image_count - slow + slow * self.knee_factor)


class _Job(NamedTuple):
    finish_s: float
    image_count: int


class ServiceQueue:
    """When each request will be finished, under a `ServiceModel`.

    Invariants: a server is busy with one request at a time; requests begin in the order of their
    arrival; the images counted against the queue limit are those of requests that are not finished.
    """

    def __init__(self, model: ServiceModel) -> None:
        self.model = model
        self._link_free_s = 0.0
        self._servers_free_s: list[float] = []
        self._jobs: list[_Job] = []

    def images(self, now_s: float) -> int:
        """Images accepted and not finished at ``now_s``."""
        self._jobs = [job for job in self._jobs if job.finish_s > now_s]
        return sum(job.image_count for job in self._jobs)

    def accept(self, now_s: float, image_count: int, size_bytes: int, ready_s: float = 0.0) -> float | None:
        """Takes a request.

        Args:
            now_s: when it came, in the seconds of any one monotonic clock.
            ready_s: before this time nothing is finished (a deployment that starts).

        Returns:
            When it will be finished, or None where it is refused for the queue limit.
        """
        model = self.model
        if model.instant:
            return max(now_s, ready_s)
        if model.queue_limit_images is not None and self.images(now_s) + image_count > model.queue_limit_images:
            return None
        begin_s = self._server_free_s(self._arrival_s(now_s, size_bytes))
        finish_s = begin_s + model.service_time_s(image_count)
        if model.parallelism is not None:
            self._servers_free_s.append(finish_s)
        if model.queue_limit_images is not None:
            self._jobs.append(_Job(max(finish_s, ready_s), image_count))
        return max(finish_s, ready_s)

    def _arrival_s(self, now_s: float, size_bytes: int) -> float:
        rate = self.model.bandwidth_bytes_per_s
        if rate is None:
            return now_s
        self._link_free_s = max(now_s, self._link_free_s) + size_bytes / rate
        return self._link_free_s

    def _server_free_s(self, arrival_s: float) -> float:
        servers = self.model.parallelism
        if servers is None:
            return arrival_s
        busy = self._servers_free_s = sorted(self._servers_free_s)[-servers:]
        return arrival_s if len(busy) < servers else max(arrival_s, busy.pop(0))
