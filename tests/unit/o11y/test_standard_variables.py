"""The variables of OpenTelemetry's specification do what it says they do."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from opentelemetry._logs import LogRecord
from opentelemetry.metrics import Observation
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    set_span_in_context,
)

from o11y.settings import ServiceSettings
from o11y.telemetry import schema
from o11y.telemetry.signals import Telemetry
from tests.support.certificates import certificate_for
from tests.support.collectors import (
    Collector,
    GrpcCollector,
    HttpCollector,
    log_bodies,
    metric_names,
    span_names,
    spans,
)
from tests.support.telemetry_variables import set_variables
from tests.support.waiting import until

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
Start = Callable[..., Telemetry]


@pytest.fixture
def start(settings: ServiceSettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """The telemetry of a process with these variables."""
    with ExitStack() as running:

        def made(**variables: str) -> Telemetry:
            set_variables(monkeypatch, **variables)
            telemetry = Telemetry("thing-svc", settings)
            running.callback(telemetry.shutdown)
            return telemetry

        yield made


@pytest.fixture
def other() -> Iterator[HttpCollector]:
    collector = HttpCollector()
    yield collector
    collector.stop()


@pytest.fixture
def grpc_collector() -> Iterator[GrpcCollector]:
    collector = GrpcCollector()
    yield collector
    collector.stop()


def url(collector: Collector) -> str:
    return f"http://127.0.0.1:{collector.port}"


def common(collector: Collector) -> dict[str, str]:
    return {ENDPOINT: url(collector), "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}


def work(telemetry: Telemetry) -> None:
    """One span, one count, one value and one log record, all sent."""
    with telemetry.tracer.start_as_current_span("work"):
        telemetry.counter(schema.MODEL_TOKENS).add(1)
        telemetry.histogram(schema.MODEL_DURATION).record(0.5)
        telemetry.logger_provider.get_logger("things").emit(LogRecord(body="hello"))
    telemetry.shutdown()


def signals(collector: Collector) -> set[str]:
    ends = (("traces", span_names), ("logs", log_bodies), ("metrics", metric_names))
    return {signal for signal, names in ends if names(collector)}


def points(collector: HttpCollector, metric: str) -> list[Any]:
    """What arrived of a metric: a sum or a histogram."""
    return [
        getattr(found, found.WhichOneof("data"))
        for message in collector.messages()
        if isinstance(message, ExportMetricsServiceRequest)
        for resource in message.resource_metrics
        for scope in resource.scope_metrics
        for found in scope.metrics
        if found.name == metric
    ]


def test_a_signal_has_an_endpoint_of_its_own(
    collector: HttpCollector, other: HttpCollector, start: Start
) -> None:
    own = {"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": f"{url(other)}/mine/v1/logs"}
    work(start(**common(collector), **own))
    assert (signals(collector), signals(other)) == ({"traces", "metrics"}, {"logs"})
    assert {path for path, _, _ in other.received} == {"/mine/v1/logs"}


def test_a_signal_has_a_protocol_of_its_own(
    collector: HttpCollector, grpc_collector: GrpcCollector, start: Start
) -> None:
    work(
        start(
            **common(collector),
            OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=url(grpc_collector),
            OTEL_EXPORTER_OTLP_TRACES_PROTOCOL="grpc",
        )
    )
    assert (signals(collector), signals(grpc_collector)) == ({"metrics", "logs"}, {"traces"})


def test_a_signal_has_headers_of_its_own(collector: HttpCollector, start: Start) -> None:
    work(
        start(
            **common(collector),
            OTEL_EXPORTER_OTLP_HEADERS="api-key=all",
            OTEL_EXPORTER_OTLP_TRACES_HEADERS="api-key=traces",
        )
    )
    keys = {
        path.rpartition("/")[2]: headers["api-key"]
        for (path, _, _), headers in zip(collector.received, collector.headers, strict=True)
    }
    assert keys == {"traces": "traces", "metrics": "all", "logs": "all"}


@pytest.mark.parametrize("compression", ["gzip", "deflate", "none"])
def test_a_signal_has_a_compression_of_its_own(
    compression: str, collector: HttpCollector, start: Start
) -> None:
    work(
        start(
            **common(collector),
            OTEL_METRICS_EXPORTER="none",
            OTEL_LOGS_EXPORTER="none",
            OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
            OTEL_EXPORTER_OTLP_TRACES_COMPRESSION=compression,
        )
    )
    [headers] = collector.headers
    assert headers.get("content-encoding", "none") == compression


def test_grpc_compresses(grpc_collector: GrpcCollector, start: Start) -> None:
    work(start(OTEL_EXPORTER_OTLP_COMPRESSION="gzip", **{ENDPOINT: url(grpc_collector)}))
    assert signals(grpc_collector) == {"traces", "metrics", "logs"}


@pytest.mark.parametrize("scope", ["", "TRACES_"])
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_certificates_prove_both_sides(
    protocol: str, scope: str, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for bundle in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # requests lets them win
        monkeypatch.delenv(bundle, raising=False)
    tls = certificate_for("127.0.0.1", tmp_path)
    made = GrpcCollector if protocol == "grpc" else HttpCollector
    collector: Collector = made(tls=tls)
    with ExitStack() as running:
        running.callback(collector.stop)
        telemetry = start(
            **{
                ENDPOINT: url(collector).replace("http:", "https:"),
                f"OTEL_EXPORTER_OTLP_{scope}CERTIFICATE": str(tls.certificate),
                f"OTEL_EXPORTER_OTLP_{scope}CLIENT_CERTIFICATE": str(tls.certificate),
                f"OTEL_EXPORTER_OTLP_{scope}CLIENT_KEY": str(tls.key),
            },
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_METRICS_EXPORTER="none",
            OTEL_LOGS_EXPORTER="none",
        )
        work(telemetry)
        assert span_names(collector) == {"work": 1}


@pytest.mark.parametrize(
    "variable", ["OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT"]
)
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_an_export_takes_no_longer_than_its_time_out(
    protocol: str, variable: str, start: Start
) -> None:
    collector: Collector = HttpCollector() if protocol != "grpc" else GrpcCollector()
    with ExitStack() as running:
        running.callback(collector.stop)
        collector.conduct = "hangs"
        telemetry = start(
            **{ENDPOINT: url(collector), variable: "0.2"},
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_METRICS_EXPORTER="none",
            OTEL_LOGS_EXPORTER="none",
        )
        began = time.monotonic()
        work(telemetry)
        assert 0.2 <= time.monotonic() - began < 2.5  # telemetry.shutdown waits for 3 s


@pytest.mark.parametrize(
    ("variables", "sent"),
    [
        ({}, {"a": "x" * 50, "b": "1", "c": "2"}),
        ({"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "5"}, {"a": "xxxxx", "b": "1", "c": "2"}),
        ({"OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": "4"}, {"a": "xxxx", "b": "1", "c": "2"}),
        ({"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "1"}, {"c": "2"}),
    ],
)
def test_attributes_of_spans_have_limits(
    variables: dict[str, str], sent: dict[str, str], collector: HttpCollector, start: Start
) -> None:
    telemetry = start(**common(collector), **variables)
    attributes = {"a": "x" * 50, "b": "1", "c": "2"}
    telemetry.tracer.start_span("work", attributes=attributes).end()
    telemetry.shutdown()
    [span] = spans(collector)
    assert {each.key: each.value.string_value for each in span.attributes} == sent
    assert span.dropped_attributes_count == 3 - len(sent)


def test_events_of_spans_have_a_limit(collector: HttpCollector, start: Start) -> None:
    telemetry = start(**common(collector), OTEL_SPAN_EVENT_COUNT_LIMIT="2")
    span = telemetry.tracer.start_span("work")
    for number in range(3):
        span.add_event(str(number))
    span.end()
    telemetry.shutdown()
    [sent] = spans(collector)
    assert ([event.name for event in sent.events], sent.dropped_events_count) == (["1", "2"], 1)


@pytest.mark.parametrize(
    ("sampler", "argument", "roots", "of_sampled", "of_unsampled"),
    [
        (None, None, True, True, False),
        ("always_on", None, True, True, True),
        ("always_off", None, False, False, False),
        ("parentbased_always_off", None, False, True, False),
        ("ParentBased_TraceIdRatio", "0", False, True, False),
        ("traceidratio", "0", False, False, False),
        ("traceidratio", "1", True, True, True),
    ],
)
def test_the_sampler_decides(
    sampler: str | None,
    argument: str | None,
    roots: bool,
    of_sampled: bool,
    of_unsampled: bool,
    start: Start,
) -> None:
    given = {"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": argument}
    tracer = start(**{key: value for key, value in given.items() if value}).tracer
    sampled, unsampled = (
        set_span_in_context(NonRecordingSpan(SpanContext(7, 8, True, TraceFlags(flags))))
        for flags in (1, 0)
    )
    recording = [tracer.start_span("a", parent).is_recording() for parent in (None, sampled)]
    assert [*recording, tracer.start_span("a", unsampled).is_recording()] == [
        roots,
        of_sampled,
        of_unsampled,
    ]


@pytest.mark.parametrize(
    ("filter_", "exemplars"), [(None, 1), ("always_on", 2), ("always_off", 0), ("trace_based", 1)]
)
def test_the_filter_chooses_exemplars(
    filter_: str | None, exemplars: int, collector: HttpCollector, start: Start
) -> None:
    given = {"OTEL_METRICS_EXEMPLAR_FILTER": filter_} if filter_ else {}
    telemetry = start(**common(collector), **given)
    duration = telemetry.histogram(schema.MODEL_DURATION)
    with telemetry.tracer.start_as_current_span("work"):
        duration.record(0.5)
    duration.record(50)
    telemetry.shutdown()
    [histogram] = points(collector, schema.MODEL_DURATION.name)
    [point] = histogram.data_points
    assert len(point.exemplars) == exemplars


@pytest.mark.parametrize(
    ("preference", "counters", "gauges"),
    [
        (None, "CUMULATIVE", "CUMULATIVE"),
        ("cumulative", "CUMULATIVE", "CUMULATIVE"),
        ("Delta", "DELTA", "CUMULATIVE"),
        ("lowmemory", "DELTA", "CUMULATIVE"),
    ],
)
def test_the_temporality_is_the_one_preferred_and_the_page_stays_cumulative(
    preference: str | None,
    counters: str,
    gauges: str,
    collector: HttpCollector,
    start: Start,
) -> None:
    variable = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
    telemetry = start(
        **common(collector),
        **({variable: preference} if preference else {}),
        OTEL_METRIC_EXPORT_INTERVAL="20",
    )
    telemetry.observable_up_down_counter(schema.HTTP_SERVER_ACTIVE, lambda: [Observation(3)])
    tokens = telemetry.counter(schema.MODEL_TOKENS)
    tokens.add(1)
    until(lambda: bool(points(collector, schema.MODEL_TOKENS.name)))
    tokens.add(2)
    assert telemetry.registry.get_sample_value("model_tokens_generated_total") == 3
    telemetry.shutdown()
    sent = points(collector, schema.MODEL_TOKENS.name)
    named = AggregationTemporality.Name
    assert {named(each.aggregation_temporality)[24:] for each in sent} == {counters}
    values = [point.as_int for each in sent for point in each.data_points]
    assert (sum(values) if counters == "DELTA" else values[-1]) == 3
    active = points(collector, schema.HTTP_SERVER_ACTIVE.name)
    assert {named(each.aggregation_temporality)[24:] for each in active} == {gauges}


def test_histograms_may_be_exponential(collector: HttpCollector, start: Start) -> None:
    variable = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"
    work(start(**common(collector), **{variable: "base2_exponential_bucket_histogram"}))
    [histogram] = points(collector, schema.MODEL_DURATION.name)
    assert histogram.data_points[0].scale


def test_metrics_are_sent_at_their_interval(collector: HttpCollector, start: Start) -> None:
    telemetry = start(**common(collector), OTEL_METRIC_EXPORT_INTERVAL="20")
    telemetry.counter(schema.MODEL_TOKENS).add(1)
    until(lambda: len(points(collector, schema.MODEL_TOKENS.name)) >= 2)


def test_spans_are_sent_when_their_delay_is_over(collector: HttpCollector, start: Start) -> None:
    telemetry = start(**common(collector), OTEL_BSP_SCHEDULE_DELAY="10")
    telemetry.tracer.start_span("work").end()
    until(lambda: bool(span_names(collector)))


def test_a_batch_has_its_size(collector: HttpCollector, start: Start) -> None:
    telemetry = start(
        **common(collector),
        OTEL_BSP_SCHEDULE_DELAY="60000",
        OTEL_BSP_MAX_EXPORT_BATCH_SIZE="2",
        OTEL_METRICS_EXPORTER="none",
    )
    for _ in range(5):
        telemetry.tracer.start_span("work").end()
    telemetry.shutdown()
    assert span_names(collector) == {"work": 5}
    assert len(collector.received) >= 3


def test_what_is_disabled_sends_nothing(collector: HttpCollector, start: Start) -> None:
    telemetry = start(**common(collector), OTEL_SDK_DISABLED="true")
    work(telemetry)
    assert not telemetry.tracer.start_span("work").is_recording()
    assert collector.received == []


@pytest.mark.parametrize(
    ("variables", "name", "environment"),
    [
        ({}, "thing-svc", None),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=a,deployment.environment.name=b"}, "a", "b"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=a", "OTEL_SERVICE_NAME": "c"}, "c", None),
    ],
)
def test_the_resource_is_what_the_variables_say(
    variables: dict[str, str], name: str, environment: str | None, start: Start
) -> None:
    telemetry = start(**variables)
    assert telemetry.service == name
    assert telemetry.resource.attributes.get("deployment.environment.name") == environment
