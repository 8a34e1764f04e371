"""A provider's answer as it is read, whole or streamed: model, usage, why it ended.

The rest is passed over without being built (msgspec skips what isn't declared).
"""

from decimal import Decimal
from typing import Any

import msgspec

from llm_proxy.reading import NotReadable, Reader
from llm_proxy.tokens import Tokens, Usage, count_of, guess, tokens_of, usd_of
from o11y.contracts import MAX_NAME
from o11y.telemetry import schema

MAX_CHOICES = 128
"""Most choices of an answer that are told apart: no provider's API lets a call have more."""

_WORD = 64
"""Most characters that are kept of a word such as the reason for an end."""


class _Groq(msgspec.Struct):
    usage: Usage | None = None


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    tool_calls: msgspec.Raw = msgspec.Raw()


class _Choice(msgspec.Struct):
    index: Any = 0
    finish_reason: str | None = None
    delta: _Message | None = None
    text: str | None = None
    usage: Usage | None = None
    """The stream's usage, where Moonshot AI tells it."""


class _Head(msgspec.Struct):
    """An answer, or one event of a stream."""

    id: str | None = None
    model: str | None = None
    service_tier: str | None = None
    choices: list[_Choice] | None = None
    usage: Usage | None = None
    x_groq: _Groq | None = None
    """The place of a stream's usage at Groq."""
    error: Any = None
    message: Any = None
    code: Any = None
    status: Any = None


class _Chosen(msgspec.Struct):
    finish_reason: str | None = None


class _Whole(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    service_tier: str | None = None
    choices: list[_Chosen] | None = None
    data: msgspec.Raw = msgspec.Raw()
    usage: Usage | None = None
    error: Any = None
    message: Any = None
    code: Any = None
    status: Any = None


class _Written(msgspec.Struct):
    message: _Message | None = None
    text: str | None = None


class _Texts(msgspec.Struct):
    choices: list[_Written] | None = None


_texts = Reader(_Texts, "the LLM provider's answer")
_whole = Reader(_Whole, "the LLM provider's answer")
_event = Reader(_Head, "an event of the stream")


class ResponseInfo(msgspec.Struct):
    """The facts that a provider's answer states of itself."""

    id: str | None = None
    model: str | None = None
    service_tier: str | None = None
    tokens: Tokens | None = None
    usd: Decimal | None = None
    """The cost as it was told: only the local inference service is believed."""
    finish_reasons: tuple[str, ...] = ()


def read(content: bytes) -> ResponseInfo:
    """Read a whole answer. Raises NotReadable unless it is a JSON object, and ProviderFailed for
    one that tells of an error in an answer's place.

    A field that isn't what it should be is the caller's to read; it says nothing here.
    """
    answer = _whole(content)
    if answer.choices is None and bytes(answer.data) in (b"", b"null"):
        _raise_error(answer, content, "the LLM provider reported an error")
    elif answer.error is not None and not answer.choices:
        raise ProviderFailed("the LLM provider reported an error", answer.error, content)
    reasons = [each.finish_reason for each in answer.choices or ()]
    return ResponseInfo(
        id=_cut(answer.id),
        model=_cut(answer.model),
        service_tier=_cut(answer.service_tier),
        tokens=tokens_of(answer.usage),
        usd=usd_of(answer.usage),
        finish_reasons=tuple((each or schema.FINISH_ERROR)[:_WORD] for each in reasons)
        if any(reasons)
        else (),
    )


def _cut(name: str | None) -> str | None:
    return name and name[:MAX_NAME]


def _raise_error(answer: "_Whole | _Head", content: bytes, words: str) -> None:
    """Raise ProviderFailed for an object that tells of an error, in a field or by itself."""
    error = answer.error
    own = {"code": answer.code, "status": answer.status}
    if isinstance(error, dict):
        error = {key: value for key, value in own.items() if value is not None} | error
    elif error is not None or (answer.message is not None and _status(own)):
        error = {**own, "message": error or answer.message}
    if error is not None:
        raise ProviderFailed(words, error, content)


def estimate(content: bytes, input_bytes: int) -> Tokens:
    """The tokens of a whole answer that doesn't tell them."""
    choices = _texts(content).choices or ()
    text_bytes = sum(_text_bytes(each.message) + len(each.text or "") for each in choices)
    return guess(input_bytes, text_bytes)


class StreamAccumulator:
    """Adds up the events of a stream of so many choices."""

    def __init__(self, choices: int = 1) -> None:
        self._choices = choices
        self.reasons: dict[int, str] = {}
        """Why choices have ended, by their index."""
        self.info = ResponseInfo()
        self.text_bytes = 0
        self.finished = False
        """Every choice has ended, or the provider said so."""
        self.done = False
        """The provider said that nothing more comes, though some tell the usage after it."""

    def add(self, data: bytes) -> bool:
        """Take the data of one event; say whether it only tells the usage.

        Raises NotReadable for one that is no JSON object, and for one that tells of an error. A
        field that isn't what it should be is the caller's to read; it says nothing here.
        """
        if data == b"[DONE]":
            self.finished = self.done = True
            return False
        event = _event(data)
        if event.error is not None or event.choices is None:
            _raise_error(event, data, "the LLM provider reported an error in its stream")
        info = self.info
        if info.id is None:
            info.id = _cut(event.id)
        if info.model is None:
            info.model = _cut(event.model)
        if event.service_tier is not None:
            info.service_tier = _cut(event.service_tier)
        for choice in event.choices or ():
            self._choice(choice)
        if event.usage is not None:
            info.tokens = tokens_of(event.usage) or info.tokens
            info.usd = usd_of(event.usage) or info.usd
            return not event.choices
        if event.x_groq is not None:
            info.tokens = tokens_of(event.x_groq.usage) or info.tokens
        return False

    def _choice(self, choice: _Choice) -> None:
        self.text_bytes += _text_bytes(choice.delta) + len(choice.text or "")
        if choice.usage is not None:
            self.info.tokens = tokens_of(choice.usage) or self.info.tokens
        if choice.finish_reason and len(self.reasons) < MAX_CHOICES:
            index = choice.index if isinstance(choice.index, int) else 0
            self.reasons.setdefault(index, choice.finish_reason[:_WORD])
            self.finished = self.finished or len(self.reasons) >= self._choices

    def end(self, *, broken: bool) -> None:
        """Tell `info` why each choice ended, and that those of a `broken` stream didn't."""
        expected = range(self._choices if broken else 0)
        ended = {**dict.fromkeys(expected, schema.FINISH_ERROR), **self.reasons}
        self.info.finish_reasons = tuple(ended[index] for index in sorted(ended))


class ProviderFailed(NotReadable):
    """The provider itself says, within what began as a good answer, that it failed.

    Some give the HTTP status it would else have had as `code`
    (https://openrouter.ai/docs/api/reference/errors-and-debugging).
    """

    def __init__(self, words: str, error: Any, content: bytes) -> None:
        super().__init__(words)
        self.status = _status(error) if isinstance(error, dict) else None
        self.content = content
        """The object that tells of it."""


def _status(error: dict[str, Any]) -> int | None:
    """The HTTP status that an error tells as its code or its status, a number or text."""
    for value in (error.get("code"), error.get("status")):
        status = count_of(value)
        if status is not None and 400 <= status <= 599:
            return status
    return None


def _text_bytes(message: _Message | None) -> int:
    if message is None:
        return 0
    size = len(message.tool_calls)
    if message.content:
        size += len(message.content)
    if message.refusal:
        size += len(message.refusal)
    if message.reasoning_content:
        size += len(message.reasoning_content)
    return size
