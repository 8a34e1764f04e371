"""What is recorded once is shown under all its names, each with its own labels."""

import re
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics import Counter as SdkCounter
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
from o11y.telemetry.instruments import Counter, Histogram
from o11y.telemetry.signals import Telemetry
from tests.support.collectors import HttpCollector
from tests.support.processes import ROOT
from tests.support.recorded import InMemoryReader, Recorded
from tests.support.telemetry_variables import set_variables

RECORDED, SHOWN = schema.GEN_AI_INFERENCE_DURATION, schema.OPENAI_API_DURATION
CHAT = {schema.OPERATION: "chat", schema.PROVIDER: "openai", schema.REQUEST_MODEL: "gpt"}
NAMED = {"provider": "openai-eu"}
"""What the recorded histogram is told for the other name alone."""

CALL = {"operation": "chat", "model": "gpt", **NAMED}


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
    reader.histogram.record(0.03, CHAT | ended | NAMED)
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


def test_what_another_name_is_not_for_is_not_in_it() -> None:
    reader = Reader(schema.MODEL_REQUEST_DURATION)
    reader.histogram.record(1, CHAT | {schema.OPERATION: "embeddings"})
    assert not reader.points(schema.MODEL_DURATION)
    assert len(reader.points(schema.MODEL_REQUEST_DURATION)) == 1


class Tokens:
    """A reader of all names, and the counter of tokens."""

    def __init__(self, limit: int = 2000, **options: Any) -> None:
        limits: CardinalityLimits = {SdkCounter: limit}
        self.reader = InMemoryReader(cardinality_limits=limits, **options)
        provider = MeterProvider([self.reader], shutdown_on_exit=False)
        self._counter = Counter(provider.get_meter("test"), schema.OPENAI_TOKENS)

    def add(self, amount: int, **labels: str) -> None:
        told = {"type": "input", "estimated": "false", "tenant": "a", "model": "gpt", **NAMED}
        told |= {key: value for key, value in labels.items() if key in told}
        modality = {schema.TOKEN_MODALITY: labels.get("modality", "text")}
        operation = {schema.OPERATION: labels.get("operation", "chat")}
        self._counter.add(amount, {**CHAT, **told, **modality, **operation})

    def counts(self, metric: schema.Metric, *labels: str) -> dict[tuple[Any, ...], float]:
        """Values by the values of these labels."""
        return {
            tuple(map(point.attributes.get, labels)): point.value
            for point in points(self.reader, metric)
        }


def test_tokens_are_counted_by_modality_and_not_by_tenant() -> None:
    tokens = Tokens()
    tokens.add(1, tenant="a")
    tokens.add(2, tenant="b")
    tokens.add(4, modality="audio")
    tokens.add(8, type="output")
    modality = schema.TOKEN_MODALITY
    assert tokens.counts(schema.GEN_AI_USAGE_INPUT, modality) == {("text",): 3, ("audio",): 4}
    assert tokens.counts(schema.GEN_AI_USAGE_OUTPUT, modality) == {("text",): 8}
    own = tokens.counts(schema.OPENAI_TOKENS, "type", "tenant", modality)
    assert own == {("input", "a", None): 5, ("input", "b", None): 2, ("output", "a", None): 8}
    for metric in (schema.GEN_AI_USAGE_INPUT, schema.OPENAI_TOKENS):
        assert set(metric.labels) >= set(points(tokens.reader, metric)[0].attributes)


@pytest.mark.parametrize("labels", [{"estimated": "true"}, {"operation": "embeddings"}])
def test_tokens_that_nobody_counted_or_generated_with_are_no_usage(labels: dict[str, str]) -> None:
    tokens = Tokens()
    tokens.add(1, **labels)
    assert tokens.counts(schema.GEN_AI_USAGE_INPUT) == {}
    assert tokens.counts(schema.OPENAI_TOKENS) == {(): 1}


def test_what_the_limit_keeps_out_may_be_of_any_type_and_is_in_none() -> None:
    tokens = Tokens(limit=2)
    for model in "abcd":
        tokens.add(1, model=model)
    [usage] = tokens.counts(schema.GEN_AI_USAGE_INPUT).values()
    assert usage < 4
    assert sum(point.value for point in points(tokens.reader, schema.OPENAI_TOKENS)) == 4


def test_tokens_since_the_last_export_are_those_under_the_other_name() -> None:
    tokens = Tokens(preferred_temporality={SdkCounter: AggregationTemporality.DELTA})
    tokens.add(1)
    assert tokens.counts(schema.GEN_AI_USAGE_INPUT) == {(): 1}
    tokens.add(2)
    assert tokens.counts(schema.GEN_AI_USAGE_INPUT) == {(): 2}


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
            0.03, {**CHAT, **NAMED, schema.RESPONSE_MODEL: answered}
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
    telemetry.histogram(RECORDED).record(0.03, CHAT | NAMED, span(1))
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
    assert {"gen_ai_client_inference_duration_seconds", "openai_api_duration_seconds"} <= names


EVERY = (*schema.ALIASES, *schema.FORMER)


@pytest.mark.parametrize("alias", EVERY, ids=lambda alias: alias.shown.name)
def test_both_names_are_of_one_measurement(alias: schema.Alias) -> None:
    assert alias.shown.kind == alias.recorded.kind
    assert alias.shown.kind in ("counter", "histogram")
    assert alias.shown.unit == alias.recorded.unit
    assert alias.shown.buckets == alias.recorded.buckets
    shown = {*alias.labels, *alias.fixed}
    assert set(alias.shown.labels) - shown <= {schema.LABEL_STATUS}
    assert shown <= set(alias.shown.labels)


def test_nothing_records_what_another_metric_shows() -> None:
    shown = {id(alias.shown) for alias in schema.ALIASES}
    names = [name for name, value in vars(schema).items() if id(value) in shown]
    instrument = re.compile(rf"(?:histogram|counter)\(schema\.({'|'.join(names)})\)")
    services = ("gateway", "llm-proxy", "vector-svc", "inference-svc", "shared")
    sources = (path for folder in services for path in (ROOT / folder).rglob("*.py"))
    assert not [path for path in sources if instrument.search(path.read_text(encoding="utf-8"))]
