"""Spans that cost a few microseconds.

The SDK's span copies, checks and locks every attribute, which takes most of its time. These are the
same to whoever reads them; samplers, ids, processors and exporters are the SDK's. What they are
given is ours and typed, and a span is written by the one request it belongs to.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

from opentelemetry.context import Context
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace import Tracer as SdkTracer
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    DEFAULT_OFF,
    DEFAULT_ON,
    Decision,
    ParentBased,
    ParentBasedTraceIdRatio,
    Sampler,
    TraceIdRatioBased,
)
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    get_current_span,
    use_span,
)
from opentelemetry.util.types import Attributes, AttributeValue

_UNSET = Status(StatusCode.UNSET)
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_NOT_SAMPLED = TraceFlags(TraceFlags.DEFAULT)
_SAMPLED_RANDOM = TraceFlags(TraceFlags.SAMPLED | TraceFlags.RANDOM_TRACE_ID)
_NOT_SAMPLED_RANDOM = TraceFlags(TraceFlags.RANDOM_TRACE_ID)
_LIMITS = SpanLimits()


class LeanSpan(SdkSpan):
    """A recording span whose attributes are a plain dict."""

    _attributes: dict[str, AttributeValue]

    def __init__(
        self,
        tracer: SdkTracer,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        kind: SpanKind,
        attributes: Attributes,
        links: Sequence[Link],
        start_time: int | None,
    ) -> None:
        # What the SDK's readers, and the methods inherited from its span, look at.
        self._name = name
        self._context = context
        self._parent = parent
        self._kind = kind
        self._attributes = {}
        self._events = []
        self._status = _UNSET
        self._resource = tracer.resource
        self._instrumentation_scope = tracer._instrumentation_scope
        self._instrumentation_info = tracer.instrumentation_info
        self._span_processor = tracer.span_processor
        self._limits = _LIMITS
        self._links = self._new_links(links) if links else []
        self._record_exception = True
        self._set_status_on_exception = True
        self._end_time = None
        self._start_time = time.time_ns() if start_time is None else start_time
        self._lock = cast(Any, _NOBODY)
        if attributes:
            self.set_attributes(attributes)

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        if self._end_time is None:
            self._attributes[key] = tuple(value) if value.__class__ is list else value

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        if self._end_time is None:
            mine = self._attributes
            for key, value in attributes.items():
                mine[key] = tuple(value) if value.__class__ is list else value

    def end(self, end_time: int | None = None) -> None:
        if self._end_time is None:
            self._end_time = time.time_ns() if end_time is None else end_time
            self._span_processor.on_end(self)


class _Nobody:
    """Stands for the lock of the SDK's span: nobody else writes it."""

    def __enter__(self) -> None:
        return

    def __exit__(self, *_: object) -> None:
        return


_NOBODY = _Nobody()


def sampler(name: str, ratio: float) -> Sampler:
    """The sampler that OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG name (SDK specification)."""
    match name:
        case "traceidratio":
            return TraceIdRatioBased(ratio)
        case "parentbased_traceidratio":
            return ParentBasedTraceIdRatio(ratio)
    return {
        "always_on": ALWAYS_ON,
        "always_off": ALWAYS_OFF,
        "parentbased_always_on": DEFAULT_ON,
        "parentbased_always_off": DEFAULT_OFF,
    }[name]


_LOW = TraceIdRatioBased.TRACE_ID_LIMIT
"""The bits of a trace id that decide."""


def _bound(sampler: Sampler) -> int | None:
    """The number the low bits of a root's trace id must be below for it to be sampled; None for
    samplers whose children don't simply follow their parents.
    """
    if type(sampler) not in (ParentBased, ParentBasedTraceIdRatio):
        return None
    assert isinstance(sampler, ParentBased)
    follows = (
        sampler._remote_parent_sampled is sampler._local_parent_sampled is ALWAYS_ON
        and sampler._remote_parent_not_sampled is sampler._local_parent_not_sampled is ALWAYS_OFF
    )
    root = sampler._root
    if not follows:
        return None
    if type(root) is TraceIdRatioBased:
        return int(root.bound)
    if root is ALWAYS_ON:
        return _LOW + 1
    return 0 if root is ALWAYS_OFF else None


class LeanTracer(Tracer):
    """Starts lean spans, as the SDK's tracer would start its own."""

    def __init__(self, sdk: SdkTracer) -> None:
        self._sdk = sdk
        self._bound = _bound(sdk.sampler)
        self._random = sdk.id_generator.is_trace_id_random()

    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[Link] | None = (),
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> Span:
        sdk = self._sdk
        found = get_current_span(context).get_span_context()
        parent = found if found.is_valid else None
        trace_id = parent.trace_id if parent else sdk.id_generator.generate_trace_id()
        state = parent.trace_state if parent else None
        random = parent.trace_flags.random_trace_id if parent else self._random
        if self._bound is not None:
            sampled = parent.trace_flags.sampled if parent else trace_id & _LOW < self._bound
            recorded = sampled
        else:
            result = sdk.sampler.should_sample(context, trace_id, name, kind, attributes, links)
            sampled = result.decision is Decision.RECORD_AND_SAMPLE
            recorded = result.decision is not Decision.DROP
            state = result.trace_state
            attributes = {**(attributes or {}), **result.attributes}
        if sampled:
            flags = _SAMPLED_RANDOM if random else _SAMPLED
        else:
            flags = _NOT_SAMPLED_RANDOM if random else _NOT_SAMPLED
        own = SpanContext(trace_id, sdk.id_generator.generate_span_id(), False, flags, state)
        if not recorded:
            return NonRecordingSpan(own)
        span = LeanSpan(sdk, name, own, parent, kind, attributes, links or (), start_time)
        span._record_exception = record_exception
        span._set_status_on_exception = set_status_on_exception
        sdk.span_processor.on_start(span, context)
        return span

    @contextmanager
    def start_as_current_span(  # type: ignore[override]
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[Link] | None = (),
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
        end_on_exit: bool = True,
    ) -> Iterator[Span]:
        span = self.start_span(
            name,
            context,
            kind,
            attributes,
            links,
            start_time,
            record_exception,
            set_status_on_exception,
        )
        with use_span(span, end_on_exit, record_exception, set_status_on_exception):
            yield span


class LeanTracerProvider(TracerProvider):
    """The SDK's provider, whose tracers start lean spans."""

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes = None,
    ) -> Tracer:
        tracer = super().get_tracer(
            instrumenting_module_name, instrumenting_library_version, schema_url, attributes
        )
        return LeanTracer(tracer) if isinstance(tracer, SdkTracer) else tracer
