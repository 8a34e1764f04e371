"""The providers of a process: what they say of it, what they keep to themselves, how they end."""

import threading
import time
from collections.abc import Iterator, Sequence
from unittest.mock import Mock

import pytest
from opentelemetry import metrics, trace
from opentelemetry._logs import LogRecord
from opentelemetry.metrics import Observation
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from prometheus_client.openmetrics.exposition import generate_latest

from o11y.settings import ServiceSettings
from o11y.telemetry import schema
from o11y.telemetry.signals import CpuUsage, Telemetry
from tests.support.collectors import HttpCollector
from tests.support.recorded import Names, Recorded
from tests.support.telemetry_variables import set_variables


@pytest.mark.parametrize(("variable", "name"), [(None, "thing-svc"), ("other-svc", "other-svc")])
def test_spans_name_the_service_they_come_from(
    variable: str | None, name: str, settings: ServiceSettings
) -> None:
    recorded = Recorded("thing-svc", settings.model_copy(update={"otel_service_name": variable}))
    recorded.telemetry.tracer.start_span("work").end()
    resource = recorded.span("work").resource.attributes
    assert resource["service.name"] == recorded.telemetry.service == name
    assert resource["service.namespace"] == "o11y-4-ai"
    assert resource["service.version"]
    assert resource["service.instance.id"] == recorded.telemetry.instance
    recorded.telemetry.shutdown()


def test_resource_attributes_of_the_environment_are_kept(
    monkeypatch: pytest.MonkeyPatch, settings: ServiceSettings
) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    recorded = Recorded("thing-svc", settings)
    recorded.telemetry.tracer.start_span("work").end()
    resource = recorded.span("work").resource.attributes
    assert resource["deployment.environment.name"] == "test"
    recorded.telemetry.shutdown()


def test_two_processes_of_a_service_differ(settings: ServiceSettings) -> None:
    made = [Telemetry("thing-svc", settings) for _ in range(2)]
    assert made[0].instance != made[1].instance
    for telemetry in made:
        telemetry.shutdown()


def test_nothing_global_is_set(recorded: Recorded) -> None:
    assert trace.get_tracer_provider() is not recorded.telemetry.tracer_provider
    assert not isinstance(trace.get_tracer_provider(), TracerProvider)
    assert metrics.get_meter_provider() is not recorded.telemetry.meter_provider


def exposed(recorded: Recorded) -> str:
    text: bytes = generate_latest(recorded.telemetry.registry)
    return text.decode()


@pytest.mark.parametrize(
    ("metric", "series"),
    [
        (schema.OPENAI_API_DURATION, "openai_api_duration_seconds_bucket"),
        (schema.OPENAI_COST, "openai_cost_usd_total"),
        (schema.OPENAI_TOKENS, "openai_tokens_used_total"),
        (schema.OPENAI_UNPRICED, "openai_unpriced_calls_total"),
        (schema.MODEL_DURATION, "model_inference_duration_seconds_bucket"),
        (schema.MODEL_TOKENS, "model_tokens_generated_total"),
        (schema.MODEL_FIRST_TOKEN, "gen_ai_server_time_to_first_token_seconds_bucket"),
        (schema.VECTOR_OPERATION_DURATION, "vector_operation_duration_seconds_bucket"),
        (schema.VECTOR_SIMILARITY, "vector_search_similarity_bucket"),
        (schema.VECTOR_DISTANCE, "vector_search_distance_bucket"),
        (schema.VECTOR_DOCUMENTS, "vector_documents"),
        (schema.PIPELINE_STAGE_DURATION, "pipeline_stage_duration_seconds_bucket"),
        (schema.HTTP_CLIENT_DURATION, "http_client_request_duration_seconds_bucket"),
        (schema.CPU_USAGE, "cpu_usage_percent"),
        (schema.MEMORY_USED, "memory_used_bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_prometheus_shows_a_metric_under_the_name_its_users_know(
    metric: schema.Metric, series: str, recorded: Recorded
) -> None:
    match metric.kind:
        case "counter":
            recorded.telemetry.counter(metric).add(1)
        case "histogram":
            recorded.telemetry.histogram(metric).record(1)
        case "gauge" if metric not in (schema.CPU_USAGE, schema.MEMORY_USED):
            recorded.telemetry.observable_gauge(metric, lambda: [Observation(1)])
    lines = exposed(recorded).splitlines()
    assert any(line.startswith((f"{series} ", f"{series}{{")) for line in lines)


def test_a_histogram_has_the_buckets_of_the_schema(recorded: Recorded) -> None:
    recorded.telemetry.histogram(schema.VECTOR_SIMILARITY).record(0.5)
    bounds = [
        float(line.split('le="')[1].split('"')[0])
        for line in exposed(recorded).splitlines()
        if line.startswith("vector_search_similarity_bucket")
    ]
    assert bounds == [*schema.UNIT_INTERVAL, float("inf")]


def test_a_gauge_is_read_at_each_collection(recorded: Recorded) -> None:
    numbers = iter((3, 4))
    recorded.telemetry.observable_gauge(
        schema.VECTOR_DOCUMENTS, lambda: [Observation(next(numbers))]
    )
    read = [recorded.points(schema.VECTOR_DOCUMENTS.name)[0].value for _ in range(2)]
    assert read == [3, 4]


def test_readers_close_together_see_the_same_cpu_usage() -> None:
    process = Mock()
    process.create_time.return_value = time.time() - 100
    process.cpu_times.return_value = Mock(user=20.0, system=5.0)
    now = 0.0
    usage = CpuUsage(process, lambda: now)
    assert usage.percent() == pytest.approx(25, rel=0.01)
    process.cpu_percent.return_value = 50
    now = 0.001
    assert usage.percent() == pytest.approx(25, rel=0.01)
    now = 4.0
    assert usage.percent() == 50
    process.cpu_percent.return_value = 70
    now = 4.5
    assert usage.percent() == 50


def test_each_signal_goes_to_its_path_with_the_credentials(
    collector: HttpCollector, settings: ServiceSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_variables(
        monkeypatch,
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{collector.server_port}/otlp",
        OTEL_EXPORTER_OTLP_HEADERS="123:token",
    )
    telemetry = Telemetry("thing-svc", settings)
    telemetry.tracer.start_span("work").end()
    telemetry.counter(schema.MODEL_TOKENS).add(1)
    telemetry.logger_provider.get_logger("things").emit(LogRecord(body="hello"))
    telemetry.shutdown()
    assert {(path, credentials) for path, credentials, _ in collector.received} == {
        (f"/otlp/v1/{signal}", "Basic MTIzOnRva2Vu") for signal in ("traces", "metrics", "logs")
    }


def test_a_telemetry_that_is_turned_off_sends_nothing(
    collector: HttpCollector, settings: ServiceSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_variables(
        monkeypatch,
        OTEL_SDK_DISABLED="true",
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{collector.server_port}/otlp",
    )
    telemetry = Telemetry("thing-svc", settings)
    with telemetry.tracer.start_as_current_span("work") as span:
        telemetry.counter(schema.MODEL_TOKENS).add(1)
        telemetry.histogram(schema.MODEL_DURATION).record(1)
    assert not span.is_recording()
    assert not telemetry.exports_logs
    telemetry.shutdown()
    assert not collector.received


class Hanging(SpanExporter):
    """A backend that takes a batch and doesn't answer until it is let go."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.let_go = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.asked.set()
        self.let_go.wait(10)
        return SpanExportResult.FAILURE


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    exporter = Hanging()
    yield exporter
    exporter.let_go.set()


def test_a_backend_that_hangs_holds_neither_the_work_nor_the_exit(
    hanging: Hanging, settings: ServiceSettings
) -> None:
    telemetry = Telemetry(
        "thing-svc", settings, [BatchSpanProcessor(hanging, schedule_delay_millis=1)]
    )
    started = time.monotonic()
    telemetry.tracer.start_span("work").end()
    assert hanging.asked.wait(5)
    for _ in range(5000):
        telemetry.tracer.start_span("more work").end()
    telemetry.shutdown(timeout_seconds=0.1)
    assert time.monotonic() - started < 5


def test_what_is_left_is_sent_at_the_end(settings: ServiceSettings) -> None:
    backend = Names()
    telemetry = Telemetry("thing-svc", settings, [BatchSpanProcessor(backend)])
    telemetry.tracer.start_span("work").end()
    telemetry.shutdown()
    assert backend.sent == ["work"]
