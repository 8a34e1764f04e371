"""What is recorded once is shown under all its names, each with its own labels."""

import re
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics import Histogram as SdkHistogram
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    CardinalityLimits,
    InMemoryMetricReader,
)
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation
from opentelemetry.trace import SpanContext, TraceFlags
from prometheus_client import REGISTRY

from o11y.settings import ServiceSettings
from o11y.telemetry import schema
from o11y.telemetry.instruments import Histogram
from o11y.telemetry.signals import Telemetry
from tests.support.collectors import HttpCollector
from tests.support.processes import ROOT
from tests.support.recorded import InMemoryReader, Recorded
from tests.support.telemetry_variables import set_variables

RECORDED, SHOWN = schema.GEN_AI_DURATION, schema.OPENAI_API_DURATION
CHAT = {schema.OPERATION: "chat", schema.PROVIDER: "openai", schema.REQUEST_MODEL: "gpt"}
CALL = {"operation": "chat", "provider": "openai", "model": "gpt"}


class Reader:
    """A reader of all names, and the histogram whose values it reads."""

    def __init__(self, metric: schema.Metric = RECORDED, limit: int = 2000, **options: Any) -> None:
        limits: CardinalityLimits = {SdkHistogram: limit}
        self._reader = InMemoryReader(cardinality_limits=limits, **options)
        provider = MeterProvider([self._reader], shutdown_on_exit=False)
        self.histogram = Histogram(provider.get_meter("test"), metric)

    def points(self, metric: schema.Metric = SHOWN) -> list[Any]:
        return points(self._reader, metric)


def points(reader: InMemoryMetricReader, metric: schema.Metric) -> list[Any]:
    data = reader.get_metrics_data()
    return [
        point
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for found in scope.metrics
        if found.name == metric.name
        for point in found.data.data_points
    ]


def span(number: int) -> SpanContext:
    return SpanContext(number, number, is_remote=False, trace_flags=TraceFlags(1))


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, "ok"), (schema.ERROR_CANCELLED, "cancelled"), ("timeout", "error"), ("500", "error")],
)
def test_the_other_name_has_labels_of_its_own(error: str | None, status: str) -> None:
    reader = Reader()
    ended = {schema.ERROR_TYPE: error} if error else {}
    reader.histogram.record(0.03, CHAT | ended)
    [point] = reader.points()
    assert point.attributes == CALL | {"status": status}
    [point] = reader.points(RECORDED)
    assert point.attributes == CHAT | ended


def test_points_that_differ_in_what_it_leaves_out_are_one() -> None:
    reader = Reader()
    for answered, seconds in (("gpt-1", 0.03), ("gpt-2", 0.5), ("gpt-2", 100.0)):
        reader.histogram.record(seconds, CHAT | {schema.RESPONSE_MODEL: answered})
    [point] = reader.points()
    assert (point.count, point.sum, point.min, point.max) == (3, 100.53, 0.03, 100.0)
    assert list(point.explicit_bounds) == list(SHOWN.buckets)
    filled = {
        bound: count
        for bound, count in zip([*SHOWN.buckets, "more"], point.bucket_counts, strict=True)
        if count
    }
    assert filled == {0.04: 1, 0.64: 1, "more": 1}
    assert len(reader.points(RECORDED)) == 2


def test_each_point_keeps_its_exemplars() -> None:
    reader = Reader()
    for number, answered in enumerate(("gpt-1", "gpt-2"), 1):
        reader.histogram.record(0.03, CHAT | {schema.RESPONSE_MODEL: answered}, span(number))
    [point] = reader.points()
    assert {each.trace_id for each in point.exemplars} == {1, 2}


def test_delta_points_have_what_came_since_the_last_ones() -> None:
    reader = Reader(preferred_temporality={SdkHistogram: AggregationTemporality.DELTA})
    counts = []
    for values in ((1, 2), (3,), ()):
        for value in values:
            reader.histogram.record(value, CHAT)
        counts.append([(point.count, point.sum) for point in reader.points()])
    assert counts == [[(2, 3)], [(1, 3)], []]


def test_exponential_histograms_are_added_at_the_coarser_scale() -> None:
    aggregation = {SdkHistogram: ExponentialBucketHistogramAggregation()}
    both, alone = (Reader(preferred_aggregation=aggregation) for _ in range(2))
    for number, answered in ((0.0, "gpt-1"), (0.03, "gpt-1"), (0.031, "gpt-2"), (90.0, "gpt-2")):
        both.histogram.record(number, CHAT | {schema.RESPONSE_MODEL: answered})
        alone.histogram.record(number, CHAT)
    [added], [expected] = both.points(), alone.points()
    assert len({point.scale for point in both.points(RECORDED)}) == 2
    assert (added.count, added.zero_count, added.sum) == (4, 1, expected.sum)
    assert (added.scale, added.positive.offset) == (expected.scale, expected.positive.offset)
    assert list(added.positive.bucket_counts) == list(expected.positive.bucket_counts)
    assert not any(added.negative.bucket_counts)


def test_what_the_limit_keeps_out_is_kept_out_under_both_names() -> None:
    reader = Reader(limit=2)
    for model in ("a", "b", "c", "d"):
        reader.histogram.record(1, CHAT | {schema.REQUEST_MODEL: model})
    for metric in (RECORDED, SHOWN):
        found = reader.points(metric)
        [overflow] = [each for each in found if each.attributes == {"otel.metric.overflow": True}]
        assert overflow.count + sum(each.count for each in found if each is not overflow) == 4


def test_a_search_is_no_call_of_a_provider() -> None:
    reader = Reader()
    reader.histogram.record(1, CHAT | {schema.OPERATION: "retrieval"})
    assert not reader.points()
    assert len(reader.points(RECORDED)) == 1


def test_the_device_is_a_label_of_the_original_name_alone() -> None:
    reader = Reader(schema.MODEL_REQUEST_DURATION)
    reader.histogram.record(1, CHAT | {schema.MODEL_DEVICE: "cpu"})
    [point] = reader.points(schema.MODEL_DURATION)
    assert point.attributes == {"model": "gpt", "device": "cpu", "status": "ok"}
    [point] = reader.points(schema.MODEL_REQUEST_DURATION)
    assert point.attributes == CHAT


def test_the_page_shows_both_names(recorded: Recorded) -> None:
    for answered in ("gpt-1", "gpt-2"):
        recorded.telemetry.histogram(RECORDED).record(
            0.03, CHAT | {schema.RESPONSE_MODEL: answered}
        )
    read = recorded.telemetry.registry.get_sample_value
    by = CALL | {"status": "ok"}
    assert read("openai_api_duration_seconds_count", by) == 2
    assert read("openai_api_duration_seconds_sum", by) == 0.06
    assert read("openai_api_duration_seconds_bucket", by | {"le": "0.02"}) == 0
    assert read("openai_api_duration_seconds_bucket", by | {"le": "0.04"}) == 2


def test_otlp_sends_both_names(
    collector: HttpCollector, settings: ServiceSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_variables(
        monkeypatch,
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{collector.port}",
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
    )
    telemetry = Telemetry("thing-svc", settings)
    telemetry.histogram(RECORDED).record(0.03, CHAT, span(1))
    telemetry.shutdown()
    sent = {
        metric.name: metric.histogram.data_points
        for message in collector.messages()
        if isinstance(message, ExportMetricsServiceRequest)
        for resource in message.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    [recorded], [shown] = sent[RECORDED.name], sent[SHOWN.name]
    labels = {each.key: each.value.string_value for each in shown.attributes}
    assert labels == CALL | {"status": "ok"}
    assert list(shown.bucket_counts) == list(recorded.bucket_counts)
    assert list(shown.exemplars) == list(recorded.exemplars)
    assert len(shown.exemplars) == 1


def test_a_reader_that_a_package_brings_has_both_names(
    settings: ServiceSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opentelemetry.exporter.prometheus.start_http_server", lambda **_: None)
    set_variables(monkeypatch, OTEL_METRICS_EXPORTER="prometheus")
    telemetry = Telemetry("thing-svc", settings)
    telemetry.histogram(RECORDED).record(0.03, CHAT)
    names = {family.name for family in REGISTRY.collect()}
    telemetry.shutdown()
    assert {"gen_ai_client_operation_duration_seconds", "openai_api_duration_seconds"} <= names


@pytest.mark.parametrize("alias", schema.ALIASES, ids=lambda alias: alias.shown.name)
def test_both_names_are_of_one_measurement(alias: schema.Alias) -> None:
    assert (alias.shown.kind, alias.recorded.kind) == ("histogram", "histogram")
    assert alias.shown.unit == alias.recorded.unit
    assert alias.shown.buckets == alias.recorded.buckets
    assert {*alias.labels, schema.LABEL_STATUS} == set(alias.shown.labels)


def test_nothing_records_what_another_metric_shows() -> None:
    shown = {id(alias.shown) for alias in schema.ALIASES}
    names = [name for name, value in vars(schema).items() if id(value) in shown]
    instrument = re.compile(rf"histogram\(schema\.({'|'.join(names)})\)")
    services = ("gateway", "llm-proxy", "vector-svc", "inference-svc", "shared")
    sources = (path for folder in services for path in (ROOT / folder).rglob("*.py"))
    assert not [path for path in sources if instrument.search(path.read_text(encoding="utf-8"))]
