"""Two providers side by side, ours and the SDK's, and all there is to know of their spans."""

import itertools
from collections.abc import Callable
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import (
    Span,
    Tracer,
    get_current_span,
)

from o11y.spans import LeanTracerProvider

RESOURCE = Resource({"service.name": "thing-svc"})


class Counted(IdGenerator):
    """The same ids for both."""

    def __init__(self, random: bool = True) -> None:
        self._numbers = itertools.count(1)
        self._random = random

    def generate_span_id(self) -> int:
        return next(self._numbers)

    def generate_trace_id(self) -> int:
        number = next(self._numbers)
        return number << 100 | number * 0x9E3779B97F4A7C15 % (1 << 64)  # low bits all over

    def is_trace_id_random(self) -> bool:
        return self._random


class Seen(SpanProcessor):
    """What a processor sees of a span, and when."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, bool, dict[str, Any], int]] = []

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        assert isinstance(span, ReadableSpan)
        span.set_attribute("seen", True)
        parent = get_current_span(parent_context).get_span_context().span_id
        self._note("start", span, parent)

    def on_end(self, span: ReadableSpan) -> None:
        self._note("end", span, 0)

    def _note(self, what: str, span: ReadableSpan, parent: int) -> None:
        attributes = dict(span.attributes or {})
        self.seen.append((what, span.name, span.end_time is None, attributes, parent))


class Recorder:
    """A provider, and all there is to know of the spans it ended."""

    def __init__(self, kind: type[TracerProvider], **options: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.seen = Seen()
        options = {"id_generator": Counted(), **options}
        self.provider = kind(resource=RESOURCE, shutdown_on_exit=False, **options)
        self.provider.add_span_processor(self.seen)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer: Tracer = self.provider.get_tracer("o11y", "1", "https://schema")

    def told(self) -> list[tuple[Any, ...]]:
        return [told_of(span) for span in self.exporter.get_finished_spans()]


def told_of(span: ReadableSpan) -> tuple[Any, ...]:
    assert span.start_time
    assert span.end_time
    own = span.get_span_context()
    assert own
    return (
        *(span.name, span.kind, tuple(own), span.parent and tuple(span.parent)),
        dict(span.attributes or {}),
        [(event.name, _without_lines(dict(event.attributes or {}))) for event in span.events],
        [(tuple(link.context), dict(link.attributes or {})) for link in span.links],
        (span.status.status_code, span.status.description),
        (span.resource, span.instrumentation_scope),
        (span.dropped_attributes, span.dropped_events, span.dropped_links),
        (span.start_time < 1000, span.end_time < 1000, span.start_time <= span.end_time),
    )


def _without_lines(attributes: dict[str, Any]) -> dict[str, Any]:
    """Without the trace of the stack, whose lines are those of two tracers."""
    stack = attributes.pop("exception.stacktrace", "")
    return {**attributes, "last": str(stack).strip().rpartition("\n")[2]}


Work = Callable[[Tracer], None]


def check(work: Work, **options: Any) -> list[tuple[Any, ...]]:
    """Do the same on both; returns what is told of it."""
    recorders = [Recorder(kind, **options) for kind in (LeanTracerProvider, TracerProvider)]
    for recorder in recorders:
        work(recorder.tracer)
        recorder.provider.shutdown()
    ours, theirs = recorders
    assert ours.told() == theirs.told()
    assert ours.seen.seen == theirs.seen.seen
    return ours.told()
