"""Readers of the metrics: they show every name of what is recorded, and share what they can.

The SDK aggregates a value once for every reader it has. Prometheus' view is made of what the
exporter's reader collects, where that has the temporality and the buckets that Prometheus needs.
"""

import os
import threading
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider, export
from opentelemetry.sdk.metrics.view import DropAggregation, View
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from o11y.telemetry import schema
from o11y.telemetry.aliases import Aliases, with_metrics
from o11y.telemetry.environment import wants_former_names

_PREFERENCES = {
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "cumulative",
    "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": "explicit_bucket_histogram",
}
"""Preferences of an exporter, by variable, whose reader can serve Prometheus as well."""


class Aliased(export.MetricReader):
    """Mixed into a reader: it receives all names, the former ones where the environment asks."""

    def __init__(self, *args: Any, **options: Any) -> None:
        former = schema.FORMER if wants_former_names() else ()
        self._aliases = Aliases((*schema.ALIASES, *former))
        super().__init__(*args, **options)

    def _receive_metrics(
        self, metrics_data: export.MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> None:
        shown = self._aliases.added(metrics_data)
        super()._receive_metrics(shown, timeout_millis, **kwargs)  # type: ignore[safe-super]


class PrometheusReader(Aliased, PrometheusMetricReader):
    """Shows the metrics in a registry of Prometheus' client."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(disable_target_info=True, scope_info_enabled=False, registry=registry)

    def receive(self, data: export.MetricsData) -> None:
        """Show these metrics when the registry is collected next."""
        self._receive_metrics(data)


class PeriodicReader(Aliased, export.PeriodicExportingMetricReader):
    """Hands the metrics to an exporter at each interval, and to callers of `look` at any time."""

    def __init__(self, exporter: export.MetricExporter) -> None:
        self._looking = threading.local()
        self._exemplars = _Exemplars()
        super().__init__(exporter)

    def look(self) -> export.MetricsData | None:
        """The metrics now, which are not exported. Their exemplars are exported next time."""
        self._looking.data, self._looking.wanted = None, True
        try:
            self.collect()
            data: export.MetricsData | None = self._looking.data
            return data
        finally:
            self._looking.wanted = False

    def _receive_metrics(
        self, metrics_data: export.MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> None:
        if getattr(self._looking, "wanted", False):
            self._looking.data = metrics_data
            self._exemplars.keep(metrics_data)
        else:
            whole = self._exemplars.put_back(metrics_data)
            super()._receive_metrics(whole, timeout_millis, **kwargs)


class _Exemplars:
    """Exemplars that were read and not exported: the SDK gives each of them once."""

    def __init__(self) -> None:
        self._pending: dict[tuple[object, ...], list[Any]] = {}
        self._lock = threading.Lock()

    def keep(self, data: export.MetricsData) -> None:
        """Keep the last ones of each point."""
        with self._lock:
            for resource in data.resource_metrics:
                for scope in resource.scope_metrics:
                    for metric in scope.metrics:
                        for point in metric.data.data_points:
                            if point.exemplars:
                                self._pending[_key(metric, point)] = [*point.exemplars]

    def put_back(self, data: export.MetricsData) -> export.MetricsData:
        """The metrics with the exemplars that were kept, which are kept no longer."""
        with self._lock:
            pending, self._pending = self._pending, {}
        if not pending:
            return data
        return with_metrics(
            data, lambda metrics: (_with_exemplars(each, pending) for each in metrics)
        )


def _with_exemplars(
    metric: export.Metric, pending: dict[tuple[object, ...], list[Any]]
) -> export.Metric:
    data: Any = metric.data
    points = [
        replace(point, exemplars=[*pending.get(_key(metric, point), ()), *point.exemplars])
        for point in data.data_points
    ]
    return replace(metric, data=replace(data, data_points=points))


def _key(metric: export.Metric, point: Any) -> tuple[object, ...]:
    return metric.name, frozenset(point.attributes.items())


class _SharedView(Collector):
    """Shows Prometheus what another reader collects."""

    def __init__(self, source: PeriodicReader) -> None:
        self._source = source
        self._families = CollectorRegistry()
        self._reader = PrometheusReader(self._families)
        # a reader needs a provider; this provider has no instruments, not even the SDK's own
        nothing = View(instrument_name="*", aggregation=DropAggregation())
        self._provider = MeterProvider([self._reader], shutdown_on_exit=False, views=[nothing])

    def collect(self) -> Iterable[Metric]:
        if data := self._source.look():
            self._reader.receive(data)
        yield from self._families.collect()


def readers(
    registry: CollectorRegistry, pushed: Iterable[export.MetricExporter | export.MetricReader]
) -> list[export.MetricReader]:
    """The readers for these exporters and for Prometheus, whose view is in the registry."""
    found = [
        each if isinstance(each, export.MetricReader) else PeriodicReader(each) for each in pushed
    ]
    shared = [each for each in found if isinstance(each, PeriodicReader)]
    if shared and all(os.environ.get(name, want) == want for name, want in _PREFERENCES.items()):
        registry.register(_SharedView(shared[0]))
        return found
    return [PrometheusReader(registry), *found]
