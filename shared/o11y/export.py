"""Where telemetry goes: the OTLP exporters for an endpoint, or none.

The protocol follows the endpoint as people write it: a path that ends in `/otlp` or holds `/v1/` is
OTLP/HTTP, as is port 4318; a bare `host:port` is gRPC. `OTEL_EXPORTER_OTLP_PROTOCOL` overrides.
Signal paths are those of the OTLP specification (`/v1/traces`, `/v1/metrics`, `/v1/logs`).
"""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from o11y import schema
from o11y.batches import Batches, Limits, LogBatches, Outlet, Points, Reports, SpanBatches
from o11y.metering import Counter
from o11y.sending import GrpcSender, HttpSender, Link, Sender
from o11y.settings import ServiceSettings


@dataclass(frozen=True)
class Export:
    """What takes each signal; None where it is not exported."""

    spans: SpanBatches | None = None
    metrics: Points | None = None
    logs: LogBatches | None = None


def export(settings: ServiceSettings, counter: Callable[[schema.Metric], Counter]) -> Export:
    """The export the settings ask for: none without an endpoint. `counter` counts what it does."""
    endpoint = settings.otel_exporter_otlp_endpoint
    if not endpoint:
        return Export()
    secret = settings.otel_exporter_otlp_headers
    link = Link(
        parse_headers(secret.get_secret_value() if secret else ""),
        settings.otel_exporter_otlp_compression == "gzip",
        settings.otel_exporter_otlp_certificate,
        settings.otel_exporter_otlp_client_certificate,
        settings.otel_exporter_otlp_client_key,
    )
    protocol = settings.otel_exporter_otlp_protocol or protocol_of(endpoint)
    reports = Reports()

    def outlet(signal: str, thing: str, exported: schema.Metric) -> Outlet:
        # component types of semconv registry/attributes/otel
        kind = "grpc" if protocol == "grpc" else "http"
        sender = _sender(endpoint, kind, signal, link)
        component = f"otlp_{kind}_{thing}_exporter"
        return Outlet(signal, sender, counter(exported), component, reports)

    spans = metrics = logs = None
    if settings.otel_traces_exporter == "otlp":
        limits = Limits(
            settings.otel_bsp_max_queue_size,
            settings.otel_bsp_max_export_batch_size,
            settings.otel_bsp_schedule_delay / 1000,
        )
        to = outlet("traces", "span", schema.SPANS_EXPORTED)
        processed = counter(schema.SPANS_PROCESSED)
        spans = SpanBatches(Batches(to, processed, "batching_span_processor", limits))
    if settings.otel_logs_exporter == "otlp":
        limits = Limits(
            settings.otel_blrp_max_queue_size,
            settings.otel_blrp_max_export_batch_size,
            settings.otel_blrp_schedule_delay / 1000,
        )
        to = outlet("logs", "log", schema.LOGS_EXPORTED)
        processed = counter(schema.LOGS_PROCESSED)
        logs = LogBatches(Batches(to, processed, "batching_log_processor", limits))
    if settings.otel_metrics_exporter == "otlp":
        metrics = Points(outlet("metrics", "metric", schema.POINTS_EXPORTED))
    return Export(spans, metrics, logs)


_SERVICES = {
    "traces": "opentelemetry.proto.collector.trace.v1.TraceService",
    "metrics": "opentelemetry.proto.collector.metrics.v1.MetricsService",
    "logs": "opentelemetry.proto.collector.logs.v1.LogsService",
}


def _sender(endpoint: str, kind: str, signal: str, link: Link) -> Sender:
    if kind == "grpc":
        target, insecure = grpc_target(endpoint)
        return GrpcSender(target, insecure, _SERVICES[signal], link)
    return HttpSender(f"{http_base(endpoint)}/v1/{signal}", link)


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
