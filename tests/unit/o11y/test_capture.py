"""What was said is told as OpenTelemetry's GenAI utilities tell it, and never too much of it."""

import json
from typing import Any

import pytest
from opentelemetry._logs import SeverityNumber
from opentelemetry.util.genai.handler import TelemetryHandler
from opentelemetry.util.genai.types import (
    InputMessage,
    OutputMessage,
    TextPart,
    ToolCallRequestPart,
)

from o11y.settings import ServiceSettings
from o11y.telemetry import schema
from o11y.telemetry.capture import CUT, MAX_BYTES
from tests.support.recorded import Recorded, attributes

CONTENT = (schema.INPUT_MESSAGES, schema.OUTPUT_MESSAGES, schema.SYSTEM_INSTRUCTIONS)
VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"

ASKED = [
    InputMessage("system", [TextPart("Be brief.")]),
    InputMessage("user", [TextPart("Weather in \u00c5s?")], name="ann"),
    InputMessage("assistant", [ToolCallRequestPart({"place": "\u00c5s"}, "weather", "1")]),
]
ANSWERED = [OutputMessage("assistant", [TextPart("Rain.")], "stop")]


def recorded(mode: str) -> Recorded:
    settings = {"otel_instrumentation_genai_capture_message_content": mode}
    return Recorded("thing-svc", ServiceSettings.model_validate({"app_port": 1, **settings}))


def told(asked: list[InputMessage], answered: list[OutputMessage] = ANSWERED) -> dict[str, Any]:
    """The attributes of a span on which this was told."""
    found = recorded("SPAN_ONLY")
    assert found.telemetry.capture
    with found.telemetry.tracer.start_as_current_span("call") as span:
        found.telemetry.capture.record(span, asked, answered)
    [ended] = found.spans()
    return attributes(ended)


def test_by_default_there_is_nothing_that_could_tell() -> None:
    settings = ServiceSettings.model_validate({"app_port": 1})
    assert Recorded("thing-svc", settings).telemetry.capture is None


@pytest.mark.parametrize("mode", ["SPAN_ONLY", "EVENT_ONLY", "SPAN_AND_EVENT"])
def test_span_and_event_have_what_the_utilities_give_them(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, mode)
    ours, theirs = recorded(mode.lower()), recorded(mode)
    with ours.telemetry.tracer.start_as_current_span("call") as span:
        assert ours.telemetry.capture
        ours.telemetry.capture.record(span, ASKED, ANSWERED)
    told = theirs.telemetry
    handler = TelemetryHandler(told.tracer_provider, told.meter_provider, told.logger_provider)
    written = handler.inference("p")
    written.input_messages, written.output_messages = ASKED[1:], ANSWERED
    written.system_instruction = [TextPart("Be brief.")]
    written.stop()

    def spans(of: Recorded) -> dict[str, object]:
        return {k: v for k, v in attributes(of.spans()[0]).items() if k in CONTENT}

    def events(of: Recorded) -> list[tuple[str | None, dict[str, object]]]:
        return [
            (each.event_name, {k: v for k, v in (each.attributes or {}).items() if k in CONTENT})
            for each in of.events()
        ]

    assert (spans(ours), events(ours)) == (spans(theirs), events(theirs))
    assert len(spans(ours)) == (0 if mode == "EVENT_ONLY" else 3)
    assert len(ours.events()) == (0 if mode == "SPAN_ONLY" else 1)


def test_an_event_belongs_to_its_span_and_has_its_attributes() -> None:
    found = recorded("EVENT_ONLY")
    assert found.telemetry.capture
    with found.telemetry.tracer.start_as_current_span(
        "call", attributes={schema.REQUEST_MODEL: "m"}
    ) as span:
        found.telemetry.capture.record(span, ASKED, ANSWERED)
    [event] = found.events()
    context = span.get_span_context()
    assert (event.trace_id, event.span_id) == (context.trace_id, context.span_id)
    assert event.timestamp
    assert (event.attributes or {})[schema.REQUEST_MODEL] == "m"


@pytest.mark.parametrize("mode", ["NO_CONTENT", "SPAN_ONLY", "EVENT_ONLY", "SPAN_AND_EVENT"])
def test_the_log_level_debug_asks_for_an_event_of_each_call(mode: str) -> None:
    variable = {"otel_instrumentation_genai_capture_message_content": mode}
    settings = {"app_port": 1, "log_level": "DEBUG", **variable}
    found = Recorded("thing-svc", ServiceSettings.model_validate(settings))
    assert found.telemetry.capture
    assert found.telemetry.capture.has_content is (mode != "NO_CONTENT")
    with found.telemetry.tracer.start_as_current_span("call", attributes={"a": 1}) as span:
        found.telemetry.capture.record(span, ASKED, ANSWERED)
    [event] = found.events()
    assert event.severity_number is SeverityNumber.DEBUG
    told = set(event.attributes or ())
    assert told == {"a", *(CONTENT if mode in ("EVENT_ONLY", "SPAN_AND_EVENT") else ())}


def test_what_is_not_sampled_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    found = recorded("SPAN_AND_EVENT")
    assert found.telemetry.capture
    with found.telemetry.tracer.start_as_current_span("call") as span:
        found.telemetry.capture.record(span, ASKED, ANSWERED)
    assert (found.spans(), found.events()) == ([], [])


def test_of_a_long_text_the_beginning_is_told_and_that_there_was_more() -> None:
    text = "x" * 1_000_000
    found = told(
        [InputMessage("system", [TextPart(text)]), InputMessage("user", [TextPart(text)])],
        [OutputMessage("assistant", [TextPart(text)], "stop")],
    )
    for key in CONTENT:
        assert MAX_BYTES * 0.9 < len(found[key]) < MAX_BYTES * 1.1
        assert json.dumps(CUT)[1:-1] in found[key]


LOKI_BYTES = 64 << 10
"""Most bytes of structured metadata that Loki takes with a line, by default."""


@pytest.mark.parametrize("text", ["x", "é", "漢", "😀", '"\\', "\n\t", "\ud83d", "x漢"])
@pytest.mark.parametrize("mode", ["SPAN_ONLY", "EVENT_ONLY"])
def test_what_is_told_is_not_more_than_a_backend_takes(text: str, mode: str) -> None:
    found = recorded(mode)
    messages = [InputMessage("user", [TextPart(text * 50_000)]) for _ in range(3)]
    many = [InputMessage("user", [TextPart(text * 10)] * 20) for _ in range(100)]
    call = ToolCallRequestPart({text * 5000: text * 50_000}, text * 500, "1")
    answered = [OutputMessage("assistant", [TextPart(text * 50_000), call], "stop")] * 2
    system = [InputMessage("system", [TextPart(text * 50_000)])]
    for asked in (messages, many):
        with found.telemetry.tracer.start_as_current_span("call") as span:
            assert found.telemetry.capture
            found.telemetry.capture.record(span, [*system, *asked], answered)
    records = found.events() if mode == "EVENT_ONLY" else found.spans()
    assert len(records) == 2
    for record in records:
        told = {key: value for key, value in (record.attributes or {}).items() if key in CONTENT}
        sizes = [
            len(value if isinstance(value, str) else json.dumps(value)) for value in told.values()
        ]
        assert len(sizes) == 3
        assert max(sizes) <= MAX_BYTES * 1.1
        assert sum(sizes) < LOKI_BYTES * 0.9
        assert min(sizes) > MAX_BYTES * 0.5


def test_of_a_long_conversation_the_end_is_told_and_that_there_was_more() -> None:
    asked = [InputMessage("user", [TextPart(f"question {n}")]) for n in range(100_000)]
    kept = json.loads(told(asked)[schema.INPUT_MESSAGES])
    assert kept[-1]["parts"] == [{"type": "text", "content": "question 99999"}]
    assert kept[0]["parts"][-1]["content"] == CUT
    assert 20 < len(kept) < MAX_BYTES / 64


def test_nothing_else_makes_a_message_long() -> None:
    long = "x" * 1_000_000
    call = ToolCallRequestPart({"a": long}, long, long)
    found = told([InputMessage(long, [call, *[TextPart("")] * 1000], name=long)])
    assert len(found[schema.INPUT_MESSAGES]) < MAX_BYTES * 1.5
