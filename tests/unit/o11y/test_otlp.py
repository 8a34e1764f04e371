"""What is sent by OTLP: decoded, it says what the SDK's own encoder would have said."""

import enum
import random
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any, cast

import pytest
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.common import _log_encoder as sdk_logs
from opentelemetry.exporter.otlp.proto.common import trace_encoder as sdk_traces
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)

from o11y.otlp import LogLine, log_row, message, span_row

RESOURCES = [Resource({"service.name": name, "n": 1}, f"https://{name}") for name in ("a", "b")]
SCOPES = [
    InstrumentationScope("o11y", "1", "https://schema", {"x": True}),
    InstrumentationScope("o11y", "2"),
    InstrumentationScope("", None),
]


class Colour(enum.StrEnum):
    RED = "red"


class Number(enum.IntEnum):
    TWO = 2


ALIKE: list[Any] = [
    *(True, 1, 1.0, "1", False, 0, 0.0, -0.0, "", "True", b"1", b"", None),
    *((), (1,), (True,), (1.0,), ("1",), ("",), ((),), ((1,),), ((True,),), (None,), ("a", 1)),
    *([], [1], [True], [1.0], [[]], {}, {"a": 1}, {"a": True}, {"a": [1, {"b": None}]}),
    *(-1, -(1 << 63), (1 << 63) - 1, 127, 128, 300, 16_383, 16_384, 2, Number.TWO),
    *("red", Colour.RED, "é☃𝄞", "x" * 33, "x" * 127, "x" * 128, "x" * 16_383, "x" * 16_384),
    *("x" * 3_000_000, ("x" * 20_000, "y"), 1.5, float("inf"), 5e-324, ([1],), ({"a": 1},)),
    MappingProxyType({"a": 1}),
]
"""Among them values that are equal, or have one hash, and aren't the same."""


def span(attributes: dict[str, Any], **given: Any) -> ReadableSpan:
    context = SpanContext(1, 2, False, TraceFlags(1))
    given = {"context": context, "start_time": 1, "end_time": 2, "resource": RESOURCES[0], **given}
    return ReadableSpan("work", attributes=attributes, instrumentation_scope=SCOPES[0], **given)


def decoded(spans: Sequence[ReadableSpan]) -> ExportTraceServiceRequest:
    request: ExportTraceServiceRequest = ExportTraceServiceRequest.FromString(
        message(map(span_row, spans))
    )
    return request


def value(sent: object, key: str = "key") -> AnyValue:
    request = decoded([span({key: sent})])
    found: AnyValue = request.resource_spans[0].scope_spans[0].spans[0].attributes[0].value
    return found


@pytest.mark.parametrize("seed", range(3))
def test_no_value_is_taken_for_another(seed: int) -> None:
    values = ALIKE * 2
    random.Random(seed).shuffle(values)
    spans = [span({"key": each, "other": each}) for each in values]
    assert decoded(spans) == sdk_traces.encode_spans(spans)


def random_span(chance: random.Random) -> ReadableSpan:
    def attributes() -> dict[str, Any]:
        count = chance.choice((0, 1, 3, 9))
        return {chance.choice("abcdé") + str(n): chance.choice(ALIKE[:-11]) for n in range(count)}

    def context() -> SpanContext:
        state = chance.choice((None, TraceState([("a", "1"), ("b", "y")])))
        ids = (chance.getrandbits(128) or 1, chance.getrandbits(64) or 1)
        return SpanContext(*ids, chance.random() < 0.5, TraceFlags(chance.randrange(4)), state)

    status = chance.choice(
        (Status(StatusCode.UNSET), Status(StatusCode.OK), Status(StatusCode.ERROR, "gone"))
    )
    return ReadableSpan(
        chance.choice(("", "work", "é" * 9_000)),
        context(),
        chance.choice((None, context())),
        chance.choice(RESOURCES),
        attributes(),
        [Event("e" * n, attributes(), chance.getrandbits(63)) for n in range(chance.randrange(3))],
        [Link(context(), attributes()) for _ in range(chance.randrange(3))],
        chance.choice(list(SpanKind)),
        None,
        status,
        chance.getrandbits(63),
        chance.getrandbits(63),
        chance.choice((*SCOPES, None)),
    )


@pytest.mark.parametrize("seed", range(20))
def test_any_spans_are_what_the_sdk_would_send(seed: int) -> None:
    chance = random.Random(seed)
    spans = [random_span(chance) for _ in range(chance.choice((1, 5, 40)))]
    assert decoded(spans) == sdk_traces.encode_spans(spans)


def test_nothing_is_an_empty_request() -> None:
    assert message([]) == b""


@pytest.mark.parametrize("wide", [1 << 63, -(1 << 63) - 1, 1 << 64, 10**5000], ids=hex)
def test_a_number_too_wide_is_not_another_number(wide: int) -> None:
    assert int(value(wide).string_value, 16) == wide


def test_half_a_character_costs_no_more_than_itself() -> None:
    assert value("a\ud800b").string_value == "a?b"
    assert value(({"\ud800": 1},)).array_value.values[0].kvlist_value.values[0].key == "?"
    broken = [span({"\ud800": "\udfff"}, status=Status(StatusCode.ERROR, "\ud800"))]
    assert decoded(broken).resource_spans[0].scope_spans[0].spans[0].status.message == "?"


class Thing:
    """Equal to all its kind, and says something else each time."""

    said = 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Thing)

    def __hash__(self) -> int:
        return 1

    def __str__(self) -> str:
        Thing.said += 1
        return f"thing {Thing.said}"


def test_what_has_no_form_in_otlp_is_text() -> None:
    assert value({1}).string_value == "{1}"
    assert [value(Thing()).string_value for _ in range(2)] == ["thing 1", "thing 2"]


def test_many_values_are_all_told_apart() -> None:
    spans = [span({"number": number, "text": str(number)}) for number in range(9_000)]
    assert decoded(spans) == sdk_traces.encode_spans(spans)


# Log records


def line(**given: Any) -> LogLine:
    whole = {
        "resource": RESOURCES[0],
        "scope": SCOPES[0],
        "timestamp": 5,
        "severity": SeverityNumber.WARN,
        "body": "hello",
        "attributes": {},
        "span_context": SpanContext(0, 0, False),
        **given,
    }
    return LogLine(**whole)


def as_record(each: LogLine) -> ReadableLogRecord:
    record = LogRecord(
        timestamp=each.timestamp,
        observed_timestamp=each.timestamp,
        severity_number=each.severity,
        severity_text=each.severity.name if each.severity.value else None,
        body=cast(Any, each.body),
        attributes=cast(Any, each.attributes),
        event_name=each.event_name,
    )
    record.trace_id, record.span_id = each.span_context.trace_id, each.span_context.span_id
    record.trace_flags = each.span_context.trace_flags
    return ReadableLogRecord(record, each.resource, each.scope)


def some_lines() -> list[LogLine]:
    chance = random.Random(0)
    contexts = [SpanContext(0, 0, False), SpanContext(1 << 127, 9, True, TraceFlags(1))]
    return [
        line(
            resource=chance.choice(RESOURCES),
            scope=chance.choice(SCOPES),
            timestamp=chance.getrandbits(63),
            severity=chance.choice(list(SeverityNumber)),
            body=body,
            attributes={"key": chance.choice(ALIKE), "other": body},
            span_context=chance.choice(contexts),
            event_name=chance.choice((None, "gen_ai.evaluation.result")),
        )
        for body in (*ALIKE, [{"role": "user", "parts": [{"content": "é"}]}])
    ]


def test_log_lines_are_what_the_sdk_would_send() -> None:
    lines = some_lines()
    request = ExportLogsServiceRequest.FromString(message(map(log_row, lines)))
    assert request == sdk_logs.encode_logs([as_record(each) for each in lines])


def test_records_of_the_sdk_are_sent_as_it_would() -> None:
    records = [as_record(each) for each in some_lines()]
    mixed: list[LogLine | ReadableLogRecord] = [line(), *records, line()]
    request = ExportLogsServiceRequest.FromString(message(map(log_row, mixed)))
    assert request == sdk_logs.encode_logs([as_record(line()), *records, as_record(line())])
