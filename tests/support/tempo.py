"""Reading traces back through Tempo's HTTP API, as a backend's user does."""

import base64
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx2

from o11y.telemetry import schema

FIND_SECONDS = 15.0


@dataclass(frozen=True)
class Span:
    """One span of a stored trace; ids in hex, times in nanoseconds."""

    span_id: str
    parent_id: str
    service: str
    name: str
    kind: str
    start: int
    end: int
    error: bool
    attributes: dict[str, Any]


@dataclass(frozen=True)
class Trace:
    spans: list[Span]

    def one(self, service: str, name: str) -> Span:
        found = [span for span in self.spans if (span.service, span.name) == (service, name)]
        assert len(found) == 1, f"{len(found)} spans {service} {name} among {self.names()}"
        return found[0]

    def names(self) -> list[tuple[str, str]]:
        return [(span.service, span.name) for span in self.spans]

    def parent(self, span: Span) -> Span | None:
        return next((other for other in self.spans if other.span_id == span.parent_id), None)

    def edges(self) -> set[tuple[str, str, str, str]]:
        """(parent service, parent name, child service, child name) of each parent and child."""
        return {
            (parent.service, parent.name, span.service, span.name)
            for span in self.spans
            if (parent := self.parent(span))
        }


def read(tempo_url: str, trace_id: str) -> Trace:
    """The trace as it is now; empty when nothing has arrived."""
    body = httpx2.get(f"{tempo_url}/api/v2/traces/{trace_id}", timeout=5).raise_for_status().json()
    spans = []
    for group in body.get("trace", {}).get("resourceSpans", []):
        resource = _attributes(group["resource"].get("attributes", []))
        for scope in group["scopeSpans"]:
            spans += [_span(span, str(resource["service.name"])) for span in scope["spans"]]
    return Trace(spans)


def wait_for(tempo_url: str, trace_id: str, complete: Callable[[Trace], bool]) -> Trace:
    """The trace once it is complete; fails with what there is when it never gets so."""
    deadline = time.monotonic() + FIND_SECONDS
    while True:
        trace = read(tempo_url, trace_id)
        if complete(trace):
            return trace
        assert time.monotonic() < deadline, f"trace {trace_id} has only {trace.names()}"
        time.sleep(0.1)


def whole(trace: Trace) -> bool:
    """Whether all of it has arrived.

    A process exports its spans in the order they end, children first: the trace is whole when its
    root is there, no span's parent is missing, and behind every call to a service is its answer.
    """
    orphans = [span for span in trace.spans if trace.parent(span) is None]
    calls = {
        span.span_id
        for span in trace.spans
        if span.attributes.get(schema.PEER_SERVICE) in schema.EVERY_SERVICE
    }
    answered = {span.parent_id for span in trace.spans}
    return len(orphans) == 1 and not orphans[0].parent_id and calls <= answered


def _span(span: dict[str, Any], service: str) -> Span:
    return Span(
        span_id=_hex(span["spanId"]),
        parent_id=_hex(span.get("parentSpanId", "")),
        service=service,
        name=span["name"],
        kind=span.get("kind", "").removeprefix("SPAN_KIND_"),
        start=int(span["startTimeUnixNano"]),
        end=int(span["endTimeUnixNano"]),
        error=span.get("status", {}).get("code") == "STATUS_CODE_ERROR",
        attributes=_attributes(span.get("attributes", [])),
    )


def _attributes(pairs: list[dict[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for pair in pairs:
        ((kind, value),) = pair["value"].items()
        values[pair["key"]] = int(value) if kind == "intValue" else value
    return values


def _hex(value: str) -> str:
    return base64.b64decode(value).hex()
