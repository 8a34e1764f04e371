"""Our spans beside the SDK's: samplers, processors and exporters can't tell them apart."""

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import (
    Link,
    NoOpTracer,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    get_current_span,
    use_span,
)
from opentelemetry.util.genai.handler import TelemetryHandler

from o11y.otlp import span_row
from o11y.spans import LeanSpan, LeanTracerProvider
from tests.unit.o11y.beside import Recorder, Work, check


def with_all(tracer: Tracer) -> None:
    link = Link(SpanContext(5, 6, True), {"l": [1, 2]})
    attributes: dict[str, Any] = {
        "s": "x",
        "n": 1,
        "f": 0.5,
        "b": True,
        "list": ["a", "b"],
        "tuple": (1, 2),
    }
    span = tracer.start_span("all", None, SpanKind.PRODUCER, attributes, [link], 5)
    span.set_attribute("list", [1.5])
    span.set_attributes({"n": 2, "more": [], "none": None})
    span.add_event("first", {"e": ["x"]}, 7)
    span.add_event("second")
    span.add_link(SpanContext(9, 9, False), {"k": "v"})
    span.update_name("renamed")
    span.end(9)


def nested(tracer: Tracer) -> None:
    for kind in SpanKind:
        with tracer.start_as_current_span("outer", kind=kind) as outer:
            assert get_current_span() is outer
            with tracer.start_as_current_span("inner"):
                tracer.start_span("leaf").end()
            tracer.start_span("root", Context()).end()
        assert get_current_span() is not outer


def failing(tracer: Tracer) -> None:
    for number, options in enumerate[dict[str, Any]](
        [
            {},
            {"record_exception": False},
            {"set_status_on_exception": False},
            {"record_exception": False, "set_status_on_exception": False},
        ]
    ):
        for error in (ValueError("gone"), KeyboardInterrupt()):
            with pytest.raises(type(error)), tracer.start_as_current_span(f"c{number}", **options):
                raise error
            with pytest.raises(type(error)), tracer.start_span(f"s{number}", **options):
                raise error
    span = tracer.start_span("fine")
    span.set_status(StatusCode.OK)
    with pytest.raises(ValueError, match="kept"), use_span(span, end_on_exit=True):
        raise ValueError("kept")


def noted(tracer: Tracer) -> None:
    span = tracer.start_span("work")
    try:
        raise LookupError("gone")
    except LookupError as error:
        span.record_exception(error, {"own": 1})
    span.end()


def statuses(tracer: Tracer) -> None:
    changes: list[list[tuple[Any, ...]]] = [
        [(StatusCode.ERROR,)],
        [(StatusCode.ERROR, "gone"), (StatusCode.UNSET,)],
        [(StatusCode.ERROR, "gone"), (StatusCode.ERROR, "lost")],
        [(StatusCode.OK,), (StatusCode.ERROR, "late")],
        [(Status(StatusCode.ERROR, "whole"),), (Status(StatusCode.UNSET),)],
        [(Status(StatusCode.OK),), (Status(StatusCode.ERROR, "late"),)],
    ]
    for calls in changes:
        span = tracer.start_span("work")
        for call in calls:
            span.set_status(*call)
        span.end()


def after_the_end(tracer: Tracer) -> None:
    span = tracer.start_span("work", attributes={"a": 1})
    assert span.is_recording()
    span.end(9)
    assert not span.is_recording()
    span.set_attribute("a", 2)
    span.set_attributes({"b": 2})
    span.add_event("late")
    span.add_link(SpanContext(9, 9, False))
    span.update_name("late")
    span.set_status(StatusCode.ERROR)
    span.record_exception(ValueError())
    span.end(10)
    with pytest.raises(ValueError, match="late"), span:
        raise ValueError("late")


def left_open(tracer: Tracer) -> None:
    with tracer.start_as_current_span("open", end_on_exit=False) as span:
        pass
    assert span.is_recording()
    span.end()


def by_name(tracer: Tracer) -> None:
    @tracer.start_as_current_span("decorated")
    def twice() -> None:
        tracer.start_span("within").end()

    twice()
    twice()


@pytest.mark.parametrize(
    "work", [with_all, nested, failing, noted, statuses, after_the_end, left_open, by_name]
)
def test_a_span_tells_what_the_sdks_would(work: Work) -> None:
    assert check(work)


@pytest.fixture
def lean() -> Iterator[Recorder]:
    recorder = Recorder(LeanTracerProvider)
    yield recorder
    recorder.provider.shutdown()


def test_spans_are_lean_and_can_be_read_and_sent(lean: Recorder) -> None:
    with_all(lean.tracer)
    [span] = lean.exporter.get_finished_spans()
    assert isinstance(span, LeanSpan)
    assert '"name": "renamed"' in span.to_json()
    assert span_row(span).content
    assert repr(span).startswith("LeanSpan(")


def test_what_a_caller_does_to_its_attributes_later_changes_no_span(lean: Recorder) -> None:
    names = ["a"]
    attributes = {"names": names}
    span = lean.tracer.start_span("work", attributes=attributes)
    names.append("b")
    attributes["more"] = names
    span.end()
    assert lean.told()[0][4] == {"names": ("a",), "seen": True}


def test_nothing_is_recorded_when_the_sdk_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    recorder = Recorder(LeanTracerProvider)
    assert isinstance(recorder.tracer, NoOpTracer)
    with recorder.tracer.start_as_current_span("work") as span:
        assert not span.is_recording()
    assert recorder.told() == []


def test_the_genai_handler_works_with_them() -> None:
    told = []
    for kind in (LeanTracerProvider, TracerProvider):
        recorder = Recorder(kind)
        handler = TelemetryHandler(recorder.provider, instrumentation_scope_name="o11y")
        with handler.workflow("answering") as workflow:
            workflow.attributes["steps"] = ["a", "b"]
            with handler.inference("openai", request_model="m") as call:
                call.input_tokens, call.output_tokens = 3, 4
                call.finish_reasons = ["stop"]
                call.temperature = 0.5
        with pytest.raises(ValueError, match="gone"), handler.embedding("openai"):
            raise ValueError("gone")
        recorder.provider.shutdown()
        told.append((recorder.told(), recorder.seen.seen))
    assert len(told[0][0]) == 3
    assert told[0] == told[1]
