"""Counters and histograms that cost the request a microsecond.

The SDK's instruments take ten times as long, once for every reader, and a request has a dozen
measurements. These keep their own sums; whoever reads the metrics gets them among the SDK's, with
the same names, buckets and exemplars. Sums are cumulative.
"""

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, cast

from opentelemetry.context import Context
from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    HistogramDataPoint,
    Metric,
    MetricReader,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import Histogram as HistogramData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, TraceFlags, get_current_span

from o11y import schema

Value = str | int | float | bool | tuple[str, ...]
Labels = Mapping[str, Value]
Key = tuple[tuple[str, Value], ...]

NO_LABELS: Labels = {}
Collect = Callable[[MetricReader, float], Any]
Traced = tuple[float, int, SpanContext]
"""A value, when it was measured in nanoseconds since 1970, and its span."""


class Total:
    """A sum under one set of labels; the last traced amount is its exemplar."""

    __slots__ = ("_enabled", "_lock", "counted", "exemplar", "value")

    def __init__(self, lock: threading.Lock, enabled: bool) -> None:
        self.counted = False
        self.value: float = 0
        self.exemplar: Traced | None = None
        self._lock = lock
        self._enabled = enabled

    def add(self, amount: float, traced: SpanContext) -> None:
        """`traced` is the span the amount belongs to."""
        if not self._enabled or amount < 0:  # a sum that goes down is read as a restart
            return
        with self._lock:
            self.value += amount
            self.counted = True
            if amount and traced.trace_flags & TraceFlags.SAMPLED:
                self.exemplar = (amount, time.time_ns(), traced)

    def join(self, other: "Total") -> None:
        self.value += other.value
        self.exemplar = other.exemplar or self.exemplar


class Series:
    """The values under one set of labels; of each bucket the last traced one is an exemplar."""

    __slots__ = ("_bounds", "_enabled", "_lock", "counts", "exemplars", "high", "low", "total")

    def __init__(self, bounds: Sequence[float], lock: threading.Lock, enabled: bool) -> None:
        buckets = len(bounds) + 1
        self.counts = [0] * buckets
        self.exemplars: list[Traced | None] = [None] * buckets
        self.total = 0.0
        self.low = float("inf")
        self.high = float("-inf")
        self._bounds = bounds
        self._lock = lock
        self._enabled = enabled

    def record(self, value: float, traced: SpanContext) -> None:
        """`traced` is the span the value belongs to."""
        if not self._enabled:
            return
        bucket = bisect_left(self._bounds, value)
        with self._lock:
            self.counts[bucket] += 1
            self.total += value
            if value < self.low:
                self.low = value
            if value > self.high:
                self.high = value
            if traced.trace_flags & TraceFlags.SAMPLED:
                self.exemplars[bucket] = (value, time.time_ns(), traced)

    def join(self, other: "Series") -> None:
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.exemplars = [b or a for a, b in zip(self.exemplars, other.exemplars, strict=True)]
        self.total += other.total
        self.low = min(self.low, other.low)
        self.high = max(self.high, other.high)


def _span_context(context: Context | SpanContext | None) -> SpanContext:
    if isinstance(context, SpanContext):
        return context
    return get_current_span(context).get_span_context()


def _exemplars(found: Iterable[Traced | None]) -> list[Exemplar]:
    return [
        Exemplar({}, value, at, traced.span_id, traced.trace_id)
        for value, at, traced in filter(None, found)
    ]


class Counter:
    """A sum for each set of labels."""

    def __init__(self, metric: schema.Metric, enabled: bool = True) -> None:
        self.metric = metric
        self._totals: dict[Key, Total] = {}
        self._lock = threading.Lock()
        self._enabled = enabled

    def add(
        self,
        amount: float,
        labels: Labels = NO_LABELS,
        context: Context | SpanContext | None = None,
    ) -> None:
        """`context` is that of the span the amount belongs to; by default the current one."""
        self.of(labels).add(amount, _span_context(context))

    def of(self, labels: Labels) -> Total:
        """The sum under these labels: keep it where the same ones come again and again."""
        key = tuple(labels.items())
        found = self._totals.get(key)
        if found is None:
            found = self._totals.setdefault(key, Total(self._lock, self._enabled))
        return found

    def read(self, start: int, now: int) -> Metric:
        merged: dict[Key, Total] = {}
        with self._lock:
            for key, total in list(self._totals.items()):
                if total.counted:
                    ordered = tuple(sorted(key))  # the order of labels is no difference
                    if ordered not in merged:
                        merged[ordered] = Total(self._lock, self._enabled)
                    merged[ordered].join(total)
        points = [
            NumberDataPoint(dict(key), start, now, total.value, _exemplars([total.exemplar]))
            for key, total in merged.items()
        ]
        data = Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=True)
        return Metric(self.metric.name, self.metric.description, self.metric.unit, data)


class Histogram:
    """Counts values into the metric's buckets, for each set of labels."""

    def __init__(self, metric: schema.Metric, enabled: bool = True) -> None:
        self.metric = metric
        self._bounds = metric.buckets
        self._series: dict[Key, Series] = {}
        self._lock = threading.Lock()
        self._enabled = enabled

    def record(
        self,
        value: float,
        labels: Labels = NO_LABELS,
        context: Context | SpanContext | None = None,
    ) -> None:
        """`context` is that of the span the value belongs to; by default the current one."""
        self.of(labels).record(value, _span_context(context))

    def of(self, labels: Labels) -> Series:
        """The values under these labels: keep it where the same ones come again and again."""
        key = tuple(labels.items())
        found = self._series.get(key)
        if found is None:
            found = self._series.setdefault(key, Series(self._bounds, self._lock, self._enabled))
        return found

    def read(self, start: int, now: int) -> Metric:
        merged: dict[Key, Series] = {}
        with self._lock:
            for key, series in list(self._series.items()):
                if any(series.counts):
                    ordered = tuple(sorted(key))
                    if ordered not in merged:
                        merged[ordered] = Series(self._bounds, self._lock, self._enabled)
                    merged[ordered].join(series)
        points = [self._point(key, series, start, now) for key, series in merged.items()]
        data = HistogramData(points, AggregationTemporality.CUMULATIVE)
        return Metric(self.metric.name, self.metric.description, self.metric.unit, data)

    def _point(self, key: Key, series: Series, start: int, now: int) -> HistogramDataPoint:
        return HistogramDataPoint(
            attributes=dict(key),
            start_time_unix_nano=start,
            time_unix_nano=now,
            count=sum(series.counts),
            sum=series.total,
            bucket_counts=series.counts,
            explicit_bounds=self._bounds,
            min=series.low,
            max=series.high,
            exemplars=_exemplars(series.exemplars),
        )


class Instruments:
    """All counters and histograms of a process, and how readers get to see them.

    Those that are not `enabled` count nothing.
    """

    def __init__(self, resource: Resource, scope: InstrumentationScope, enabled: bool) -> None:
        self._enabled = enabled
        self._resource = resource
        self._scope = scope
        self._start = time.time_ns()
        self._all: dict[str, Counter | Histogram] = {}

    def counter(self, metric: schema.Metric) -> Counter:
        found = self._all.setdefault(metric.name, Counter(metric, self._enabled))
        assert isinstance(found, Counter)
        return found

    def histogram(self, metric: schema.Metric) -> Histogram:
        found = self._all.setdefault(metric.name, Histogram(metric, self._enabled))
        assert isinstance(found, Histogram)
        return found

    def join(self, readers: Iterable[MetricReader]) -> None:
        """Give every reader of a provider these metrics too: call it when it has its readers."""
        for reader in readers:
            if (collect := reader._collect) is not None:
                joined = partial(self._collected, cast(Collect, collect))
                reader._set_collect_callback(cast(Any, joined))

    def _collected(
        self, collect: Collect, reader: MetricReader, timeout_millis: float = 10_000
    ) -> MetricsData | None:
        found: MetricsData | None = collect(reader, timeout_millis)
        now = time.time_ns()
        read = [each.read(self._start, now) for each in list(self._all.values())]
        metrics = [metric for metric in read if metric.data.data_points]
        if not metrics:
            return found
        parts = found.resource_metrics if found else ()
        scopes = [scope for part in parts for scope in part.scope_metrics]
        url = self._scope.schema_url or ""
        for number, theirs in enumerate(scopes):
            if theirs.scope == self._scope:  # OTLP's encoder keeps only one of a scope
                scopes[number] = ScopeMetrics(self._scope, [*theirs.metrics, *metrics], url)
                break
        else:
            scopes.append(ScopeMetrics(self._scope, metrics, url))
        return MetricsData([ResourceMetrics(self._resource, scopes, self._resource.schema_url)])
