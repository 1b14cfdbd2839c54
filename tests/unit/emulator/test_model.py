"""The service model: times and refusals as values."""

from __future__ import annotations

import pytest

from athena_async.emulator import ServiceModel
from athena_async.emulator.model import ServiceQueue
from athena_async.errors import ConfigError


def finish_times(model: ServiceModel, arrivals: list[tuple[float, int, int]]) -> list[float | None]:
    queue = ServiceQueue(model)
    return [queue.accept(now, images, size) for now, images, size in arrivals]


def test_default_answers_at_once() -> None:
    assert finish_times(ServiceModel(), [(5.0, 10, 100)]) == [5.0]


def test_fixed_and_per_image_cost() -> None:
    assert ServiceModel(fixed_s=0.5, per_image_s=0.1).service_time_s(4) == pytest.approx(0.9)


def test_images_beyond_the_knee_cost_more() -> None:
    model = ServiceModel(per_image_s=1.0, knee_images=32, knee_factor=4.0)
    assert model.service_time_s(32) == 32.0
    assert model.service_time_s(34) == 32.0 + 8.0


def test_requests_queue_for_the_servers_there_are() -> None:
    model = ServiceModel(fixed_s=1.0, parallelism=2)
    assert finish_times(model, [(0.0, 1, 0)] * 5) == [1.0, 1.0, 2.0, 2.0, 3.0]


def test_an_idle_server_begins_when_the_request_comes() -> None:
    assert finish_times(ServiceModel(fixed_s=1.0, parallelism=1), [(0.0, 1, 0), (10.0, 1, 0)]) == [1.0, 11.0]


def test_without_parallelism_nothing_queues() -> None:
    assert finish_times(ServiceModel(fixed_s=1.0), [(0.0, 1, 0)] * 3) == [1.0, 1.0, 1.0]


def test_bandwidth_lets_requests_in_one_after_another() -> None:
    model = ServiceModel(bandwidth_bytes_per_s=1000.0)
    assert finish_times(model, [(0.0, 1, 500), (0.0, 1, 500), (5.0, 1, 1000)]) == [0.5, 1.0, 6.0]


def test_queue_limit_refuses_and_recovers() -> None:
    queue = ServiceQueue(ServiceModel(fixed_s=1.0, queue_limit_images=10))
    assert queue.accept(0.0, 6, 0) == 1.0
    assert queue.accept(0.5, 5, 0) is None
    assert queue.accept(0.5, 4, 0) == 1.5
    assert queue.accept(1.0, 5, 0) == 2.0
    assert queue.images(3.0) == 0


def test_a_starting_deployment_finishes_nothing_before_it_is_ready() -> None:
    assert ServiceQueue(ServiceModel(startup_s=3.0)).accept(0.0, 1, 0, ready_s=3.0) == 3.0


def test_the_model_may_change_between_requests() -> None:
    queue = ServiceQueue(ServiceModel(fixed_s=1.0, parallelism=1))
    assert queue.accept(0.0, 1, 0) == 1.0
    queue.model = ServiceModel(fixed_s=20.0, parallelism=1)
    assert queue.accept(0.0, 1, 0) == 21.0


@pytest.mark.parametrize(
    "fields",
    [
        {"fixed_s": -1.0},
        {"parallelism": 0},
        {"knee_images": 0},
        {"knee_factor": 0.0},
        {"bandwidth_bytes_per_s": 0.0},
        {"queue_limit_images": 0},
    ],
)
def test_wrong_values_are_refused_by_name(fields: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"model.{next(iter(fields))}"):
        ServiceModel(**fields)  # type: ignore[arg-type]
