"""Counters and histograms of the schema, with labels bound or given."""

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.trace import Span, set_span_in_context

from o11y.settings import ServiceSettings
from o11y.telemetry import schema
from o11y.telemetry.instruments import Traced
from o11y.telemetry.signals import Telemetry
from tests.support.recorded import Point, Recorded, points

TOKENS, SECONDS = schema.MODEL_TOKENS, schema.MODEL_DURATION
LABELS = {schema.LABEL_MODEL: "m"}


def test_labels_may_be_bound_or_given(recorded: Recorded) -> None:
    counter = recorded.telemetry.counter(TOKENS)
    counter.add(2, LABELS)
    counter.bind(LABELS).add(3)
    histogram = recorded.telemetry.histogram(SECONDS)
    histogram.record(0.1, LABELS)
    histogram.bind(LABELS).record(0.2)
    assert recorded.points(TOKENS.name) == [Point({**LABELS}, 5)]
    assert recorded.points(SECONDS.name) == [Point({**LABELS}, 2)]


def test_the_order_of_labels_is_no_difference(recorded: Recorded) -> None:
    counter = recorded.telemetry.counter(TOKENS)
    counter.add(1, {schema.LABEL_MODEL: "m", schema.LABEL_DEVICE: "cpu"})
    counter.add(1, {schema.LABEL_DEVICE: "cpu", schema.LABEL_MODEL: "m"})
    [point] = recorded.points(TOKENS.name)
    assert point.value == 2


def test_a_metric_is_one_whoever_asks_for_it(recorded: Recorded) -> None:
    telemetry = recorded.telemetry
    assert telemetry.counter(TOKENS) is telemetry.counter(TOKENS)
    assert telemetry.histogram(SECONDS) is telemetry.histogram(SECONDS)


@pytest.mark.parametrize("by", ["context", "span context", "current"])
def test_an_exemplar_points_at_the_span_a_value_belongs_to(
    by: str, settings: ServiceSettings
) -> None:
    reader = InMemoryMetricReader()
    telemetry = Telemetry("thing-svc", settings, metric_readers=[reader])
    with telemetry.tracer.start_as_current_span("around") as around:
        span = telemetry.tracer.start_span("work") if by != "current" else around
        telemetry.histogram(SECONDS).bind(LABELS).record(0.5, traced(span, by))
    data = reader.get_metrics_data()
    assert data
    [exemplar] = [
        exemplar
        for scope in data.resource_metrics[0].scope_metrics
        for metric in scope.metrics
        if metric.name == SECONDS.name
        for point in metric.data.data_points
        for exemplar in point.exemplars
    ]
    assert exemplar.span_id == span.get_span_context().span_id
    telemetry.shutdown()


def traced(span: Span, by: str) -> Traced:
    match by:
        case "context":
            return set_span_in_context(span)
        case "span context":
            return span.get_span_context()
    return None


def test_label_sets_beyond_the_sdks_limit_share_one_series(settings: ServiceSettings) -> None:
    reader = InMemoryMetricReader()
    telemetry = Telemetry("thing-svc", settings, metric_readers=[reader])
    counter = telemetry.counter(TOKENS)
    for number in range(2_010):
        counter.add(1, {schema.LABEL_MODEL: str(number)})
    found = points(reader, TOKENS.name)
    assert len(found) == 2_001
    assert Point({"otel.metric.overflow": True}, 10) in found
    telemetry.shutdown()
