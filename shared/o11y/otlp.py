"""Spans and log records as OTLP, in protobuf's wire format written by hand.

The generated classes build a Python object for every attribute, which takes longer than all the
rest a span costs. Here an attribute is a few joined bytes, and one that was seen before is looked
up. Messages and field numbers are those of opentelemetry-proto 1.x, trace.proto and logs.proto;
a test decodes what is written with the generated classes.
"""

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from opentelemetry._logs import SeverityNumber
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, TraceFlags

_KINDS = {
    SpanKind.INTERNAL: 1,
    SpanKind.SERVER: 2,
    SpanKind.CLIENT: 3,
    SpanKind.PRODUCER: 4,
    SpanKind.CONSUMER: 5,
}
_HAS_IS_REMOTE = 0x100
_IS_REMOTE = 0x200

_REMEMBERED = 4096
"""Attributes kept encoded; most values of a service come again and again."""

_LONG = 32
"""Longer strings are seldom the same twice."""

_KIND_FIELDS = {kind: bytes((0x30, number)) for kind, number in _KINDS.items()}
_NEAR_PARENT = b"\x85\x01" + struct.pack("<I", _HAS_IS_REMOTE)
_REMOTE_PARENT = b"\x85\x01" + struct.pack("<I", _HAS_IS_REMOTE | _IS_REMOTE)

_times = struct.Struct("<cQcQ").pack
_double = struct.Struct("<d").pack
_fixed64 = struct.Struct("<Q").pack
_fixed32 = struct.Struct("<I").pack


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


_VARINTS = [_varint(value) for value in range(1 << 14)]


def _length(content: bytes) -> bytes:
    size = len(content)
    return _VARINTS[size] if size < 1 << 14 else _varint(size)


def _field(tag: bytes, content: bytes) -> bytes:
    """A length-delimited field: a string, bytes or a message."""
    return tag + _length(content) + content


def _value(value: object) -> bytes:
    """An AnyValue."""
    encode = _ENCODERS.get(value.__class__)
    if encode is not None:
        return encode(value)
    for kind, encode in _ENCODERS.items():  # a subclass, as enumerations are
        if isinstance(value, kind):
            return encode(value)
    return _string(str(value))


def _integer(value: int) -> bytes:
    if -(1 << 63) <= value < 1 << 63:
        return b"\x18" + _varint(value & 0xFFFFFFFFFFFFFFFF)
    return _string(hex(value))  # no field is wide enough


def _string(value: str) -> bytes:
    return _field(b"\x0a", value.encode("utf-8", "replace"))


def _array(value: Sequence[object]) -> bytes:
    return _field(b"\x2a", b"".join(_field(b"\x0a", _value(item)) for item in value))


def _map(value: Mapping[object, object]) -> bytes:
    pairs = b"".join(_field(b"\x0a", _key_value(str(k), v)) for k, v in value.items())
    return _field(b"\x32", pairs)


_ENCODERS: dict[type, Callable[[Any], bytes]] = {
    str: _string,
    bool: lambda value: b"\x10\x01" if value else b"\x10\x00",
    int: _integer,
    float: lambda value: b"\x21" + _double(value),
    bytes: lambda value: _field(b"\x3a", value),
    tuple: _array,
    list: _array,
    dict: _map,
    type(None): lambda _: b"",
    Mapping: _map,
    Sequence: _array,
}


_keys: dict[str, bytes] = {}


def _key_value(key: str, value: object) -> bytes:
    named = _keys.get(key)
    if named is None:
        if len(_keys) >= _REMEMBERED:
            _keys.clear()
        named = _keys[key] = _field(b"\x0a", key.encode("utf-8", "replace"))
    return named + _field(b"\x12", _value(value))


_SIMPLE = frozenset({str, int, bool})
"""Values, and tuples of them, that can be looked up: what is equal and of one type is the same."""


class _Attributes:
    """Attributes as a repeated field with one tag."""

    def __init__(self, tag: bytes) -> None:
        self._tag = tag
        self._known: dict[tuple[str, object, object], bytes] = {}
        self._floats: dict[str, bytes] = {}

    def __call__(self, attributes: Mapping[str, Any]) -> bytes:
        known, parts = self._known, []
        for key, value in attributes.items():
            kind: Any = value.__class__
            if kind is str:
                often = len(value) <= _LONG
            elif kind is float:
                parts.append((self._floats.get(key) or self._float(key)) + _double(value))
                continue
            elif kind is tuple:
                kind = tuple(map(type, value))
                often = _SIMPLE.issuperset(kind)
            else:
                often = kind in _SIMPLE
            if not often:
                parts.append(_field(self._tag, _key_value(key, value)))
                continue
            known_as = (key, value, kind)
            found = known.get(known_as)
            if found is None:
                found = _field(self._tag, _key_value(key, value))
                if len(known) >= _REMEMBERED:
                    known.clear()
                known[known_as] = found
            parts.append(found)
        return b"".join(parts)

    def _float(self, key: str) -> bytes:
        """All of a float's attribute but its last eight bytes."""
        if len(self._floats) >= _REMEMBERED:
            self._floats.clear()
        found = self._floats[key] = _field(self._tag, _key_value(key, 0.0))[:-8]
        return found


_of_resource = _Attributes(b"\x0a")
_of_scope = _Attributes(b"\x1a")
_of_span = _Attributes(b"\x4a")
_of_event = _Attributes(b"\x1a")
_of_link = _Attributes(b"\x22")
_of_log = _Attributes(b"\x32")


class Row(NamedTuple):
    """A span or log record as it is sent, and what it is grouped by."""

    resource: Resource
    scope: InstrumentationScope | None
    content: bytes


def span_row(span: ReadableSpan) -> Row:
    """A Span."""
    return Row(span.resource, span.instrumentation_scope, _span(span))


@dataclass(frozen=True, slots=True)
class LogLine:
    """A log record (logs data model), written once and only read."""

    resource: Resource
    scope: InstrumentationScope
    timestamp: int
    """Nanoseconds since the epoch."""
    severity: SeverityNumber
    body: object
    attributes: Mapping[str, object]
    span_context: SpanContext
    event_name: str | None = None


def log_row(record: LogLine | ReadableLogRecord) -> Row:
    """A LogRecord, of one of our lines or one of the SDK's records (GenAI events)."""
    line = record if isinstance(record, LogLine) else _line(record)
    return Row(line.resource, line.scope, _log(line))


def _line(readable: ReadableLogRecord) -> LogLine:
    record = readable.log_record
    return LogLine(
        readable.resource,
        readable.instrumentation_scope or InstrumentationScope(""),
        record.timestamp or record.observed_timestamp or 0,
        record.severity_number or SeverityNumber.UNSPECIFIED,
        record.body,
        record.attributes or {},
        SpanContext(
            record.trace_id or 0, record.span_id or 0, False, record.trace_flags or TraceFlags(0)
        ),
        record.event_name,
    )


def message(rows: Iterable[Row]) -> bytes:
    """An ExportTraceServiceRequest or ExportLogsServiceRequest: both have the same field numbers
    for what groups their rows.
    """
    groups: dict[int, tuple[Resource, dict[InstrumentationScope | None, list[bytes]]]] = {}
    for resource, scope, row in rows:
        group = groups.setdefault(id(resource), (resource, {}))
        group[1].setdefault(scope, []).append(_field(b"\x12", row))
    return b"".join(_field(b"\x0a", _of_one_resource(*group)) for group in groups.values())


def _of_one_resource(
    resource: Resource, scopes: Mapping[InstrumentationScope | None, list[bytes]]
) -> bytes:
    parts = [_field(b"\x0a", _of_resource(resource.attributes))]
    for scope, rows in scopes.items():
        named = _field(b"\x0a", _scope(scope) if scope else b"")
        schema_url = _text(b"\x1a", scope.schema_url) if scope else b""
        parts.append(_field(b"\x12", named + b"".join(rows) + schema_url))
    parts.append(_text(b"\x1a", resource.schema_url))
    return b"".join(parts)


def _scope(scope: InstrumentationScope) -> bytes:
    return (
        _text(b"\x0a", scope.name)
        + _text(b"\x12", scope.version)
        + _of_scope(scope.attributes or {})
    )


def _text(tag: bytes, text: str | None) -> bytes:
    return _field(tag, text.encode("utf-8", "replace")) if text else b""


def _span(span: ReadableSpan) -> bytes:
    # Fields of the SDK's span, not its properties: these copy what they return.
    own, parent, status = span._context, span._parent, span._status
    assert own is not None
    return b"".join(
        (
            b"\x0a\x10",
            own.trace_id.to_bytes(16, "big"),
            b"\x12\x08",
            own.span_id.to_bytes(8, "big"),
            _text(b"\x1a", own.trace_state.to_header()) if own.trace_state else b"",
            b"\x22\x08" + parent.span_id.to_bytes(8, "big") if parent else b"",
            _name(span._name),
            _KIND_FIELDS[span._kind],
            _times(b"\x39", span._start_time or 0, b"\x41", span._end_time or 0),
            _of_span(span._attributes or {}),
            _count(b"\x50", span.dropped_attributes),
            b"".join(_field(b"\x5a", _event(event)) for event in span._events)
            if span._events
            else b"",
            _count(b"\x60", span.dropped_events),
            b"".join(_field(b"\x6a", _link(link)) for link in span._links) if span._links else b"",
            _count(b"\x70", span.dropped_links),
            _status(status),
            _REMOTE_PARENT if parent and parent.is_remote else _NEAR_PARENT,
        )
    )


def _status(status: Status) -> bytes:
    code = status.status_code.value
    if code == 0:
        return b"\x7a\x00"
    return _field(b"\x7a", _text(b"\x12", status.description) + b"\x18" + _VARINTS[code])


def _name(name: str) -> bytes:
    found = _names.get(name)
    if found is None:
        if len(_names) >= _REMEMBERED:
            _names.clear()
        found = _names[name] = _text(b"\x2a", name)
    return found


_names: dict[str, bytes] = {}


def _event(event: Event) -> bytes:
    return (
        b"\x09"
        + _fixed64(event.timestamp)
        + _text(b"\x12", event.name)
        + _of_event(event.attributes or {})
        + _count(b"\x20", event.dropped_attributes)
    )


def _link(link: Link) -> bytes:
    context = link.context
    return (
        b"\x0a\x10"
        + context.trace_id.to_bytes(16, "big")
        + b"\x12\x08"
        + context.span_id.to_bytes(8, "big")
        + _of_link(link.attributes or {})
        + _count(b"\x28", link.dropped_attributes)
        + b"\x35"
        + _fixed32(_flags(context))
    )


def _flags(context: SpanContext | None) -> int:
    return _HAS_IS_REMOTE | (_IS_REMOTE if context and context.is_remote else 0)


def _count(tag: bytes, count: int) -> bytes:
    return tag + _varint(count) if count else b""


def _log(record: LogLine) -> bytes:
    own = record.span_context
    return b"".join(
        (
            b"\x09" + _fixed64(record.timestamp),
            b"\x10" + _VARINTS[record.severity.value],
            _text(b"\x1a", record.severity.name) if record.severity.value else b"",
            _field(b"\x2a", _value(record.body)),
            _of_log(record.attributes),
            b"\x45" + _fixed32(own.trace_flags) if own.trace_flags else b"",
            b"\x4a\x10" + own.trace_id.to_bytes(16, "big") if own.is_valid else b"",
            b"\x52\x08" + own.span_id.to_bytes(8, "big") if own.is_valid else b"",
            b"\x59" + _fixed64(record.timestamp),
            _text(b"\x62", record.event_name),
        )
    )
