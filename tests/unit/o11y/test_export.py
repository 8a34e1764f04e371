"""Where telemetry goes, from endpoint and headers as people write them."""

import base64
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogs
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetrics
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpans
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogs
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetrics
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpans
from pydantic import SecretStr

from o11y.export import (
    Exporters,
    exporters,
    grpc_target,
    http_base,
    parse_headers,
    protocol_of,
)
from o11y.settings import ServiceSettings

HTTP = "http/protobuf"
GRPC = "grpc"


def basic(credentials: str) -> str:
    return f"Basic {base64.b64encode(credentials.encode()).decode()}"


@pytest.mark.parametrize(
    ("endpoint", "protocol"),
    [
        ("localhost:4317", GRPC),
        ("collector", GRPC),
        ("http://localhost:4317", GRPC),
        ("https://collector.example:443", GRPC),
        ("localhost:4318", HTTP),
        ("http://localhost:4318", HTTP),
        ("http://localhost:4318/", HTTP),
        ("https://otlp-gateway.grafana.net/otlp", HTTP),
        ("https://otlp-gateway.grafana.net/otlp/", HTTP),
        ("https://collector.example/v1/traces", HTTP),
        ("https://collector.example/v1", HTTP),
        ("http://otlp:4317", GRPC),
    ],
)
def test_the_protocol_follows_the_endpoint(endpoint: str, protocol: str) -> None:
    assert protocol_of(endpoint) == protocol


@pytest.mark.parametrize(
    ("endpoint", "base"),
    [
        ("localhost:4318", "http://localhost:4318"),
        ("http://localhost:4318/", "http://localhost:4318"),
        ("https://otlp.grafana.net/otlp/", "https://otlp.grafana.net/otlp"),
        ("https://host/v1/traces", "https://host"),
        ("https://host/otlp/v1/metrics/", "https://host/otlp"),
        ("https://host/v1/logs", "https://host"),
    ],
)
def test_the_base_of_the_signal_paths_has_a_scheme_and_no_signal(endpoint: str, base: str) -> None:
    assert http_base(endpoint) == base


@pytest.mark.parametrize(
    ("endpoint", "target", "insecure"),
    [
        ("localhost:4317", "localhost:4317", True),
        ("http://localhost:4317/", "localhost:4317", True),
        ("https://collector.example:443", "collector.example:443", False),
    ],
)
def test_grpc_is_without_tls_unless_the_scheme_says_https(
    endpoint: str, target: str, insecure: bool
) -> None:
    assert grpc_target(endpoint) == (target, insecure)


@pytest.mark.parametrize(
    ("text", "headers"),
    [
        ("", {}),
        ("123:token", {"Authorization": basic("123:token")}),
        ("123:glc_eyJvIjoiMSJ9==", {"Authorization": basic("123:glc_eyJvIjoiMSJ9==")}),
        ("Basic 123:token", {"Authorization": basic("123:token")}),
        ("Authorization=Basic 123:token", {"Authorization": basic("123:token")}),
        ("Authorization=Basic%20123:token", {"Authorization": basic("123:token")}),
        ("Authorization=Basic%20123%3Atoken", {"Authorization": basic("123:token")}),
        ("Authorization=123:glc_eyJ==", {"Authorization": basic("123:glc_eyJ==")}),
        ("authorization=123:token", {"authorization": basic("123:token")}),
        ("Authorization=Basic MTIzOnRva2Vu", {"Authorization": "Basic MTIzOnRva2Vu"}),
        ("Authorization=Basic%20MTIzOnRvaw%3D%3D", {"Authorization": "Basic MTIzOnRvaw=="}),
        ("Authorization=Bearer a:b", {"Authorization": "Bearer a:b"}),
        ("api-key=abc", {"api-key": "abc"}),
        (" api-key = abc , X-Scope-OrgID=1", {"api-key": "abc", "X-Scope-OrgID": "1"}),
        ("123:token,X-Scope-OrgID=1", {"Authorization": basic("123:token"), "X-Scope-OrgID": "1"}),
        ("api-key=a%2Cb,x=1", {"api-key": "a,b", "x": "1"}),
        ("nothing", {}),
    ],
)
def test_headers_are_read_as_people_write_them(text: str, headers: dict[str, str]) -> None:
    assert parse_headers(text) == headers


@contextmanager
def made(settings: ServiceSettings) -> Iterator[Exporters]:
    made = exporters(settings)
    yield made
    for exporter in (made.spans, made.metrics, made.logs):
        if exporter:
            exporter.shutdown()


def test_nothing_is_exported_without_an_endpoint(settings: ServiceSettings) -> None:
    assert exporters(settings) == Exporters()


@pytest.mark.parametrize(
    ("endpoint", "protocol", "kinds"),
    [
        ("h:4318", None, (HttpSpans, HttpMetrics, HttpLogs)),
        ("h:4317", None, (GrpcSpans, GrpcMetrics, GrpcLogs)),
        ("h:4317", HTTP, (HttpSpans, HttpMetrics, HttpLogs)),
        ("https://h/otlp", GRPC, (GrpcSpans, GrpcMetrics, GrpcLogs)),
    ],
)
def test_every_signal_goes_by_the_endpoints_protocol_unless_one_is_given(
    endpoint: str, protocol: str | None, kinds: tuple[type, type, type]
) -> None:
    settings = ServiceSettings.model_validate(
        {
            "app_port": 8000,
            "otel_exporter_otlp_endpoint": endpoint,
            "otel_exporter_otlp_protocol": protocol,
            "otel_exporter_otlp_headers": SecretStr("123:token"),
        }
    )
    with made(settings) as made_of:
        for exporter, kind in zip(
            (made_of.spans, made_of.metrics, made_of.logs), kinds, strict=True
        ):
            assert isinstance(exporter, kind)


@pytest.mark.parametrize("protocol", [HTTP, GRPC])
@pytest.mark.parametrize("signal", ["traces", "metrics", "logs"])
def test_a_signal_can_be_turned_off_alone(signal: str, protocol: str) -> None:
    settings = ServiceSettings.model_validate(
        {
            "app_port": 8000,
            "otel_exporter_otlp_endpoint": "h:4318",
            "otel_exporter_otlp_protocol": protocol,
            f"otel_{signal}_exporter": "none",
        }
    )
    with made(settings) as exporting:
        by_signal = {
            "traces": exporting.spans,
            "metrics": exporting.metrics,
            "logs": exporting.logs,
        }
        assert [name for name, exporter in by_signal.items() if exporter is None] == [signal]
