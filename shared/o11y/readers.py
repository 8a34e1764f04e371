"""Readers of the metrics: they show every name of what is recorded, and share what they can.

A value costs as much again for every reader. So Prometheus' view is made of what the exporter's
reader collects, where both want the same.
"""

import os
import threading
from collections.abc import Iterable
from typing import Any

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider, export
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from o11y.aliases import with_aliases

_PREFERENCES = {
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "cumulative",
    "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": "explicit_bucket_histogram",
}
"""What an exporter has to want for its reader to serve Prometheus as well, by variable."""


class Aliased(export.MetricReader):
    """Mixed into a reader: it receives all names."""

    def _receive_metrics(
        self, metrics_data: export.MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> None:
        shown = with_aliases(metrics_data)
        super()._receive_metrics(shown, timeout_millis, **kwargs)  # type: ignore[safe-super]


class PrometheusReader(Aliased, PrometheusMetricReader):
    """Shows the metrics in a registry of Prometheus' client."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(disable_target_info=True, scope_info_enabled=False, registry=registry)

    def receive(self, data: export.MetricsData) -> None:
        """Show these next."""
        self._receive_metrics(data)


class PeriodicReader(Aliased, export.PeriodicExportingMetricReader):
    """Hands the metrics to an exporter, again and again."""

    def __init__(self, exporter: export.MetricExporter) -> None:
        self._look = threading.local()
        super().__init__(exporter)

    def metrics(self) -> export.MetricsData | None:
        """The metrics now, which are not exported. Their exemplars are not seen again."""
        self._look.wanted, self._look.data = True, None
        try:
            self.collect()
            data: export.MetricsData | None = self._look.data
            return data
        finally:
            self._look.wanted = False

    def _receive_metrics(
        self, metrics_data: export.MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> None:
        if getattr(self._look, "wanted", False):
            self._look.data = metrics_data
        else:
            super()._receive_metrics(metrics_data, timeout_millis, **kwargs)


class _SharedView(Collector):
    """Shows Prometheus what another reader collects."""

    def __init__(self, source: PeriodicReader) -> None:
        self._source = source
        self._families = CollectorRegistry()
        self._reader = PrometheusReader(self._families)
        # a reader can't be without a provider; this one has nothing to read
        self._provider = MeterProvider([self._reader], shutdown_on_exit=False)

    def collect(self) -> Iterable[Metric]:
        if data := self._source.metrics():
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
