"""Messages of requests and responses, read for telemetry that may hold them (`capture`).

The reading is less strict than a provider's: parts of an unknown form are left out.
"""

from typing import Any

import msgspec
from opentelemetry.util.genai.types import (
    FilePart,
    InputMessage,
    MessagePart,
    Modality,
    OutputMessage,
    ReasoningPart,
    TextPart,
    ToolCallRequestPart,
    ToolCallResponsePart,
    UriPart,
)
from opentelemetry.util.genai.utils import object_to_any_value

from o11y.telemetry.capture import CUT, MAX_CHARACTERS, PART_CHARACTERS

MAX_DATA_URL = 128
"""Most characters of the `data:` URL of an image that telemetry holds."""

_REASONS = {"tool_calls": "tool_call", "function_call": "tool_call"}
"""OpenAI's finish reasons that semconv gen-ai names otherwise."""

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Asked(msgspec.Struct):
    messages: list[dict[str, Any]] = []
    prompt: Any = None


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function = msgspec.field(default_factory=_Function)


class _Words(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    message: _Words | None = None
    delta: _Words | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Answered(msgspec.Struct):
    choices: list[_Choice] | None = None


_asked = msgspec.json.Decoder(_Asked)
_answered = msgspec.json.Decoder(_Answered)


def asked(body: bytes) -> list[InputMessage]:
    """The messages of a chat, or the prompts of a completion, from the body of the request."""
    try:
        found = _asked.decode(body)
    except _UNREADABLE:
        return []
    if found.messages:
        return [_message(each) for each in found.messages]
    prompts = found.prompt if isinstance(found.prompt, list) else [found.prompt]
    return [InputMessage("user", [TextPart(each)]) for each in prompts if isinstance(each, str)]


def _message(said: dict[str, Any]) -> InputMessage:
    role = said.get("role")
    parts = _parts(said.get("content"))
    if role == "tool":
        text = "".join(part.content for part in parts if isinstance(part, TextPart))
        parts = [ToolCallResponsePart(text, _text(said.get("tool_call_id")))]
    for call in _list(said.get("tool_calls")):
        match call:
            case {"function": {"name": str(name), "arguments": arguments}}:
                given = _arguments(arguments)
                parts.append(ToolCallRequestPart(given, name, _text(call.get("id"))))
    return InputMessage(role if isinstance(role, str) else "", parts, _text(said.get("name")))


def _parts(content: object) -> list[MessagePart]:
    if isinstance(content, str):
        return [TextPart(content)]
    parts: list[MessagePart] = []
    for each in _list(content):
        match each:
            case {"type": "text", "text": str(text)} | {"type": "refusal", "refusal": str(text)}:
                parts.append(TextPart(text))
            case {"type": "image_url", "image_url": {"url": str(url)}}:
                long = url.startswith("data:") and len(url) > MAX_DATA_URL
                shown = url[:MAX_DATA_URL] + CUT if long else url
                parts.append(UriPart(None, Modality.IMAGE.value, shown))
            case {"type": "file", "file": {"file_id": str(file_id)}}:
                parts.append(FilePart(None, Modality.DOCUMENT.value, file_id))
    return parts


def _arguments(given: object) -> object:
    """The arguments of a tool call: the value of their JSON, or the text where they aren't JSON."""
    if not isinstance(given, str):
        return object_to_any_value(given)
    try:
        return object_to_any_value(msgspec.json.decode(given))
    except _UNREADABLE:
        return given


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


class _Call:
    """A tool call of a response, as far as it has come."""

    def __init__(self) -> None:
        self.id: str | None = None
        self.name = ""
        self.arguments = ""


class _Said:
    """A choice of a response, as far as it has come."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.calls: dict[int, _Call] = {}
        self.finish_reason: str | None = None

    def message(self) -> OutputMessage:
        parts: list[MessagePart] = []
        if self.reasoning:
            parts.append(ReasoningPart("".join(self.reasoning)))
        if self.text:
            parts.append(TextPart("".join(self.text)))
        for call in self.calls.values():
            given = _arguments(call.arguments)
            parts.append(ToolCallRequestPart(given, call.name, call.id))
        reason = self.finish_reason
        return OutputMessage("assistant", parts, _REASONS.get(reason or "", reason))


class Answer:
    """A response's messages, put together from its body or from the events of a stream.

    It keeps little more than telemetry may hold, however long the response is.
    """

    def __init__(self) -> None:
        self._choices: dict[int, _Said] = {}
        self._left = MAX_CHARACTERS + 1  # one more than telemetry holds, so that the cut shows

    def add(self, data: bytes) -> None:
        """Add the whole body of a response, or the data of one event."""
        try:
            choices = _answered.decode(data).choices or ()
        except _UNREADABLE:  # also [DONE]
            return
        for choice in choices:
            said = self._choices.get(choice.index)
            if said is None:
                if self._left <= 0:
                    continue
                said = self._choices[choice.index] = _Said()
                self._left -= PART_CHARACTERS
            if choice.finish_reason:
                said.finish_reason = choice.finish_reason[:PART_CHARACTERS]
            if choice.text:
                said.text.append(self._kept(choice.text))
            if words := choice.message or choice.delta:
                self._add(said, words)

    def messages(self) -> list[OutputMessage]:
        """A message for each choice, in their order."""
        return [self._choices[index].message() for index in sorted(self._choices)]

    def _add(self, said: _Said, words: _Words) -> None:
        if words.reasoning_content:
            said.reasoning.append(self._kept(words.reasoning_content))
        for text in (words.content, words.refusal):
            if text:
                said.text.append(self._kept(text))
        for at, given in enumerate(words.tool_calls or ()):
            index = at if given.index is None else given.index
            call = said.calls.get(index)
            if call is None:
                if self._left <= 0:
                    continue
                call = said.calls[index] = _Call()
                self._left -= PART_CHARACTERS
            if given.id:
                call.id = self._kept(given.id)
            call.name += self._kept(given.function.name or "")
            call.arguments += self._kept(given.function.arguments or "")

    def _kept(self, text: str) -> str:
        kept = text[: max(self._left, 0)]
        self._left -= len(kept)
        return kept
