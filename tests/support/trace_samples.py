"""Spans for the tests: made by name, so that a test says only what it is about."""

import itertools
from collections.abc import Mapping

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import (
    ResourceSpans,
    ScopeSpans,
    Span,
    Status,
    TracesData,
)

SECOND = 10**9
START = 1_790_000_000 * SECOND

counter = itertools.count(1)


def new_id(size: int) -> bytes:
    return next(counter).to_bytes(size, "big")


def any_value(value: object) -> AnyValue:
    match value:
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case bytes():
            return AnyValue(bytes_value=value)
        case list():
            return AnyValue(array_value=ArrayValue(values=[any_value(item) for item in value]))
        case None:
            return AnyValue()
        case _:
            return AnyValue(string_value=str(value))


def pairs(attributes: Mapping[str, object]) -> list[KeyValue]:
    return [KeyValue(key=key, value=any_value(value)) for key, value in attributes.items()]


def span(
    name: str = "work",
    *,
    trace: bytes | None = None,
    id: bytes | None = None,
    parent: bytes = b"",
    start: int = START,
    seconds: float = 1,
    kind: "Span.SpanKind.ValueType" = Span.SPAN_KIND_INTERNAL,
    status: "Status.StatusCode.ValueType" = Status.STATUS_CODE_UNSET,
    message: str = "",
    attributes: Mapping[str, object] | None = None,
) -> Span:
    """A span of its own trace, unless it is told another."""
    return Span(
        trace_id=new_id(16) if trace is None else trace,
        span_id=new_id(8) if id is None else id,
        parent_span_id=parent,
        name=name,
        kind=kind,
        start_time_unix_nano=start,
        end_time_unix_nano=start + int(seconds * SECOND),
        status=Status(code=status, message=message),
        attributes=pairs(attributes or {}),
    )


def export(*spans: Span, service: str = "gateway", **resource: object) -> TracesData:
    """An export of one service."""
    attributes = pairs({"service.name": service} | resource)
    scope_spans = ScopeSpans(spans=spans)
    scope_spans.scope.name = "tests"
    return TracesData(
        resource_spans=[
            ResourceSpans(resource=Resource(attributes=attributes), scope_spans=[scope_spans])
        ]
    )


def spans_of(data: TracesData) -> list[Span]:
    return [
        span
        for group in data.resource_spans
        for scope_spans in group.scope_spans
        for span in scope_spans.spans
    ]
