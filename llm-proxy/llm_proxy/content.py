"""The content of questions and answers, read for telemetry that may hold it (`capture`).

Reads less strictly than providers do: what has no form known here is left out.
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

from o11y.telemetry.capture import CUT, MAX_BYTES, PART_BYTES

MAX_DATA_URL = 128
"""Characters told of an image that is sent within its message."""

_REASONS = {"tool_calls": "tool_call", "function_call": "tool_call"}
"""OpenAI's words for what semconv gen-ai calls otherwise."""

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _RequestBody(msgspec.Struct):
    messages: list[dict[str, Any]] = []
    prompt: Any = None


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function = msgspec.field(default_factory=_Function)


class _Content(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    message: _Content | None = None
    delta: _Content | None = None
    text: str | None = None
    finish_reason: str | None = None


class _ResponseBody(msgspec.Struct):
    choices: list[_Choice] | None = None


_request = msgspec.json.Decoder(_RequestBody)
_response = msgspec.json.Decoder(_ResponseBody)


def input_messages(body: bytes) -> list[InputMessage]:
    """The messages of a chat, or the prompts of a completion, as the body of the call has them."""
    try:
        found = _request.decode(body)
    except _UNREADABLE:
        return []
    if found.messages:
        return [_message(each) for each in found.messages]
    prompts = found.prompt if isinstance(found.prompt, list) else [found.prompt]
    return [InputMessage("user", [TextPart(each)]) for each in prompts if isinstance(each, str)]


def _message(message: dict[str, Any]) -> InputMessage:
    role = message.get("role")
    parts = _parts(message.get("content"))
    if role == "tool":
        text = "".join(part.content for part in parts if isinstance(part, TextPart))
        parts = [ToolCallResponsePart(text, _text(message.get("tool_call_id")))]
    for call in _list(message.get("tool_calls")):
        match call:
            case {"function": {"name": str(name), "arguments": arguments}}:
                given = _arguments(arguments)
                parts.append(ToolCallRequestPart(given, name, _text(call.get("id"))))
    return InputMessage(role if isinstance(role, str) else "", parts, _text(message.get("name")))


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
    """The arguments of a tool's call, parsed, or as text where they aren't JSON."""
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
    """A call of a tool, as far as it has come."""

    def __init__(self) -> None:
        self.id: str | None = None
        self.name = ""
        self.arguments = ""


class _AnswerChoice:
    """A choice, as far as it has come."""

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


class MessageAccumulator:
    """An answer, put together from its body or from the events of a stream.

    It keeps little more than may be told, whatever comes.
    """

    def __init__(self) -> None:
        self._choices: dict[int, _AnswerChoice] = {}
        self._left = MAX_BYTES + 1  # one more than is told, so that it shows there was more

    def add(self, data: bytes) -> None:
        """Take the whole answer, or the data of one event."""
        try:
            choices = _response.decode(data).choices or ()
        except _UNREADABLE:  # also [DONE]
            return
        for choice in choices:
            collected = self._choices.get(choice.index)
            if collected is None:
                if self._left <= 0:
                    continue
                collected = self._choices[choice.index] = _AnswerChoice()
                self._left -= PART_BYTES
            if choice.finish_reason:
                collected.finish_reason = choice.finish_reason[:PART_BYTES]
            if choice.text:
                collected.text.append(self._beginning(choice.text))
            if words := choice.message or choice.delta:
                self._add(collected, words)

    def messages(self) -> list[OutputMessage]:
        """A message for each choice, in their order."""
        return [self._choices[index].message() for index in sorted(self._choices)]

    def _add(self, collected: _AnswerChoice, words: _Content) -> None:
        if words.reasoning_content:
            collected.reasoning.append(self._beginning(words.reasoning_content))
        for text in (words.content, words.refusal):
            if text:
                collected.text.append(self._beginning(text))
        for at, given in enumerate(words.tool_calls or ()):
            index = at if given.index is None else given.index
            call = collected.calls.get(index)
            if call is None:
                if self._left <= 0:
                    continue
                call = collected.calls[index] = _Call()
                self._left -= PART_BYTES
            if given.id:
                call.id = self._beginning(given.id)
            call.name += self._beginning(given.function.name or "")
            call.arguments += self._beginning(given.function.arguments or "")

    def _beginning(self, text: str) -> str:
        beginning = text[: max(self._left, 0)]
        self._left -= len(beginning)
        return beginning
