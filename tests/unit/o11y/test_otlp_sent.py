"""All three signals as a backend gets them, over HTTP and over gRPC."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry._logs import LogRecord
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from pydantic import SecretStr

from o11y import schema
from o11y.logs import OtlpHandler
from o11y.settings import ServiceSettings
from o11y.telemetry import Telemetry
from tests.collectors import GrpcCollector, HttpCollector

REQUESTS: dict[str, Any] = {
    "/otlp/v1/traces": ExportTraceServiceRequest,
    "/otlp/v1/metrics": ExportMetricsServiceRequest,
    "/otlp/v1/logs": ExportLogsServiceRequest,
}


@pytest.fixture
def grpc_collector() -> Iterator[GrpcCollector]:
    collector = GrpcCollector()
    yield collector
    collector.stop()


def work(endpoint: str) -> Telemetry:
    """A process that does something of every kind, and ends."""
    settings = ServiceSettings(
        app_port=8000,
        otel_exporter_otlp_endpoint=endpoint,
        otel_exporter_otlp_headers=SecretStr("123:token"),
    )
    telemetry = Telemetry("thing-svc", settings)
    assert telemetry.emit_log
    logger = logging.Logger("things")
    logger.addHandler(OtlpHandler(telemetry.resource, telemetry.emit_log))
    with telemetry.tracer.start_as_current_span("work", attributes={"n": 1}) as span:
        span.add_event("half", {"done": True})
        logger.warning("hello %s", "you", extra={"documents": [3, "a"]})
        telemetry.histogram(schema.MODEL_DURATION).record(0.5, {"model": "m"})
    telemetry.counter(schema.MODEL_TOKENS).add(2, {"model": "m"})
    telemetry.logger_provider.get_logger("events").emit(LogRecord(body={"a": [1]}, event_name="e"))
    telemetry.shutdown()
    return telemetry


def over_http(collector: HttpCollector) -> list[Any]:
    return [REQUESTS[path].FromString(body) for path, _, body in collector.received]


def plain(attributes: list[KeyValue]) -> dict[str, Any]:
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value") or "string_value")
        for each in attributes
    }


def check(received: list[Any], telemetry: Telemetry) -> None:
    whole = {type(message): message for message in received}
    assert len(whole) == 3
    spans = whole[ExportTraceServiceRequest].resource_spans[0]
    assert plain(spans.resource.attributes) == telemetry.resource.attributes
    assert spans.scope_spans[0].scope.name == "o11y"
    [span] = spans.scope_spans[0].spans
    assert (span.name, plain(span.attributes)) == ("work", {"n": 1})
    assert [(event.name, plain(event.attributes)) for event in span.events] == [
        ("half", {"done": True})
    ]
    logs = whole[ExportLogsServiceRequest].resource_logs[0]
    [line, event] = [record for scope in logs.scope_logs for record in scope.log_records]
    assert [scope.scope.name for scope in logs.scope_logs] == ["things", "events"]
    assert (line.body.string_value, line.severity_text) == ("hello you", "WARN")
    assert (line.trace_id, line.span_id) == (span.trace_id, span.span_id)
    assert [each.key for each in line.attributes] == ["documents"]
    assert (event.event_name, event.severity_text, event.trace_id) == ("e", "", b"")
    assert event.body.kvlist_value.values[0].value.array_value.values[0].int_value == 1
    scopes = whole[ExportMetricsServiceRequest].resource_metrics[0].scope_metrics
    metrics = {metric.name: metric for scope in scopes for metric in scope.metrics}
    assert {scope.scope.name for scope in scopes} == {"o11y"}
    [point] = metrics[schema.MODEL_DURATION.name].histogram.data_points
    assert (point.count, point.sum, point.min, point.max) == (1, 0.5, 0.5, 0.5)
    assert [exemplar.trace_id for exemplar in point.exemplars] == [span.trace_id]
    [total] = metrics[schema.MODEL_TOKENS.name].sum.data_points
    assert (total.as_int, plain(total.attributes)) == (2, {"model": "m"})
    assert schema.MEMORY_USED.name in metrics


def test_all_signals_arrive_over_http(collector: HttpCollector) -> None:
    telemetry = work(f"http://127.0.0.1:{collector.server_port}/otlp")
    check(over_http(collector), telemetry)


def test_all_signals_arrive_over_grpc(grpc_collector: GrpcCollector) -> None:
    telemetry = work(f"127.0.0.1:{grpc_collector.port}")
    check(grpc_collector.received, telemetry)
    assert grpc_collector.credentials == "Basic MTIzOnRva2Vu"
