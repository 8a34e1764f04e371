"""Where telemetry goes, from endpoint and headers as people write them."""

import base64
from collections.abc import Iterator

import pytest
from opentelemetry._logs import LogRecord

from o11y.settings import ServiceSettings
from o11y.telemetry import schema
from o11y.telemetry.endpoints import grpc_url, http_base, parse_headers, protocol_of
from o11y.telemetry.signals import Telemetry
from tests.support.collectors import (
    Collector,
    GrpcCollector,
    HttpCollector,
    log_bodies,
    metric_names,
    span_names,
)
from tests.support.telemetry_variables import set_variables

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
    ("endpoint", "url"),
    [
        ("localhost:4317", "http://localhost:4317"),
        ("http://localhost:4317/", "http://localhost:4317"),
        ("https://collector.example:443", "https://collector.example:443"),
        ("user:secret@collector:4317/otlp", "http://collector:4317"),
    ],
)
def test_grpc_is_without_tls_unless_the_scheme_says_https(endpoint: str, url: str) -> None:
    assert grpc_url(endpoint) == url


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


@pytest.fixture(params=[HTTP, GRPC])
def either(request: pytest.FixtureRequest) -> Iterator[tuple[Collector, str]]:
    """A collector, and the protocol it speaks."""
    collector: Collector = HttpCollector() if request.param == HTTP else GrpcCollector()
    yield collector, request.param
    collector.stop()


def arrived(
    collector: Collector,
    settings: ServiceSettings,
    monkeypatch: pytest.MonkeyPatch,
    **variables: str,
) -> set[str]:
    """The signals that arrive from a process with these variables."""
    set_variables(monkeypatch, **variables)
    telemetry = Telemetry("thing-svc", settings)
    telemetry.tracer.start_span("work").end()
    telemetry.counter(schema.MODEL_TOKENS).add(1)
    telemetry.logger_provider.get_logger("things").emit(LogRecord(body="hello"))
    telemetry.shutdown()
    ends = (("traces", span_names), ("logs", log_bodies), ("metrics", metric_names))
    return {signal for signal, names in ends if names(collector)}


def test_every_signal_goes_by_the_protocol_that_is_given(
    either: tuple[Collector, str], settings: ServiceSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector, protocol = either
    misleading = {HTTP: f"127.0.0.1:{collector.port}", GRPC: f"127.0.0.1:{collector.port}/otlp"}
    assert arrived(
        collector,
        settings,
        monkeypatch,
        OTEL_EXPORTER_OTLP_ENDPOINT=misleading[protocol],
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
    ) == {"traces", "metrics", "logs"}


@pytest.mark.parametrize("signal", ["traces", "metrics", "logs"])
def test_a_signal_can_be_turned_off_alone(
    signal: str,
    either: tuple[Collector, str],
    settings: ServiceSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    collector, protocol = either
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"127.0.0.1:{collector.port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        f"OTEL_{signal.upper()}_EXPORTER": "none",
    }
    sent = arrived(collector, settings, monkeypatch, **variables)
    assert sent == {"traces", "metrics", "logs"} - {signal}
