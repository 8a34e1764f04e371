"""Traces read from Tempo's API into dataclasses."""

import asyncio
import base64
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import httpx2

from o11y.telemetry import schema

POLL_SECONDS = 1.0
"""Pause between reads of a trace that is still arriving: services send their spans every second."""


class TraceError(Exception):
    """No trace can be shown; the message is the sentence that says why."""


class MissingTraceError(TraceError):
    """The store answers, and doesn't have the trace (yet)."""


@dataclass(frozen=True)
class Span:
    """One span. Ids are lower-case hex, times nanoseconds since 1970."""

    id: str
    parent_id: str | None
    name: str
    service: str
    instance: str
    start: int
    end: int
    attributes: Mapping[str, object]
    failed: bool = False
    message: str = ""

    @property
    def seconds(self) -> float:
        return max(0, self.end - self.start) / 1e9


@dataclass(frozen=True)
class Trace:
    """The spans of one trace that have arrived, by their start."""

    id: str
    spans: tuple[Span, ...]

    @cached_property
    def start(self) -> int:
        return min(span.start for span in self.spans)

    @cached_property
    def seconds(self) -> float:
        return (max(max(span.start, span.end) for span in self.spans) - self.start) / 1e9

    @cached_property
    def services(self) -> list[str]:
        """Names of the services, in the order they come in."""
        return list(dict.fromkeys(span.service for span in self.spans))

    @cached_property
    def orphans(self) -> frozenset[str]:
        """Ids of the spans whose parent isn't here."""
        known = {span.id for span in self.spans}
        return frozenset(s.id for s in self.spans if s.parent_id and s.parent_id not in known)

    def children(self, parent: Span | None) -> list[Span]:
        """The spans right below `parent`; for None those at the top."""
        if parent is None:
            return [s for s in self.spans if s.parent_id is None or s.id in self.orphans]
        return [span for span in self.spans if span.parent_id == parent.id]


def parse(trace_id: str, body: Mapping[str, Any]) -> Trace:
    """The trace in an answer of `/api/v2/traces`. A span that comes twice counts once.

    Raises ValueError for an invalid id.
    """
    spans = {span.id: span for span in _spans(body.get("trace") or {})}
    return Trace(trace_id, tuple(sorted(spans.values(), key=lambda span: (span.start, -span.end))))


def _spans(trace: Mapping[str, Any]) -> Iterator[Span]:
    for group in trace.get("resourceSpans", ()):
        resource = _attributes(group.get("resource", {}))
        for scope in group.get("scopeSpans", ()):
            for span in scope.get("spans", ()):
                status, attributes = span.get("status", {}), _attributes(span)
                yield Span(
                    id=identifier(span.get("spanId", ""), 8),
                    parent_id=identifier(span.get("parentSpanId") or "", 8) or None,
                    name=span.get("name", ""),
                    service=str(resource.get("service.name", "unknown")),
                    instance=str(resource.get("service.instance.id", "")),
                    start=int(span.get("startTimeUnixNano", 0)),
                    end=int(span.get("endTimeUnixNano", 0)),
                    attributes=attributes,
                    failed=status.get("code") in ("STATUS_CODE_ERROR", 2)
                    or schema.ERROR_TYPE in attributes,
                    message=status.get("message", ""),
                )


def identifier(text: str, size: int) -> str:
    """An id of `size` bytes as hex. OTLP's JSON has it in hex, protobuf's JSON in base64; the two
    never have the same length.
    """
    if not text:
        return ""
    raw = bytes.fromhex(text) if len(text) == 2 * size else base64.b64decode(text, validate=True)
    if len(raw) != size:
        raise ValueError(f"{text!r} is no id of {size} bytes")
    return raw.hex()


def _attributes(holder: Mapping[str, Any]) -> dict[str, object]:
    return {item["key"]: _value(item.get("value", {})) for item in holder.get("attributes", ())}


def _value(value: Mapping[str, Any]) -> object:
    match value:
        case {"intValue": whole}:
            return int(whole)
        case {"doubleValue": number}:
            return float(number)
        case {"arrayValue": items}:
            return [_value(item) for item in items.get("values", ())]
    return next(iter(value.values()), None)


async def fetch(http: httpx2.AsyncClient, tempo_url: str, trace_id: str) -> Trace:
    """Read the spans of a trace that the store has at this moment. Raises TraceError."""
    try:
        response = await http.get(
            f"{tempo_url}/api/v2/traces/{trace_id}", headers={"Accept": "application/json"}
        )
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise TraceError(
            f"No trace store answers at {tempo_url} ({error or type(error).__name__})."
        ) from error
    if response.status_code not in (200, 404):
        raise TraceError(f"The trace store at {tempo_url} answered {response.status_code}.")
    try:
        trace = parse(trace_id, response.json() if response.status_code == 200 else {})
    except ValueError as error:
        raise TraceError(f"What answers at {tempo_url} is no trace store: {error}.") from error
    if not trace.spans:
        raise MissingTraceError(
            f"The trace store at {tempo_url} has no trace {trace_id}; a new one takes some seconds."
        )
    return trace


async def settled(
    http: httpx2.AsyncClient,
    tempo_url: str,
    trace_id: str,
    services: Collection[str],
    timeout_seconds: float,
) -> Trace:
    """Wait for all of a trace: every service, every parent, and no more spans coming.

    Returns the spans that have arrived when time is up. Raises TraceError.
    """
    until = time.monotonic() + timeout_seconds
    seen = 0
    while True:
        late = time.monotonic() + POLL_SECONDS > until
        try:
            trace = await fetch(http, tempo_url, trace_id)
        except MissingTraceError:
            if late:
                raise
        else:
            whole = not trace.orphans and set(services) <= set(trace.services)
            if late or (whole and len(trace.spans) == seen):
                return trace
            seen = len(trace.spans)
        await asyncio.sleep(POLL_SECONDS)
