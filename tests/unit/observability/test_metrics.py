"""Events as Prometheus metrics."""

from __future__ import annotations

import gc
import re
from collections import defaultdict
from pathlib import Path

import pytest

pytest.importorskip("prometheus_client")

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.exposition import generate_latest

from athena_async import events
from athena_async.observability import metrics
from athena_async.observability.metrics import LARGEST_LABEL_COUNT, PrometheusObserver

from .conftest import ALL, CANARY_HASH, CANARY_TOKEN, ENDPOINT, OPENED

ROOT = Path(__file__).parents[3]
COMMON = {"deployment": "team-7", "affiliate": "acme"}


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def observed(registry: CollectorRegistry, *some: events.Event) -> PrometheusObserver:
    observer = PrometheusObserver(registry)
    for event in some:
        observer(event)
    return observer


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, COMMON | labels)


def test_every_event_is_counted(registry: CollectorRegistry) -> None:
    _observer = observed(registry, *ALL)
    at = {"endpoint": ENDPOINT}
    expected = {
        ("athena_images_accepted_total",): 50,
        ("athena_images_prepared_total",): 48,
        ("athena_images_unprepared_total",): 2,
        ("athena_source_bytes_total",): 5000,
        ("athena_frame_bytes_total",): 4000,
        ("athena_batches_sent_total", "endpoint", ENDPOINT): 1,
        ("athena_images_sent_total", "endpoint", ENDPOINT): 48,
        ("athena_images_resent_total", "endpoint", ENDPOINT): 3,
        ("athena_images_settled_total", "outcome", "CLASSIFIED"): 48,
        ("athena_images_settled_total", "outcome", "FAILED"): 2,
        ("athena_image_errors_total", "code", "INVALID_IMAGE"): 2,
        ("athena_images_recovered_total", "how", "answered"): 4,
        ("athena_images_recovered_total", "how", "resent"): 3,
        ("athena_images_left_total",): 2,
        ("athena_streams_opened_total", "endpoint", ENDPOINT): 1,
        ("athena_endpoint_ejections_total", "endpoint", ENDPOINT): 1,
        ("athena_endpoint_returns_total", "endpoint", ENDPOINT): 1,
        ("athena_pool_resizes_total", "endpoint", ENDPOINT): 1,
        ("athena_stray_answers_total", "kind", "late"): 1,
        ("athena_stray_answers_total", "kind", "foreign"): 2,
        ("athena_credentials_refreshed_total",): 1,
        ("athena_encoding_changes_total", "encoding", "webp"): 1,
    }
    for (name, *label), count in expected.items():
        assert value(registry, name, **dict([label] if label else [])) == count, name
    assert value(registry, "athena_streams_closed_total", **at, code="UNAUTHENTICATED") == 1
    assert value(registry, "athena_global_errors_total", **at, code="MODEL_ERROR") == 1
    assert value(registry, "athena_batch_latency_seconds_sum", **at) == pytest.approx(0.03)
    assert value(registry, "athena_batch_latency_seconds_bucket", **at, le="0.025") == 0
    assert value(registry, "athena_batch_latency_seconds_bucket", **at, le="0.05") == 1
    assert value(registry, "athena_batch_latency_seconds_count", **at) == 1
    assert value(registry, "athena_batch_bytes_bucket", **at, le="4096.0") == 1
    assert value(registry, "athena_preprocess_seconds_sum") == pytest.approx(0.02)
    assert value(registry, "athena_settle_latency_seconds_sum") == pytest.approx(0.06)


def test_every_event_has_a_reaction_and_every_metric_a_source(registry: CollectorRegistry) -> None:
    assert set(metrics._REACTIONS) == {type(event) for event in ALL}
    _observer = observed(registry, *ALL)
    silent = [family.name for family in registry.collect() if not family.samples]
    assert silent == []


def test_names_follow_the_rule(registry: CollectorRegistry) -> None:
    names = [*metrics._COUNTERS, *metrics._HISTOGRAMS]
    assert all(re.fullmatch(r"athena_[a-z_]+_(seconds|bytes|total)", name) for name in names)


def test_the_exposition_holds_no_canary(registry: CollectorRegistry) -> None:
    _observer = observed(registry, *ALL)
    text = generate_latest(registry).decode()
    assert 'athena_image_errors_total{affiliate="acme",code="INVALID_IMAGE",deployment="team-7"} 2.0' in text
    assert CANARY_TOKEN not in text
    assert CANARY_HASH not in text


def test_observers_share_a_registry_and_add_up(registry: CollectorRegistry) -> None:
    accepted = events.ImagesAccepted(1.0, 3)
    _first, _second = observed(registry, OPENED, accepted), observed(registry, OPENED, accepted)
    other = events.Opened(1.0, "team-8", "acme", False)
    _third = observed(registry, other, accepted)
    assert value(registry, "athena_images_accepted_total") == 6
    assert value(registry, "athena_images_accepted_total", deployment="team-8") == 3


def test_counters_never_go_back_when_an_observer_is_gone(registry: CollectorRegistry) -> None:
    for _ in range(3):
        observed(registry, *ALL)
        gc.collect()
    assert value(registry, "athena_images_accepted_total") == 150
    assert value(registry, "athena_batch_latency_seconds_count", endpoint=ENDPOINT) == 3
    assert len(metrics._collectors[registry]._live) == 0


def test_ids_of_the_clients_own_making_are_no_label(registry: CollectorRegistry) -> None:
    _observer = observed(registry, events.Opened(1.0, "made-up-8f2c", "acme", True), events.ImagesAccepted(1.0, 3))
    assert value(registry, "athena_images_accepted_total", deployment="") == 3


@pytest.mark.parametrize("label", ["deployment", "affiliate"])
def test_labels_are_bounded(registry: CollectorRegistry, label: str) -> None:
    for number in range(LARGEST_LABEL_COUNT + 10):
        given = {"deployment": "d", "affiliate": "a"} | {label: f"n-{number}"}
        opened = events.Opened(1.0, given["deployment"], given["affiliate"], False)
        observed(registry, opened, events.ImagesAccepted(1.0, 1))
    (family,) = [family for family in registry.collect() if family.name == "athena_images_accepted"]
    values = {sample.labels[label]: sample.value for sample in family.samples}
    assert len(values) <= LARGEST_LABEL_COUNT + 1
    assert values["other"] >= 10


def test_a_scrape_may_be_overtaken_by_a_busy_client() -> None:
    """Scrapes run in a thread: here the numbers grow at the very moment that they are added up."""
    busy, sums = metrics._Totals(("d", "a")), metrics._Totals(("d", "a"))
    busy.counts["athena_batches_sent_total", "host-0:1"] = 7.0

    def meanwhile() -> float:
        busy.counts["athena_batches_sent_total", f"host-{len(busy.counts)}:1"] = 1.0
        return 0.0

    sums.counts = defaultdict(meanwhile)
    sums.add(busy)
    assert sums.counts == {("athena_batches_sent_total", "host-0:1"): 7.0}
    assert len(busy.counts) == 2


def test_a_clash_with_a_metric_of_the_program_is_an_error(registry: CollectorRegistry) -> None:
    Counter("athena_images_accepted", "Mine.", registry=registry)
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        PrometheusObserver(registry)


def test_the_page_lists_every_metric() -> None:
    page = (ROOT / "docs/observability.md").read_text()
    missing = [name for name in (*metrics._COUNTERS, *metrics._HISTOGRAMS) if f"`{name}`" not in page]
    assert missing == []
