"""What services sent over OTLP, decoded from the bodies a collector kept."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

KINDS = ("", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")


@dataclass(frozen=True)
class Span:
    """Ids in hex, times in nanoseconds."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    start: int
    end: int
    attributes: dict[str, Any]
    events: list[str]
    event_keys: list[tuple[str, str]]
    """Each attribute of an event: the event's name and the key."""

    @property
    def seconds(self) -> float:
        return (self.end - self.start) / 1e9


@dataclass(frozen=True)
class Line:
    """A log record."""

    service: str
    message: str
    attributes: dict[str, Any]
    trace_id: str
    span_id: str
    event: str
    """Name of the event the record is, if it is one."""


@dataclass(frozen=True)
class Point:
    """The last value of one series; of a histogram the buckets, whose bounds are upper ones."""

    service: str
    metric: str
    unit: str
    kind: str
    """`sum`, `histogram` or `gauge`."""
    monotonic: bool
    labels: dict[str, Any]
    value: float
    """The sum; a histogram's is that of its values."""
    bounds: tuple[float, ...]
    buckets: tuple[int, ...]
    exemplars: list[tuple[str, str, float]]
    """Trace, span and value, of all that was sent of the series."""
    at: int


class Sent:
    """Everything in these requests, each a path and a body."""

    def __init__(self, requests: Iterable[tuple[str, bytes]]) -> None:
        self.spans: list[Span] = []
        self.lines: list[Line] = []
        self._points: dict[tuple[Any, ...], Point] = {}
        for path, body in requests:
            match path:
                case "/v1/traces":
                    self._read_spans(ExportTraceServiceRequest.FromString(body))
                case "/v1/metrics":
                    self._read_points(ExportMetricsServiceRequest.FromString(body))
                case "/v1/logs":
                    self._read_lines(ExportLogsServiceRequest.FromString(body))

    @property
    def points(self) -> list[Point]:
        return list(self._points.values())

    def _read_spans(self, request: Any) -> None:
        for group in request.resource_spans:
            service = _attributes(group.resource.attributes)["service.name"]
            self.spans += [
                Span(
                    service,
                    span.name,
                    KINDS[span.kind],
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    _attributes(span.attributes),
                    [event.name for event in span.events],
                    [(event.name, one.key) for event in span.events for one in event.attributes],
                )
                for scope in group.scope_spans
                for span in scope.spans
            ]

    def _read_lines(self, request: Any) -> None:
        for group in request.resource_logs:
            service = _attributes(group.resource.attributes)["service.name"]
            self.lines += [
                Line(
                    service,
                    record.body.string_value,
                    _attributes(record.attributes),
                    record.trace_id.hex(),
                    record.span_id.hex(),
                    record.event_name,
                )
                for scope in group.scope_logs
                for record in scope.log_records
            ]

    def _read_points(self, request: Any) -> None:
        for group in request.resource_metrics:
            service = _attributes(group.resource.attributes)["service.name"]
            for metric in (metric for scope in group.scope_metrics for metric in scope.metrics):
                kind = metric.WhichOneof("data")
                for data in getattr(metric, kind).data_points:
                    point = _point(service, metric, kind, data)
                    labels = tuple(sorted(point.labels.items()))
                    known = self._points.setdefault((service, metric.name, labels), point)
                    if known is not point:  # an exemplar is sent once
                        point.exemplars.extend(known.exemplars)
                        known.exemplars[:] = point.exemplars
                    if known.at <= point.at:
                        self._points[service, metric.name, labels] = point


def _point(service: str, metric: Any, kind: str, data: Any) -> Point:
    is_histogram = kind == "histogram"
    return Point(
        service,
        metric.name,
        metric.unit,
        kind,
        is_histogram or (kind == "sum" and metric.sum.is_monotonic),
        _attributes(data.attributes),
        data.sum if is_histogram else _number(data),
        tuple(data.explicit_bounds) if is_histogram else (),
        tuple(data.bucket_counts) if is_histogram else (),
        [(one.trace_id.hex(), one.span_id.hex(), _number(one)) for one in data.exemplars],
        data.time_unix_nano,
    )


def _number(point: Any) -> float:
    return float(getattr(point, point.WhichOneof("value") or "as_double"))


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    match value.WhichOneof("value"):
        case None:
            return None
        case "array_value":
            return tuple(_value(item) for item in value.array_value.values)
        case kind:
            return getattr(value, kind)
