"""The content of calls to models, on spans or in events of the logs; off by default.

Keys and event are those of semconv gen-ai (gen-ai-spans, gen-ai-events), messages and their JSON
those of the OpenTelemetry GenAI utilities.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields, replace
from importlib.metadata import version
from typing import Any, TypeVar

from opentelemetry._logs import LoggerProvider, LogRecord, SeverityNumber
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import Span, set_span_in_context
from opentelemetry.util.genai.types import (
    ContentCapturingMode,
    InputMessage,
    MessagePart,
    OutputMessage,
    RetrievalDocument,
    TextPart,
)
from opentelemetry.util.genai.utils import gen_ai_json_dumps

from o11y.telemetry import schema

MAX_BYTES = 16 << 10
"""Most bytes of each of the three attributes as JSON: Loki takes a log record with 64 KiB of them.
The end of a longer conversation is kept, the beginning of a longer text.
"""

CUT = "… [cut]"
"""The text in the place of what was left out."""

PART_BYTES = 64
"""Bytes that a message or a part counts beside its text."""

_ON_SPANS = (ContentCapturingMode.SPAN_ONLY, ContentCapturingMode.SPAN_AND_EVENT)
_IN_EVENTS = (ContentCapturingMode.EVENT_ONLY, ContentCapturingMode.SPAN_AND_EVENT)
_INSTRUCTIONS = ("system", "developer")

Message = TypeVar("Message", InputMessage, OutputMessage)


class Capture:
    """Tells of calls that are sampled: their content where the mode says, and in an event of its
    own each where the mode says or `debug` is set.
    """

    def __init__(
        self, mode: ContentCapturingMode, logs: LoggerProvider, *, debug: bool = False
    ) -> None:
        self.has_content = mode is not ContentCapturingMode.NO_CONTENT
        """True where prompts and answers are told somewhere."""
        self._on_spans = mode in _ON_SPANS
        self._in_events = mode in _IN_EVENTS
        logger = logs.get_logger("o11y", version("o11y"), schema.SCHEMA_URL)
        self._logger = logger if self._in_events or debug else None

    def record(
        self,
        span: Span,
        input_messages: Sequence[InputMessage] = (),
        output_messages: Sequence[OutputMessage] = (),
    ) -> None:
        """Tell of a call whose `span` has all other attributes and is about to end.

        What `asked` has of the roles system and developer are the instructions.
        """
        if not isinstance(span, ReadableSpan) or not span.is_recording():
            return
        content = _content(input_messages, output_messages) if self.has_content else {}
        if self._logger:
            self._logger.emit(
                LogRecord(
                    timestamp=time.time_ns(),
                    severity_number=SeverityNumber.DEBUG,
                    event_name=schema.EVENT_INFERENCE,
                    attributes={**(span.attributes or {}), **(content if self._in_events else {})},
                    context=set_span_in_context(span),
                )
            )
        if self._on_spans:
            span.set_attributes({key: gen_ai_json_dumps(items) for key, items in content.items()})

    def record_documents(self, span: Span, found: Sequence[RetrievalDocument]) -> None:
        """Put the ids and scores that a search found on its span; they are in no event."""
        if self._on_spans and span.is_recording():
            span.set_attribute(schema.RETRIEVAL_DOCUMENTS, gen_ai_json_dumps(found))


def _content(
    input_messages: Sequence[InputMessage], output_messages: Sequence[OutputMessage]
) -> dict[str, list[dict[str, Any]]]:
    """The attributes that hold the content of a call."""
    instructions = [message for message in input_messages if message.role in _INSTRUCTIONS]
    others = [message for message in input_messages if message.role not in _INSTRUCTIONS]
    cut: tuple[tuple[str, Iterable[Any]], ...] = (
        (schema.SYSTEM_INSTRUCTIONS, [p for each in _cut(instructions) for p in each.parts]),
        (schema.INPUT_MESSAGES, _cut(others[::-1])[::-1]),
        (schema.OUTPUT_MESSAGES, _cut(output_messages)),
    )
    return {key: [asdict(item) for item in items] for key, items in cut if items}


def _cut(messages: Sequence[Message]) -> list[Message]:
    """The first of the messages, as many as there is room for."""
    room = _Room()
    cut: list[Message] = []
    for message in messages:
        if room.left <= 0:
            cut[-1] = replace(cut[-1], parts=[*cut[-1].parts, TextPart(CUT)])
            break
        role = room.take(message.role)
        parts: list[MessagePart] = []
        for part in message.parts:
            if room.left <= 0:
                parts.append(TextPart(CUT))
                break
            parts.append(room.part(part))
        room.left -= PART_BYTES
        cut.append(replace(message, role=role, parts=parts, name=room.take(message.name)))
    return cut


class _Room:
    """The number of bytes for which there is room yet."""

    def __init__(self) -> None:
        self.left = MAX_BYTES

    def take(self, value: Any) -> Any:
        """The value, or as much of its text as there is room for."""
        if value is None:
            return None
        text = value if isinstance(value, str) else gen_ai_json_dumps(value)
        cut = _beginning(text, max(self.left, 0))
        self.left -= _size(cut) if len(cut) == len(text) else max(self.left, 0)
        return value if len(cut) == len(text) else cut + CUT

    def part(self, part: MessagePart) -> MessagePart:
        """A part with every text of it cut, but for its type."""
        self.left -= PART_BYTES
        texts = {
            each.name: self.take(getattr(part, each.name))
            for each in fields(part)
            if each.name != "type"
        }
        return replace(part, **texts)


def _beginning(text: str, size: int) -> str:
    """The longest beginning of a text that has so many bytes as JSON."""
    cut = text[:size]
    while (its_size := _size(cut)) > size:
        cut = cut[: len(cut) * size // its_size]
    return cut


def _size(text: str) -> int:
    """The bytes of a text as JSON, in which most characters beyond ASCII have six."""
    return len(gen_ai_json_dumps(text)) - 2
