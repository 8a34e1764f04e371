"""Where telemetry goes: the OTLP exporters for an endpoint, or none.

The protocol follows the endpoint as people write it: a path that ends in `/otlp` or holds `/v1/` is
OTLP/HTTP, as is port 4318; a bare `host:port` is gRPC. `OTEL_EXPORTER_OTLP_PROTOCOL` overrides.
Signal paths are those of the OTLP specification (`/v1/traces`, `/v1/metrics`, `/v1/logs`).
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import (
    OTLPMetricExporter as GrpcMetricExporter,
)
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (
    OTLPSpanExporter as GrpcSpanExporter,
)
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import (
    OTLPMetricExporter as HttpMetricExporter,
)
from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
    OTLPSpanExporter as HttpSpanExporter,
)
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk._logs import ReadableLogRecord, ReadWriteLogRecord
from opentelemetry.sdk._logs.export import (
    BatchLogRecordProcessor,
    LogRecordExporter,
    LogRecordExportResult,
)
from opentelemetry.sdk.metrics.export import MetricExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import TraceFlags

from o11y.otlp import LogLine, log_row, message, span_row
from o11y.settings import ServiceSettings

TIMEOUT_SECONDS = 5.0
"""Longest one export may take, retries included."""


class SpanBatches(BatchSpanProcessor):
    """Batches of spans that are encoded when they end: what waits is a few bytes, and the thread
    that sends them hardly holds up the one that serves.
    """

    def on_end(self, span: ReadableSpan) -> None:
        context = span.context
        if context and context.trace_flags & TraceFlags.SAMPLED:
            self._batch_processor.emit(cast(Any, span_row(span)))


class LogBatches(BatchLogRecordProcessor):
    """The same of log records."""

    def add(self, line: LogLine) -> None:
        self._batch_processor.emit(cast(Any, log_row(line)))

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        record = ReadableLogRecord(
            log_record.log_record,
            log_record.resource or Resource.get_empty(),
            log_record.instrumentation_scope,
        )
        self._batch_processor.emit(cast(Any, log_row(record)))


class _HttpSpans(HttpSpanExporter):
    """The SDK's exporter of rows."""

    def export(self, spans: Sequence[Any]) -> SpanExportResult:
        sent = not self._shutdown and self._client.export(message(spans)).success
        return SpanExportResult.SUCCESS if sent else SpanExportResult.FAILURE


class _HttpLogs(HttpLogExporter):
    def export(self, batch: Sequence[Any]) -> LogRecordExportResult:
        sent = not self._shutdown and self._client.export(message(batch)).success
        return LogRecordExportResult.SUCCESS if sent else LogRecordExportResult.FAILURE


class _GrpcSpans(GrpcSpanExporter):
    def _translate_data(self, data: Sequence[Any]) -> ExportTraceServiceRequest:
        request: ExportTraceServiceRequest = ExportTraceServiceRequest.FromString(message(data))
        return request


class _GrpcLogs(GrpcLogExporter):
    def _translate_data(self, data: Sequence[Any]) -> ExportLogsServiceRequest:
        request: ExportLogsServiceRequest = ExportLogsServiceRequest.FromString(message(data))
        return request


@dataclass(frozen=True)
class Exporters:
    """One exporter a signal; None where that signal is not exported."""

    spans: SpanExporter | None = None
    metrics: MetricExporter | None = None
    logs: LogRecordExporter | None = None


def exporters(settings: ServiceSettings) -> Exporters:
    """The exporters the settings ask for: none without an endpoint."""
    endpoint = settings.otel_exporter_otlp_endpoint
    if not endpoint:
        return Exporters()
    secret = settings.otel_exporter_otlp_headers
    headers = parse_headers(secret.get_secret_value() if secret else "")
    spans = settings.otel_traces_exporter == "otlp"
    metrics = settings.otel_metrics_exporter == "otlp"
    logs = settings.otel_logs_exporter == "otlp"
    protocol = settings.otel_exporter_otlp_protocol or protocol_of(endpoint)
    if protocol == "grpc":
        target, insecure = grpc_target(endpoint)
        grpc_headers = tuple((key.lower(), value) for key, value in headers.items())
        options = (target, insecure, None, grpc_headers, TIMEOUT_SECONDS)
        return Exporters(
            _GrpcSpans(*options) if spans else None,
            GrpcMetricExporter(*options) if metrics else None,
            _GrpcLogs(*options) if logs else None,
        )
    base = http_base(endpoint)
    return Exporters(
        _HttpSpans(f"{base}/v1/traces", headers=headers, timeout=TIMEOUT_SECONDS)
        if spans
        else None,
        HttpMetricExporter(f"{base}/v1/metrics", headers=headers, timeout=TIMEOUT_SECONDS)
        if metrics
        else None,
        _HttpLogs(f"{base}/v1/logs", headers=headers, timeout=TIMEOUT_SECONDS) if logs else None,
    )


def protocol_of(endpoint: str) -> str:
    """`http/protobuf` or `grpc`, from the shape of the endpoint."""
    url = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
    path = url.path.rstrip("/")
    if path.endswith("/otlp") or "/v1/" in f"{path}/" or url.port == 4318:
        return "http/protobuf"
    return "grpc"


def http_base(endpoint: str) -> str:
    """The endpoint without a trailing slash or signal path, with a scheme."""
    base = endpoint if "://" in endpoint else f"http://{endpoint}"
    for signal in ("traces", "metrics", "logs"):
        base = base.rstrip("/").removesuffix(f"/v1/{signal}")
    return base.rstrip("/")


def grpc_target(endpoint: str) -> tuple[str, bool]:
    """`host:port`, and whether the connection is without TLS: it is unless the scheme is https."""
    scheme, _, rest = endpoint.rpartition("://")
    return rest.partition("/")[0], scheme.lower() != "https"


def parse_headers(value: str) -> dict[str, str]:
    """Headers of `key=value,key=value`, percent-decoded (W3C baggage form, OTLP specification).

    Credentials are completed: `Authorization=Basic user:token` and an entry that is nothing but
    `user:token` become Basic with base64; what is encoded already is left alone.
    """
    headers = {}
    for pair in value.split(","):
        key, separator, text = (unquote(part).strip() for part in pair.partition("="))
        if ":" in key:
            headers["Authorization"] = unquote(pair).strip()
        elif separator and key:
            headers[key] = text
    for key in headers:
        if key.lower() == "authorization":
            headers[key] = _credentials(headers[key])
    return headers


def _credentials(value: str) -> str:
    scheme, _, rest = value.rpartition(" ")
    if ":" not in rest or scheme.lower() not in ("", "basic"):
        return value
    return f"Basic {base64.b64encode(rest.encode()).decode()}"
