"""The OpenTelemetry providers of one process, built once from settings and shut down in time."""

import threading
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version

import psutil
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.trace import Tracer
from opentelemetry.util.genai.types import ContentCapturingMode

from o11y.settings import ServiceSettings
from o11y.telemetry import schema
from o11y.telemetry.capture import Capture
from o11y.telemetry.instruments import Counter, Histogram
from o11y.telemetry.providers import Providers, of_the_variables

CPU_SECONDS = 1.0
SHUTDOWN_SECONDS = 3.0
"""Time in which all signals together send what still waits when the process stops. With the
server's 5 s for requests in flight and the engine's 2 s, a stop takes under 10 s.
"""


Read = Callable[[], Iterable[Observation]]
"""Reads the values of an observable instrument. It must not block."""


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
        self._at = clock()
        times, lived = process.cpu_times(), time.time() - process.create_time()
        self._percent = 100 * (times.user + times.system) / max(lived, CPU_SECONDS)
        process.cpu_percent()  # it tells of the time since it was asked last

    def percent(self) -> float:
        with self._lock:
            now = self._clock()
            if now - self._at >= CPU_SECONDS:
                self._at, self._percent = now, self._process.cpu_percent()
            return self._percent


class Telemetry:
    """Traces, metrics and logs of one service.

    Who needs a provider is handed this object. `registry` is the Prometheus view of the metrics,
    which `/metrics` shows. Without `providers`, new ones are made for this object alone.
    """

    def __init__(
        self,
        service: str,
        settings: ServiceSettings,
        span_processors: Iterable[SpanProcessor] = (),
        metric_readers: Iterable[MetricReader] = (),
        providers: Providers | None = None,
    ) -> None:
        name = settings.otel_service_name or service
        self._providers = providers or of_the_variables(name, span_processors, metric_readers)
        self.resource = self._providers.resource
        self.service = str(self.resource.attributes["service.name"])
        self.instance = str(self.resource.attributes.get("service.instance.id", ""))
        self.registry = self._providers.registry
        self.tracer_provider = self._providers.tracers
        self.meter_provider = self._providers.meters
        self.logger_provider = self._providers.loggers
        self.exports_logs = self._providers.exports_logs
        mode = ContentCapturingMode[settings.otel_instrumentation_genai_capture_message_content]
        debug = settings.log_level == "DEBUG"
        tells = debug or mode is not ContentCapturingMode.NO_CONTENT
        self.capture = Capture(mode, self.logger_provider, debug=debug) if tells else None
        """Tells of calls to models, prompts and answers where it may; None where there is nothing
        to tell.
        """
        scope = ("o11y", version("o11y"))
        self.tracer: Tracer = self.tracer_provider.get_tracer(*scope, schema_url=schema.SCHEMA_URL)
        self.meter: Meter = self.meter_provider.get_meter(*scope, schema_url=schema.SCHEMA_URL)
        self._counters: dict[str, Counter] = {}
        self._histograms: dict[str, Histogram] = {}
        self._observe_process()

    def counter(self, metric: schema.Metric) -> Counter:
        found = self._counters.get(metric.name)
        if found is None:
            found = self._counters[metric.name] = Counter(self.meter, metric)
        return found

    def histogram(self, metric: schema.Metric) -> Histogram:
        found = self._histograms.get(metric.name)
        if found is None:
            found = self._histograms[metric.name] = Histogram(self.meter, metric)
        return found

    def observable_gauge(self, metric: schema.Metric, read: Read) -> None:
        """Register a value that is read at each collection."""
        self._observe(self.meter.create_observable_gauge, metric, read)

    def observable_up_down_counter(self, metric: schema.Metric, read: Read) -> None:
        """Register a sum that goes up and down and is read at each collection."""
        self._observe(self.meter.create_observable_up_down_counter, metric, read)

    def observable_counter(self, metric: schema.Metric, read: Read) -> None:
        """Register a sum that is kept elsewhere and read at each collection."""
        self._observe(self.meter.create_observable_counter, metric, read)

    def shutdown(self, timeout_seconds: float = SHUTDOWN_SECONDS) -> None:
        """Send what is left, for at most this long."""
        self._providers.shutdown(timeout_seconds)

    @staticmethod
    def _observe(create: Callable[..., object], metric: schema.Metric, read: Read) -> None:
        def callback(_: CallbackOptions) -> Iterable[Observation]:
            return read()

        create(metric.name, [callback], metric.unit, metric.description)

    def _observe_process(self) -> None:
        process = psutil.Process()
        usage = CpuUsage(process)
        self.observable_gauge(schema.CPU_USAGE, lambda: [Observation(usage.percent())])
        self.observable_gauge(schema.MEMORY_USED, lambda: [Observation(process.memory_info().rss)])
