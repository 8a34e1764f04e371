"""The OpenTelemetry providers of one process, built once from settings and shut down in time."""

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from functools import partial
from importlib.metadata import version

import psutil
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Meter, NoOpMeterProvider, Observation
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Tracer
from opentelemetry.util.genai.handler import TelemetryHandler
from opentelemetry.util.genai.types import ContentCapturingMode
from prometheus_client import CollectorRegistry

from o11y import schema
from o11y.capture import Capture
from o11y.export import Export, export
from o11y.identity import IdentityOnSpans
from o11y.metering import Counter, Histogram, Instruments
from o11y.otlp import LogLine
from o11y.settings import ServiceSettings

CPU_SECONDS = 1.0
SHUTDOWN_SECONDS = 3.0
"""More than all signals, at the same time, have for what still waits. With the server's 5 s for
requests in flight and the engine's 2 s, a stop takes under 10 s.
"""


class CpuUsage:
    """CPU time of a process in percent of one core, since the last reading.

    Several readers share it: one that comes right after another gets that one's value, since CPU
    time is counted too coarsely for so short a while. The first value is of the process's life.
    """

    def __init__(
        self, process: psutil.Process, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._process = process
        self._clock = clock
        self._lock = threading.Lock()
        self._at, self._used = clock(), self._seconds()
        self._percent = 100 * self._used / max(time.time() - process.create_time(), CPU_SECONDS)

    def percent(self) -> float:
        with self._lock:
            now = self._clock()
            if (passed := now - self._at) >= CPU_SECONDS:
                used = self._seconds()
                self._percent = 100 * (used - self._used) / passed
                self._at, self._used = now, used
            return self._percent

    def _seconds(self) -> float:
        times = self._process.cpu_times()
        return times.user + times.system


class Telemetry:
    """Traces, metrics and logs of one service.

    Nothing global is set: who needs a provider is handed this object. `registry` is the Prometheus
    view of the metrics, which `/metrics` shows.
    """

    def __init__(
        self,
        service: str,
        settings: ServiceSettings,
        span_processors: Iterable[SpanProcessor] = (),
        metric_readers: Iterable[MetricReader] = (),
    ) -> None:
        self.service = settings.otel_service_name or service
        self.instance = str(uuid.uuid4())
        self.resource = resource = Resource.create(
            {
                "service.name": self.service,
                "service.namespace": "o11y-4-ai",
                "service.version": version("o11y"),
                "service.instance.id": self.instance,
            }
        )
        enabled = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() != "true"
        scope = InstrumentationScope("o11y", version("o11y"))
        self._instruments = Instruments(resource, scope, enabled)
        to = export(settings, self._instruments.counter) if enabled else Export()
        self.registry = CollectorRegistry()
        readers: list[MetricReader] = [
            PrometheusMetricReader(
                disable_target_info=True, scope_info_enabled=False, registry=self.registry
            ),
            *metric_readers,
        ]
        if to.metrics:
            interval = settings.otel_metric_export_interval
            readers.append(PeriodicExportingMetricReader(to.metrics, interval))
        self.meter_provider = MeterProvider(readers, resource, shutdown_on_exit=False)
        self._instruments.join(readers)
        self.tracer_provider = TracerProvider(
            resource=resource, shutdown_on_exit=False, meter_provider=NoOpMeterProvider()
        )
        self.tracer_provider.add_span_processor(IdentityOnSpans())
        for processor in (*span_processors, *([to.spans] if to.spans else [])):
            self.tracer_provider.add_span_processor(processor)
        self.logger_provider = LoggerProvider(resource, shutdown_on_exit=False)
        self.emit_log: Callable[[LogLine], None] | None = None
        if to.logs:
            self.logger_provider.add_log_record_processor(to.logs)
            self.emit_log = to.logs.add
        mode = ContentCapturingMode[settings.otel_instrumentation_genai_capture_message_content]
        self.capture = (
            None if mode is ContentCapturingMode.NO_CONTENT else Capture(mode, self.logger_provider)
        )
        """Tells of prompts and answers; None where nothing may."""
        self.tracer: Tracer = self.tracer_provider.get_tracer("o11y", version("o11y"))
        self.meter: Meter = self.meter_provider.get_meter("o11y", version("o11y"))
        self.genai = TelemetryHandler(
            self.tracer_provider,
            self.meter_provider,
            self.logger_provider,
            instrumentation_scope_name="o11y",
            instrumentation_scope_version=version("o11y"),
        )
        self._observe_process()

    def counter(self, metric: schema.Metric) -> Counter:
        return self._instruments.counter(metric)

    def histogram(self, metric: schema.Metric) -> Histogram:
        return self._instruments.histogram(metric)

    def gauge(self, metric: schema.Metric, read: Callable[[], Iterable[Observation]]) -> None:
        """Register a gauge that is read at each collection. `read` must not block."""

        def callback(_: CallbackOptions) -> Iterable[Observation]:
            return read()

        self.meter.create_observable_gauge(metric.name, [callback], metric.unit, metric.description)

    def sum(self, metric: schema.Metric, read: Callable[[], Iterable[Observation]]) -> None:
        """Register a sum that goes up and down and is read at each collection."""

        def callback(_: CallbackOptions) -> Iterable[Observation]:
            return read()

        self.meter.create_observable_up_down_counter(
            metric.name, [callback], metric.unit, metric.description
        )

    def total(self, metric: schema.Metric, read: Callable[[], Iterable[Observation]]) -> None:
        """Register a counter that is kept elsewhere and read at each collection.

        `read` must not block.
        """

        def callback(_: CallbackOptions) -> Iterable[Observation]:
            return read()

        self.meter.create_observable_counter(
            metric.name, [callback], metric.unit, metric.description
        )

    def shutdown(self, timeout_seconds: float = SHUTDOWN_SECONDS) -> None:
        """Send what is left, for at most this long: a backend that hangs must not hold the exit."""
        until = time.monotonic() + timeout_seconds
        ends = (
            self.tracer_provider.shutdown,
            self.logger_provider.shutdown,
            partial(self.meter_provider.shutdown, timeout_millis=timeout_seconds * 1000),
        )
        threads = [threading.Thread(target=end, daemon=True) for end in ends]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(until - time.monotonic(), 0))

    def _observe_process(self) -> None:
        process = psutil.Process()
        usage = CpuUsage(process)
        self.gauge(schema.CPU_USAGE, lambda: [Observation(usage.percent())])
        self.gauge(schema.MEMORY_USED, lambda: [Observation(process.memory_info().rss)])
