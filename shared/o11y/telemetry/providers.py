"""The SDK's providers of one process, as its variables ask for them.

Samplers, limits, batches, exporters, temporality: the SDK and its exporters read the variables of
the specification themselves (`environment` has completed them). What is added: the resource's
attributes, identity on spans, the Prometheus view of the metrics, and reports of what is lost.
"""

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import entry_points, version
from typing import Any

from opentelemetry import _logs, metrics, trace
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import Sampler
from prometheus_client import CollectorRegistry

from o11y.telemetry import schema
from o11y.telemetry.identity import IdentityOnSpans
from o11y.telemetry.loss import LossReports, Reporting
from o11y.telemetry.parts import MAX_POINTS, InParts
from o11y.telemetry.readers import Aliased, PrometheusReader, readers

_OTLP = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
_KNOWN_SAMPLERS = frozenset(
    {
        *("always_on", "always_off", "traceidratio"),
        *("parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio"),
    }
)
"""Samplers that the tracer provider reads from the variable itself."""

_VIEWS = [
    View(
        instrument_name=metric.name, aggregation=ExplicitBucketHistogramAggregation(metric.buckets)
    )
    for metric in (schema.EXPORT_DURATION, schema.COLLECTION_DURATION)
]
"""Buckets of the SDK's own histograms; other instruments advise theirs."""


def resource_of(service: str) -> Resource:
    """The resource of a process, whose attributes the environment's variables may replace."""
    ours = {
        "service.name": service,
        "service.namespace": "o11y-4-ai",
        "service.version": version("o11y"),
        "service.instance.id": str(uuid.uuid4()),
    }
    return Resource.create({**ours, **OTELResourceDetector().detect().attributes})


@dataclass(frozen=True)
class Providers:
    """The providers of spans, metrics and logs of one process.

    `registry` is the Prometheus view of the metrics. `exports_logs` says whether log records
    should be emitted at all.
    """

    resource: Resource
    registry: CollectorRegistry
    tracers: trace.TracerProvider
    meters: metrics.MeterProvider
    loggers: _logs.LoggerProvider
    exports_logs: bool
    reports: LossReports

    def __post_init__(self) -> None:
        self.reports.listen()

    def become_global(self) -> None:
        """Let libraries that are instrumented for OpenTelemetry use these."""
        trace.set_tracer_provider(self.tracers)
        metrics.set_meter_provider(self.meters)
        _logs.set_logger_provider(self.loggers)

    def shutdown(self, timeout_seconds: float) -> None:
        """Send what is left, for at most this long: a backend that hangs must not hold the exit."""
        until = time.monotonic() + timeout_seconds
        ends: list[Callable[[], None]] = []
        if isinstance(self.tracers, TracerProvider):
            ends.append(self.tracers.shutdown)
        if isinstance(self.loggers, LoggerProvider):
            ends.append(self.loggers.shutdown)
        if isinstance(self.meters, MeterProvider):
            ends.append(partial(self.meters.shutdown, timeout_millis=timeout_seconds * 1000))
        threads = [threading.Thread(target=end, daemon=True) for end in ends]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(until - time.monotonic(), 0))
        self.reports.stop()


def of_the_variables(
    service: str,
    span_processors: Iterable[SpanProcessor] = (),
    metric_readers: Iterable[MetricReader] = (),
) -> Providers:
    """New providers, as the variables ask for them.

    What the SDK's tracers and loggers measure of themselves is left out: two counters a span and
    one a log record say nothing that others don't.
    """
    resource = resource_of(service)
    reports = LossReports()
    registry = CollectorRegistry()
    is_on = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() != "true"
    exporters = partial(_exporters, reports=reports) if is_on else _none
    pushed = list(exporters("METRICS"))
    meters = MeterProvider(
        [*readers(registry, pushed), *metric_readers],
        resource,
        shutdown_on_exit=False,
        views=_VIEWS,
    )
    for exporter in pushed:
        if hasattr(exporter, "set_meter_provider"):
            exporter.set_meter_provider(meters)
    tracers = TracerProvider(
        _sampler(),
        resource,
        shutdown_on_exit=False,
        id_generator=_id_generator(),
        meter_provider=NoOpMeterProvider(),
    )
    tracers.add_span_processor(IdentityOnSpans())
    for processor in span_processors:
        tracers.add_span_processor(processor)
    for exporter in exporters("TRACES", meters):
        tracers.add_span_processor(BatchSpanProcessor(exporter, meter_provider=meters))
    loggers = LoggerProvider(resource, shutdown_on_exit=False, meter_provider=NoOpMeterProvider())
    exports_logs = False
    for exporter in exporters("LOGS", meters):
        exports_logs = True
        loggers.add_log_record_processor(BatchLogRecordProcessor(exporter, meter_provider=meters))
    return Providers(resource, registry, tracers, meters, loggers, exports_logs, reports)


def of_the_configuration_file() -> Providers:
    """The global providers, as a configuration file has made them, with what this system adds.

    A signal the file says nothing of goes nowhere; `/metrics` is there in any case.
    """
    registry = CollectorRegistry()
    tracers, meters = trace.get_tracer_provider(), metrics.get_meter_provider()
    loggers = _logs.get_logger_provider()
    resource = next(
        (
            each.resource
            for each in (tracers, loggers)
            if isinstance(each, TracerProvider | LoggerProvider)
        ),
        Resource.create(),
    )
    if isinstance(tracers, TracerProvider):
        tracers.add_span_processor(IdentityOnSpans())
    if isinstance(meters, MeterProvider):
        meters.add_metric_reader(PrometheusReader(registry))
    else:
        meters = MeterProvider([PrometheusReader(registry)], resource, shutdown_on_exit=False)
    exports_logs = isinstance(loggers, LoggerProvider)
    return Providers(resource, registry, tracers, meters, loggers, exports_logs, LossReports())


def _none(*_: object) -> Iterable[Any]:
    return ()


def _exporters(
    signal: str, meters: MeterProvider | None = None, *, reports: LossReports
) -> Iterator[Any]:
    """The exporters OTEL_*_EXPORTER names for a signal; for metrics there may be readers, too."""
    for name in _names(f"OTEL_{signal}_EXPORTER"):
        if name != "otlp":
            made = _component(f"opentelemetry_{signal.lower()}_exporter", name)
            is_reader = isinstance(made, type) and issubclass(made, MetricReader)
            yield type(made.__name__, (Aliased, made), {})() if is_reader else made()
            continue
        variable = f"OTEL_EXPORTER_OTLP_{signal}"
        protocol = os.environ.get(f"{variable}_PROTOCOL", "grpc")
        exporter = _component(f"opentelemetry_{signal.lower()}_exporter", _OTLP[protocol])
        reporting: Any = type(exporter.__name__, (Reporting, InParts, exporter), {})
        made = (
            reporting(meter_provider=meters)
            if meters
            else reporting(max_export_batch_size=MAX_POINTS)
        )
        made.report_to(reports, signal, os.environ.get(f"{variable}_ENDPOINT", ""))
        yield made


def _sampler() -> Sampler | None:
    """The sampler a package brings, where OTEL_TRACES_SAMPLER names one; else the SDK's."""
    names = _names("OTEL_TRACES_SAMPLER")
    if not names or names[0].lower() in _KNOWN_SAMPLERS:
        return None
    make: Callable[[str | None], Sampler] = _component("opentelemetry_traces_sampler", names[0])
    return make(os.environ.get("OTEL_TRACES_SAMPLER_ARG"))


def _id_generator() -> IdGenerator | None:
    names = _names("OTEL_PYTHON_ID_GENERATOR")
    if not names:
        return None
    generator: IdGenerator = _component("opentelemetry_id_generator", names[0])()
    return generator


def _names(variable: str) -> list[str]:
    names = (name.strip() for name in os.environ.get(variable, "").split(","))
    return [name for name in names if name not in ("", "none")]


def _component(group: str, name: str) -> Any:
    """The component that a package brings by an entry point."""
    return next(iter(entry_points(group=group, name=name))).load()
