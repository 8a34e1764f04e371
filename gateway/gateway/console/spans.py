"""Spans of a trace as the console shows them, read from the JSON of Tempo's API.

Follows the JSON of OTLP (opentelemetry.io/docs/specs/otlp#json-protobuf-encoding), but that ids are
base64, as protobuf's own JSON has them.
"""

import base64
import binascii
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic.alias_generators import to_camel


class _Read(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)


class _Attribute(_Read):
    key: str
    value: dict[str, Any] = Field(default_factory=dict)


class _Event(_Read):
    name: str = ""
    time_unix_nano: int = 0
    attributes: list[_Attribute] = Field(default_factory=list)


class _Status(_Read):
    code: int | str = 0
    message: str = ""


class _Span(_Read):
    span_id: str
    parent_span_id: str = ""
    name: str = ""
    kind: int | str = 0
    start_time_unix_nano: int = 0
    end_time_unix_nano: int = 0
    attributes: list[_Attribute] = Field(default_factory=list)
    events: list[_Event] = Field(default_factory=list)
    status: _Status = Field(default_factory=_Status)

    @field_validator("span_id", "parent_span_id")
    @classmethod
    def is_hex(cls, value: str) -> str:
        try:
            return value if len(value) == 16 else base64.b64decode(value, validate=True).hex()
        except binascii.Error as error:
            raise ValueError("should be base64") from error


class _Scope(_Read):
    spans: list[_Span] = Field(default_factory=list)


class _Resource(_Read):
    attributes: list[_Attribute] = Field(default_factory=list)


class _Batch(_Read):
    resource: _Resource = Field(default_factory=_Resource)
    scope_spans: list[_Scope] = Field(default_factory=list)


class StoredTrace(_Read):
    """The answer of `/api/traces/{id}`."""

    batches: list[_Batch] | None = None


class Event(BaseModel):
    """`at`: milliseconds since the trace began."""

    name: str
    at: float
    attributes: dict[str, Any]


class Span(BaseModel):
    """`begin`: milliseconds since the trace began; `duration`: milliseconds. `error` is its
    description where it failed.
    """

    id: str
    parent: str | None
    service: str
    name: str
    kind: str
    begin: float
    duration: float
    error: str | None
    attributes: dict[str, Any]
    events: list[Event]


def spans_of(trace: StoredTrace) -> list[Span]:
    """All spans, by their beginning."""
    found = []
    for batch in trace.batches or ():
        service = attributes_of(batch.resource.attributes).get("service.name", "")
        found += [(service, span) for scope in batch.scope_spans for span in scope.spans]
    first = min((span.start_time_unix_nano for _, span in found), default=0)
    shown = [_shown(str(service), span, first) for service, span in found]
    return sorted(shown, key=lambda span: span.begin)


def _shown(service: str, span: _Span, first: int) -> Span:
    failed = span.status.code in (2, "STATUS_CODE_ERROR")
    return Span(
        id=span.span_id,
        parent=span.parent_span_id or None,
        service=service,
        name=span.name,
        kind=_KINDS.get(span.kind, "unspecified"),
        begin=(span.start_time_unix_nano - first) / 1e6,
        duration=max(0, span.end_time_unix_nano - span.start_time_unix_nano) / 1e6,
        error=(span.status.message or "failed") if failed else None,
        attributes=attributes_of(span.attributes),
        events=[
            Event(
                name=event.name,
                at=(event.time_unix_nano - first) / 1e6,
                attributes=attributes_of(event.attributes),
            )
            for event in span.events
        ],
    )


_KINDS: dict[int | str, str] = {
    key: name
    for number, name in enumerate(("internal", "server", "client", "producer", "consumer"), 1)
    for key in (number, f"SPAN_KIND_{name.upper()}")
}


def attributes_of(attributes: list[_Attribute]) -> dict[str, Any]:
    return {each.key: _plain(each.value) for each in attributes}


def _plain(value: dict[str, Any]) -> Any:
    """A value of OTLP's JSON, whose whole numbers are texts."""
    for kind, content in value.items():
        if kind == "intValue":
            return int(content)
        if kind == "arrayValue":
            return [_plain(each) for each in content.get("values", ())]
        if kind == "kvlistValue":
            return {
                each["key"]: _plain(each.get("value", {})) for each in content.get("values", ())
            }
        return content
    return None
