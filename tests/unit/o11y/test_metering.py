"""Our counters and histograms beside the SDK's: readers can't tell them apart."""

import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricsData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    INVALID_SPAN_CONTEXT,
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    set_span_in_context,
    use_span,
)
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from o11y import schema
from o11y.metering import Instruments
from o11y.schema import Metric

RESOURCE = Resource({"service.name": "thing-svc"}, "https://resource")
SCOPE = InstrumentationScope("o11y", "1")
CALLS = Metric("things.calls", "counter", "{call}", "Calls made.", (), "original")
SECONDS = Metric("things.time", "histogram", "s", "Time.", (), "original", (0.125, 1.0, 8.0))


class Backend:
    """A provider with two readers; `ours` has our instruments, the other the SDK's."""

    def __init__(self, ours: bool) -> None:
        self.memory = InMemoryMetricReader()
        self.registry = CollectorRegistry()
        prometheus = PrometheusMetricReader(
            disable_target_info=True, scope_info_enabled=False, registry=self.registry
        )
        self.provider = MeterProvider([self.memory, prometheus], RESOURCE, shutdown_on_exit=False)
        self.meter = self.provider.get_meter(SCOPE.name, SCOPE.version)
        self.count: Any
        self.record: Any
        if ours:
            self.instruments = Instruments(RESOURCE, SCOPE, enabled=True)
            self.instruments.join([self.memory, prometheus])
            self.count = self.instruments.counter(CALLS).add
            self.record = self.instruments.histogram(SECONDS).record
        else:
            self.count = self.meter.create_counter(CALLS.name, CALLS.unit, CALLS.description).add
            self.record = self.meter.create_histogram(
                SECONDS.name,
                SECONDS.unit,
                SECONDS.description,
                explicit_bucket_boundaries_advisory=SECONDS.buckets,
            ).record

    def data(self) -> MetricsData | None:
        return self.memory.get_metrics_data()

    def sent(self) -> dict[str, Any]:
        """What OTLP's encoder makes of it, by metric, without times and exemplars."""
        request = encode_metrics(self.data() or MetricsData([]))
        [resource] = request.resource_metrics
        assert resource.schema_url == RESOURCE.schema_url
        assert [each.value.string_value for each in resource.resource.attributes] == ["thing-svc"]
        [scope] = resource.scope_metrics
        assert (scope.scope.name, scope.scope.version) == (SCOPE.name, SCOPE.version)
        found = {}
        for metric in scope.metrics:
            points = getattr(metric, metric.WhichOneof("data")).data_points
            for point in points:
                assert 0 < point.start_time_unix_nano <= point.time_unix_nano or point.flags == 0
                point.ClearField("start_time_unix_nano")
                point.ClearField("time_unix_nano")
                point.ClearField("exemplars")
                attributes = sorted(point.attributes, key=lambda each: each.key)
                del point.attributes[:]
                point.attributes.extend(attributes)
            ordered = sorted(points, key=str)
            del points[:]
            points.extend(ordered)
            found[metric.name] = metric
        return found

    def traces(self, name: str = SECONDS.name) -> set[tuple[float, int | None, int | None]]:
        """Value, trace and span of each exemplar of a metric, by default the histogram."""
        data = self.data()
        assert data
        return {
            (exemplar.value, exemplar.trace_id, exemplar.span_id)
            for scope in data.resource_metrics[0].scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
            for exemplar in point.exemplars
        }

    def scraped(self) -> list[Any]:
        """What Prometheus's own parser reads."""
        text = generate_latest(self.registry).decode()
        families = text_string_to_metric_families(text)
        return sorted(
            (
                family.name,
                family.type,
                family.documentation,
                family.unit,
                sorted((one.name, sorted(one.labels.items()), one.value) for one in family.samples),
            )
            for family in families
        )


@pytest.fixture
def ours() -> Iterator[Backend]:
    backend = Backend(ours=True)
    yield backend
    backend.provider.shutdown()


@pytest.fixture
def theirs() -> Iterator[Backend]:
    backend = Backend(ours=False)
    yield backend
    backend.provider.shutdown()


LABELS: list[dict[str, Any]] = [
    {},
    {"a": "x", "n": 1},
    {"n": 1, "a": "x"},
    {"a": "y", "ok": True},
    {"a": 'é"\\\n', "tags": ("p", "q")},
    {"ok": True, "a": "y"},
]


@pytest.mark.parametrize("seed", range(5))
def test_measurements_are_reported_as_the_sdk_would(
    seed: int, ours: Backend, theirs: Backend
) -> None:
    chance = random.Random(seed)
    values = [0, 0.0625, 0.125, 0.25, 1, 1.0, 5, 8.0, 11, 1 << 30]  # sums of these are exact
    for _ in range(200):
        labels, value = chance.choice(LABELS), chance.choice(values)
        amount = chance.choice((0, 1, 7, 0.25))
        for backend in (ours, theirs):
            backend.count(amount, labels)
            backend.record(value, labels)
    assert ours.sent() == theirs.sent()
    assert ours.scraped() == theirs.scraped()
    ours.count(1, LABELS[1])
    theirs.count(1, LABELS[1])
    assert ours.sent() == theirs.sent()  # sums go on from reading to reading


def test_what_goes_down_is_no_count(ours: Backend, theirs: Backend) -> None:
    for backend in (ours, theirs):
        backend.count(3)
        backend.count(-1)
    assert ours.sent() == theirs.sent()


def test_nothing_measured_is_nothing_reported(ours: Backend) -> None:
    assert ours.data() is None
    assert ours.scraped() == []


def test_an_exemplar_is_the_last_traced_value_of_its_bucket(ours: Backend, theirs: Backend) -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    unsampled = NonRecordingSpan(SpanContext(1, 2, False, TraceFlags(0)))
    for value in (0.03125, 0.0625, 5, 50):
        with tracer.start_as_current_span("work"):
            ours.record(value)
            theirs.record(value)
    other = set_span_in_context(tracer.start_span("other"))
    with use_span(unsampled):
        for backend in (ours, theirs):
            backend.record(7)
            backend.record(0.5, context=other)
    for backend in (ours, theirs):
        backend.record(0.015625)
    traces = ours.traces()
    assert traces == theirs.traces()
    assert {value for value, _, _ in traces} == {0.0625, 0.5, 5, 50}
    assert ours.sent() == theirs.sent()


def test_the_exemplar_of_a_sum_is_its_last_traced_amount(ours: Backend) -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    for amount in (1, 0.5, 0):  # nothing added is no example of what was
        with tracer.start_as_current_span("work") as span:
            ours.count(amount)
            if amount:
                last = (amount, span.get_span_context().trace_id, span.get_span_context().span_id)
    other = tracer.start_span("other").get_span_context()
    ours.instruments.counter(CALLS).add(2, {"a": "x"}, other)
    with use_span(NonRecordingSpan(SpanContext(1, 2, False, TraceFlags(0)))):
        ours.count(7)
    ours.count(8)
    assert ours.traces(CALLS.name) == {last, (2, other.trace_id, other.span_id)}


def test_labels_that_are_kept_are_the_same_as_those_that_are_not(
    ours: Backend, theirs: Backend
) -> None:
    series = ours.instruments.histogram(SECONDS).of({"a": "x"})
    total = ours.instruments.counter(CALLS).of({"a": "x"})
    for value in (0.0625, 3, 0.25, 3):
        series.record(value, INVALID_SPAN_CONTEXT)
        ours.record(value, {"a": "x"})
        total.add(value, INVALID_SPAN_CONTEXT)
        ours.count(value, {"a": "x"})
        for _ in range(2):
            theirs.record(value, {"a": "x"})
            theirs.count(value, {"a": "x"})
    assert ours.sent() == theirs.sent()


def test_labels_without_a_value_are_not_reported(ours: Backend) -> None:
    ours.instruments.histogram(SECONDS).of({"a": "x"})
    ours.instruments.counter(CALLS).of({"a": "x"})
    assert ours.data() is None
    ours.count(0, {"a": "y"})
    [point] = ours.sent()[CALLS.name].sum.data_points
    assert point.as_int == 0


def test_gauges_and_sums_of_the_sdk_come_along(ours: Backend, theirs: Backend) -> None:
    def read(_: CallbackOptions) -> list[Observation]:
        return [Observation(3, {"a": "x"})]

    for backend in (ours, theirs):
        backend.meter.create_observable_gauge("things.there", [read], "{thing}", "Things.")
        backend.meter.create_observable_up_down_counter("things.open", [read])
        backend.count(1)
        backend.record(1)
    assert set(ours.sent()) == {"things.there", "things.open", CALLS.name, SECONDS.name}
    assert ours.sent() == theirs.sent()
    assert ours.scraped() == theirs.scraped()


def test_what_is_of_another_scope_stays_there(ours: Backend) -> None:
    ours.provider.get_meter("other").create_counter("others").add(1)
    ours.count(1)
    data = ours.data()
    assert data
    scopes = data.resource_metrics[0].scope_metrics
    assert {scope.scope.name: [each.name for each in scope.metrics] for scope in scopes} == {
        "other": ["others"],
        "o11y": [CALLS.name],
    }


def test_a_metric_is_one_whoever_asks_for_it(ours: Backend) -> None:
    assert ours.instruments.counter(CALLS) is ours.instruments.counter(CALLS)
    assert ours.instruments.histogram(SECONDS) is ours.instruments.histogram(SECONDS)


def test_threads_lose_nothing_while_it_is_read(ours: Backend) -> None:
    start = threading.Barrier(5)

    def measure(number: int) -> None:
        start.wait()
        for at in range(2_000):
            ours.count(1, {"a": "x"} if at % 2 else {"b": str(at % 50)})
            ours.record(0.5, {"thread": str(number), "at": str(at % 50)})

    threads = [threading.Thread(target=measure, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    start.wait()
    while any(thread.is_alive() for thread in threads):
        ours.data()
    sent = ours.sent()
    assert sum(point.as_int for point in sent[CALLS.name].sum.data_points) == 8_000
    assert sum(point.count for point in sent[SECONDS.name].histogram.data_points) == 8_000


def test_what_is_turned_off_counts_nothing() -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], RESOURCE, shutdown_on_exit=False)
    instruments = Instruments(RESOURCE, SCOPE, enabled=False)
    instruments.join([reader])
    instruments.counter(CALLS).add(1)
    instruments.histogram(SECONDS).record(1)
    instruments.histogram(schema.MODEL_DURATION).of({}).record(1, INVALID_SPAN_CONTEXT)
    instruments.counter(schema.MODEL_TOKENS).of({}).add(1, INVALID_SPAN_CONTEXT)
    assert reader.get_metrics_data() is None
    provider.shutdown()
