"""Events as Prometheus metrics (extra ``metrics``).

Everything is counted per batch or chunk, never per image, in plain numbers of the observer: an update
of prometheus-client takes a lock, and one event makes up to five. A scrape adds the numbers up.
Labels take few values: endpoints of the configuration, codes and outcomes of enumerations, one
affiliate, and a deployment only where the program chose its id (ids that the client makes are new
with each run).
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, finalize

from athena_async import events
from athena_async.errors import MissingExtraError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

LARGEST_LABEL_COUNT = 64
"""Distinct values of one label in a process; those that come later are counted as ``other``."""

_LATENCY_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_SIZE_BUCKETS_BYTES = tuple(float(4**n) for n in range(4, 12))

_COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "athena_images_accepted_total": ("Images taken in.", ()),
    "athena_images_prepared_total": ("Images that preprocessing finished.", ()),
    "athena_images_unprepared_total": ("Images that preprocessing refused.", ()),
    "athena_images_sent_total": ("Images handed to the network, resends included.", ("endpoint",)),
    "athena_images_resent_total": ("Images handed to the network again; each may be billed again.", ("endpoint",)),
    "athena_images_settled_total": ("Images that got their result.", ("outcome",)),
    "athena_image_errors_total": ("Images without a classification.", ("code",)),
    "athena_images_recovered_total": ("Images of a lost stream, by what became of them.", ("how",)),
    "athena_images_left_total": ("Images that were unsettled when the client closed.", ()),
    "athena_batches_sent_total": ("Batches handed to the network.", ("endpoint",)),
    "athena_streams_opened_total": ("Streams opened.", ("endpoint",)),
    "athena_streams_closed_total": ("Streams ended, by gRPC status.", ("endpoint", "code")),
    "athena_endpoint_ejections_total": ("Times an endpoint was ejected.", ("endpoint",)),
    "athena_endpoint_returns_total": ("Times an ejected endpoint came back.", ("endpoint",)),
    "athena_pool_resizes_total": ("Times the pool of an endpoint grew or shrank.", ("endpoint",)),
    "athena_global_errors_total": ("Errors of whole requests.", ("endpoint", "code")),
    "athena_stray_answers_total": ("Answers that settled nothing here.", ("kind",)),
    "athena_credentials_refreshed_total": ("Tokens and keys taken in.", ()),
    "athena_encoding_changes_total": ("Times the automatic encoding chose another one.", ("encoding",)),
    "athena_source_bytes_total": ("Bytes of originals that were prepared.", ()),
    "athena_frame_bytes_total": ("Bytes that they became.", ()),
}

_HISTOGRAMS: dict[str, tuple[str, tuple[str, ...], tuple[float, ...]]] = {
    "athena_batch_latency_seconds": ("From a batch's sending to its last answer.", ("endpoint",), _LATENCY_BUCKETS_S),
    "athena_settle_latency_seconds": ("From acceptance to result, slowest of a group.", (), _LATENCY_BUCKETS_S),
    "athena_preprocess_seconds": ("Time in preprocessing, per chunk.", (), _LATENCY_BUCKETS_S),
    "athena_batch_bytes": ("Size of batches.", ("endpoint",), _SIZE_BUCKETS_BYTES),
}

_COMMON = ("deployment", "affiliate")


Key = tuple[str, ...]
"""Name of a metric, then the values of its own labels."""


class _Buckets:
    """One histogram: how many values fell up to each bound, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def add(self, other: _Buckets) -> None:
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    def cumulative(self) -> list[tuple[str, float]]:
        bounds = [str(bound) for bound in self.bounds]
        return list(zip([*bounds, "+Inf"], accumulate(self.counts), strict=True))


class _Totals:
    """The numbers of one observer since its client opened: written by one thread, read by scrapes."""

    def __init__(self, common: tuple[str, str]) -> None:
        self.common = common
        self.counts: defaultdict[Key, float] = defaultdict(float)
        self.buckets: dict[Key, _Buckets] = {}

    def observe(self, key: Key, value: float) -> None:
        buckets = self.buckets.get(key)
        if buckets is None:
            buckets = self.buckets[key] = _Buckets(_HISTOGRAMS[key[0]][2])
        buckets.observe(value)

    def add(self, other: _Totals) -> None:
        for key, count in list(other.counts.items()):
            self.counts[key] += count
        for key, buckets in list(other.buckets.items()):
            self.buckets.setdefault(key, _Buckets(buckets.bounds)).add(buckets)


class _Collector:
    """What a registry asks at each scrape: adds up the observers on it, those that are gone too."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live: list[_Totals] = []
        self._retired: deque[_Totals] = deque()
        self._gone: dict[tuple[str, str], _Totals] = {}
        self._values: defaultdict[str, set[str]] = defaultdict(set)

    def totals(self, deployment: str, affiliate: str) -> _Totals:
        with self._lock:
            self._merge_retired()
            common = (self._bounded("deployment", deployment), self._bounded("affiliate", affiliate))
            totals = _Totals(common)
            self._live.append(totals)
            return totals

    def retire(self, totals: _Totals) -> None:
        """An observer is gone. Called by the garbage collector, at any moment: so it takes no lock."""
        self._retired.append(totals)

    def _merge_retired(self) -> None:
        """Keeps the numbers of observers that are gone: counters never go back."""
        while self._retired:
            totals = self._retired.popleft()
            self._live.remove(totals)
            self._gone.setdefault(totals.common, _Totals(totals.common)).add(totals)

    def describe(self) -> Iterable[CounterMetricFamily | HistogramMetricFamily]:
        return self._families({})

    def collect(self) -> Iterable[CounterMetricFamily | HistogramMetricFamily]:
        with self._lock:
            self._merge_retired()
            sums: dict[tuple[str, str], _Totals] = {}
            for totals in (*self._gone.values(), *self._live):
                sums.setdefault(totals.common, _Totals(totals.common)).add(totals)
        return self._families(sums)

    def _families(self, sums: dict[tuple[str, str], _Totals]) -> Iterator[CounterMetricFamily | HistogramMetricFamily]:
        from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

        for name, (text, labels) in _COUNTERS.items():
            counter = CounterMetricFamily(name, text, labels=(*_COMMON, *labels))
            for common, totals in sums.items():
                for key, count in totals.counts.items():
                    if key[0] == name:
                        counter.add_metric((*common, *key[1:]), count)
            yield counter
        for name, (text, labels, _) in _HISTOGRAMS.items():
            histogram = HistogramMetricFamily(name, text, labels=(*_COMMON, *labels))
            for common, totals in sums.items():
                for key, buckets in totals.buckets.items():
                    if key[0] == name:
                        histogram.add_metric((*common, *key[1:]), buckets.cumulative(), buckets.total)
            yield histogram

    def _bounded(self, label: str, value: str) -> str:
        values = self._values[label]
        if value not in values and len(values) >= LARGEST_LABEL_COUNT:
            return "other"
        values.add(value)
        return value


_collectors: WeakKeyDictionary[CollectorRegistry, _Collector] = WeakKeyDictionary()


def _collector(registry: CollectorRegistry) -> _Collector:
    collector = _collectors.get(registry)
    if collector is None:
        collector = _Collector()
        registry.register(collector)
        _collectors[registry] = collector
    return collector


class PrometheusObserver:
    """Counts events. One observer serves one client; several may share a registry.

    Args:
        registry: where the metrics are scraped from; None is prometheus-client's own.

    Raises:
        MissingExtraError: the extra ``metrics`` is not installed.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        try:
            from prometheus_client import REGISTRY
        except ImportError:
            raise MissingExtraError("PrometheusObserver", "metrics") from None
        self._collector = _collector(REGISTRY if registry is None else registry)
        self._label("", "")

    def __call__(self, event: events.Event) -> None:
        reaction = _REACTIONS.get(type(event))
        if reaction is not None:
            reaction(self, event)

    def _label(self, deployment: str, affiliate: str) -> None:
        self._totals = self._collector.totals(deployment, affiliate)
        self._counts = self._totals.counts
        finalize(self, self._collector.retire, self._totals).atexit = False

    def _opened(self, event: events.Opened) -> None:
        self._label("" if event.own else event.deployment_id, event.affiliate)

    def _accepted(self, event: events.ImagesAccepted) -> None:
        self._counts[("athena_images_accepted_total",)] += event.count

    def _prepared(self, event: events.ImagesPrepared) -> None:
        self._counts[("athena_images_prepared_total",)] += event.count
        self._counts[("athena_images_unprepared_total",)] += event.failed
        self._counts[("athena_source_bytes_total",)] += event.source_bytes
        self._counts[("athena_frame_bytes_total",)] += event.frame_bytes
        self._totals.observe(("athena_preprocess_seconds",), event.duration_s)

    def _sent(self, event: events.BatchSent) -> None:
        endpoint = event.endpoint
        self._counts["athena_batches_sent_total", endpoint] += 1
        self._counts["athena_images_sent_total", endpoint] += event.images
        self._totals.observe(("athena_batch_bytes", endpoint), event.size_bytes)
        if event.resent:
            self._counts["athena_images_resent_total", endpoint] += event.resent

    def _answered(self, event: events.BatchAnswered) -> None:
        self._totals.observe(("athena_batch_latency_seconds", event.endpoint), event.latency_s)

    def _settled(self, event: events.ImagesSettled) -> None:
        for outcome, count in event.outcomes.items():
            self._counts["athena_images_settled_total", outcome] += count
        for code, count in event.errors.items():
            self._counts["athena_image_errors_total", code] += count
        self._totals.observe(("athena_settle_latency_seconds",), event.latency_s)

    def _stream_opened(self, event: events.StreamOpened) -> None:
        self._counts["athena_streams_opened_total", event.endpoint] += 1

    def _stream_closed(self, event: events.StreamClosed) -> None:
        self._counts["athena_streams_closed_total", event.endpoint, event.code] += 1

    def _ejected(self, event: events.EndpointEjected) -> None:
        self._counts["athena_endpoint_ejections_total", event.endpoint] += 1

    def _returned(self, event: events.EndpointReturned) -> None:
        self._counts["athena_endpoint_returns_total", event.endpoint] += 1

    def _resized(self, event: events.PoolResized) -> None:
        self._counts["athena_pool_resizes_total", event.endpoint] += 1

    def _recovered(self, event: events.ImagesRecovered) -> None:
        self._counts["athena_images_recovered_total", "answered"] += event.answered
        self._counts["athena_images_recovered_total", "resent"] += event.resent

    def _global_error(self, event: events.GlobalErrorReceived) -> None:
        self._counts["athena_global_errors_total", event.endpoint, event.code] += 1

    def _strays(self, event: events.StrayAnswers) -> None:
        self._counts["athena_stray_answers_total", "late"] += event.late
        self._counts["athena_stray_answers_total", "foreign"] += event.foreign
        self._counts["athena_stray_answers_total", "foreign_dropped"] += event.foreign_dropped

    def _refreshed(self, event: events.CredentialsRefreshed) -> None:
        self._counts[("athena_credentials_refreshed_total",)] += 1

    def _encoding(self, event: events.EncodingChanged) -> None:
        self._counts["athena_encoding_changes_total", event.encoding] += 1

    def _drained(self, event: events.Drained) -> None:
        self._counts[("athena_images_left_total",)] += event.left

    def __repr__(self) -> str:
        deployment, affiliate = self._totals.common
        return f"PrometheusObserver({deployment=}, {affiliate=})"


_REACTIONS: dict[type[events.Event], Callable[[PrometheusObserver, Any], None]] = {
    events.Opened: PrometheusObserver._opened,
    events.ImagesAccepted: PrometheusObserver._accepted,
    events.ImagesPrepared: PrometheusObserver._prepared,
    events.BatchSent: PrometheusObserver._sent,
    events.BatchAnswered: PrometheusObserver._answered,
    events.ImagesSettled: PrometheusObserver._settled,
    events.StreamOpened: PrometheusObserver._stream_opened,
    events.StreamClosed: PrometheusObserver._stream_closed,
    events.EndpointEjected: PrometheusObserver._ejected,
    events.EndpointReturned: PrometheusObserver._returned,
    events.PoolResized: PrometheusObserver._resized,
    events.ImagesRecovered: PrometheusObserver._recovered,
    events.GlobalErrorReceived: PrometheusObserver._global_error,
    events.StrayAnswers: PrometheusObserver._strays,
    events.CredentialsRefreshed: PrometheusObserver._refreshed,
    events.EncodingChanged: PrometheusObserver._encoding,
    events.Drained: PrometheusObserver._drained,
}
