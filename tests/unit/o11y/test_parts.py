"""Exports of more than a gRPC server takes at once."""

from collections.abc import Iterator

import pytest
from opentelemetry import _logs
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.sdk.trace import ReadableSpan

from o11y.settings import ServiceSettings
from o11y.telemetry.parts import parts
from o11y.telemetry.signals import Telemetry
from tests.support.collectors import (
    Collector,
    GrpcCollector,
    HttpCollector,
    log_bodies,
    span_names,
)
from tests.support.telemetry_variables import set_variables

LIMIT = 4 << 20
"""What gRPC servers take by default."""

KILOBYTE = "x" * 1000
WIDE = "é" * 1000


@pytest.fixture(params=[GrpcCollector, HttpCollector])
def collector(request: pytest.FixtureRequest) -> Iterator[Collector]:
    collector: Collector = request.param()
    yield collector
    collector.stop()


def _endpoint(collector: Collector) -> str:
    return f"http://127.0.0.1:{collector.port}" + (
        "/otlp" if isinstance(collector, HttpCollector) else ""
    )


def telemetry_for(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> Telemetry:
    set_variables(
        monkeypatch,
        OTEL_EXPORTER_OTLP_ENDPOINT=_endpoint(collector),
        OTEL_BSP_SCHEDULE_DELAY="60000",
        OTEL_BLRP_SCHEDULE_DELAY="60000",
        OTEL_METRIC_EXPORT_INTERVAL="600000",
    )
    return Telemetry("thing-svc", ServiceSettings(app_port=8000))


@pytest.mark.parametrize("text", [KILOBYTE * 40, WIDE * 20])
def test_spans_with_long_attributes_arrive(
    text: str, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    telemetry = telemetry_for(collector, monkeypatch)
    for number in range(300):
        with telemetry.tracer.start_as_current_span(str(number)) as span:
            span.set_attribute("text", text)
    telemetry.shutdown(30)
    assert sorted(span_names(collector), key=int) == [str(number) for number in range(300)]


def test_log_records_with_long_bodies_arrive(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    telemetry = telemetry_for(collector, monkeypatch)
    logger = telemetry.logger_provider.get_logger("thing")
    for number in range(300):
        record = _logs.LogRecord(body=f"{number} {KILOBYTE * 40}", attributes={"more": WIDE})
        logger.emit(record)
    telemetry.shutdown(30)
    assert {body.partition(" ")[0] for body in log_bodies(collector)} == {
        str(number) for number in range(300)
    }


def test_metrics_with_many_long_labels_arrive(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    telemetry = telemetry_for(collector, monkeypatch)
    counter = telemetry.meter.create_counter("many")
    for number in range(1900):
        labels = {f"label_{each}": f"{number}" + "x" * 250 for each in range(12)}
        counter.add(1, labels)
    telemetry.shutdown(60)
    assert counted(collector, "many") == 1900
    assert max(message.ByteSize() for message in collector.messages()) < LIMIT


def counted(collector: Collector, name: str) -> int:
    return sum(
        len(metric.sum.data_points)
        for message in collector.messages()
        if isinstance(message, ExportMetricsServiceRequest)
        for resource in message.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == name
    )


def spans(*texts: str) -> list[ReadableSpan]:
    return [ReadableSpan(str(at), attributes={"text": text}) for at, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("texts", "sizes"),
    [
        ([], [0]),
        (["a"], [1]),
        (["a"] * 10, [5, 5]),
        ([KILOBYTE * 10], [1]),
        (["a", KILOBYTE * 10, "a"], [1, 1, 1]),
        ([KILOBYTE, KILOBYTE, "a", "a"], [1, 3]),
        ([WIDE, "a"], [1, 1]),
    ],
)
def test_a_part_has_room_or_one_record(texts: list[str], sizes: list[int]) -> None:
    batch = spans(*texts)
    found = list(parts(batch, 2900))
    assert [len(part) for part in found] == sizes
    assert [span for part in found for span in part] == batch
