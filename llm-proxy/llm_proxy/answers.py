"""A provider's answer as it is read, whole or streamed: model, usage, why it ended.

The rest is passed over without being built (msgspec skips what isn't declared).
"""

import json
from typing import Any, TypeVar

import msgspec

from o11y.telemetry import schema

MAX_CHOICES = 128
"""Most choices of an answer that are told apart: no provider's API lets a call have more."""

TEXT_BYTES_PER_TOKEN = 4
"""Bytes of English text that make a token, roughly: for estimates where nobody counted."""


MAX_TOKENS = 10**9
"""A larger number is no number of tokens, and would spoil every sum it went into."""


class _PromptDetails(msgspec.Struct):
    cached_tokens: Any = None
    cache_write_tokens: Any = None
    audio_tokens: Any = None


class _CompletionDetails(msgspec.Struct):
    audio_tokens: Any = None
    reasoning_tokens: Any = None


class _Usage(msgspec.Struct):
    prompt_tokens: Any = None
    completion_tokens: Any = None
    total_tokens: Any = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None
    prompt_cache_hit_tokens: Any = None
    """The cached tokens, as DeepSeek tells them."""
    cached_tokens: Any = None
    """The cached tokens, as Moonshot AI tells them."""


class _Groq(msgspec.Struct):
    usage: _Usage | None = None


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
    usage: _Usage | None = None
    """The stream's usage, where Moonshot AI tells it."""


class _Head(msgspec.Struct):
    """An answer, or one event of a stream."""

    id: str | None = None
    model: str | None = None
    service_tier: str | None = None
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
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
    data: Any = None
    usage: _Usage | None = None
    error: Any = None
    message: Any = None
    code: Any = None
    status: Any = None


class _Written(msgspec.Struct):
    message: _Message | None = None
    text: str | None = None


class _Texts(msgspec.Struct):
    choices: list[_Written] | None = None


_texts = msgspec.json.Decoder(_Texts)
_whole = msgspec.json.Decoder(_Whole)
_event = msgspec.json.Decoder(_Head)

Form = TypeVar("Form", bound=msgspec.Struct)


class NotReadable(Exception):
    """The provider's answer is not what its API says."""


class Tokens(msgspec.Struct, frozen=True):
    """The tokens that a call is billed by.

    `cached`, `cache_write` and `input_audio` are part of `input`, `reasoning` and `output_audio` of
    `output`.
    """

    input: int = 0
    output: int = 0
    cached: int = 0
    cache_write: int = 0
    input_audio: int = 0
    output_audio: int = 0
    reasoning: int = 0
    estimated: bool = False
    """Nobody counted: worked out from the text that went and came."""

    def by_type(self) -> tuple[int, ...]:
        """The tokens of each of `meters.TOKEN_TYPES`."""
        sent, received = min(self.input_audio, self.input), min(self.output_audio, self.output)
        return (
            *(self.input - sent, sent, self.output - received, received),
            *(self.cached, self.cache_write, self.reasoning, self.input_audio, self.output_audio),
        )

    def __add__(self, other: "Tokens") -> "Tokens":
        """The tokens of both; an estimate if one of them is."""
        return Tokens(
            self.input + other.input,
            self.output + other.output,
            self.cached + other.cached,
            self.cache_write + other.cache_write,
            self.input_audio + other.input_audio,
            self.output_audio + other.output_audio,
            self.reasoning + other.reasoning,
            self.estimated or other.estimated,
        )


class ResponseInfo(msgspec.Struct):
    """The facts that a provider's answer states of itself."""

    id: str | None = None
    model: str | None = None
    service_tier: str | None = None
    tokens: Tokens | None = None
    finish_reasons: tuple[str, ...] = ()


def read(content: bytes) -> ResponseInfo:
    """Read a whole answer. Raises NotReadable unless it is a JSON object, and ProviderFailed for
    one that tells of an error in an answer's place.

    An object that isn't the answer it should be is the caller's to read; it says nothing here.
    """
    answer = _decoded(_whole, content, "the LLM provider's answer")
    if answer.choices is None and answer.data is None:
        _raise_error(answer, content, "the LLM provider reported an error")
    elif answer.error is not None and not answer.choices:
        raise ProviderFailed("the LLM provider reported an error", answer.error, content)
    reasons = [each.finish_reason for each in answer.choices or ()]
    return ResponseInfo(
        *(answer.id, answer.model, answer.service_tier, _tokens(answer.usage)),
        tuple(each or schema.FINISH_ERROR for each in reasons) if any(reasons) else (),
    )


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


def _decoded(decoder: msgspec.json.Decoder[Form], content: bytes, what: str) -> Form:
    """An object as it is read here, with nothing in it where it has another form.

    Half a character, and numbers that JSON has not, are read as JavaScript and Python do, for they
    break no caller's reader. Raises NotReadable for what is no JSON object.
    """
    try:
        return decoder.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        found = json.loads(content.decode("utf-8", "replace"), parse_constant=lambda _: None)
        if isinstance(found, list) and len(found) == 1:
            found = found[0]
        if not isinstance(found, dict):
            raise NotReadable(f"{what} is no JSON object")
        clean = json.dumps(found, ensure_ascii=False).encode("utf-8", "replace")
        return decoder.decode(clean)
    except msgspec.ValidationError:
        return decoder.decode(b"{}")
    except (ValueError, RecursionError) as error:
        raise NotReadable(f"{what} is no JSON object: {error}") from error


def estimate(content: bytes, input_bytes: int) -> Tokens:
    """The tokens of a whole answer that doesn't tell them."""
    choices = _decoded(_texts, content, "the LLM provider's answer").choices or ()
    text_bytes = sum(_text_bytes(each.message) + len(each.text or "") for each in choices)
    return guess(input_bytes, text_bytes)


def guess(input_bytes: int, output_bytes: int) -> Tokens:
    """The tokens of so much text, sent and received."""
    return Tokens(
        input=-(-input_bytes // TEXT_BYTES_PER_TOKEN),
        output=-(-output_bytes // TEXT_BYTES_PER_TOKEN),
        estimated=True,
    )


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

        Raises NotReadable for one that is no JSON object, and for one that tells of an error. An
        object that isn't the event it should be is the caller's to read; it says nothing here.
        """
        if data == b"[DONE]":
            self.finished = self.done = True
            return False
        event = _decoded(_event, data, "an event of the stream")
        if event.error is not None or event.choices is None:
            _raise_error(event, data, "the LLM provider reported an error in its stream")
        info = self.info
        info.id = info.id or event.id
        info.model = info.model or event.model
        info.service_tier = event.service_tier or info.service_tier
        for choice in event.choices or ():
            self._choice(choice)
        if event.usage is not None:
            info.tokens = _tokens(event.usage) or info.tokens
            return not event.choices
        if event.x_groq is not None:
            info.tokens = _tokens(event.x_groq.usage) or info.tokens
        return False

    def _choice(self, choice: _Choice) -> None:
        self.text_bytes += _text_bytes(choice.delta) + len(choice.text or "")
        if choice.usage is not None:
            self.info.tokens = _tokens(choice.usage) or self.info.tokens
        if choice.finish_reason and len(self.reasons) < MAX_CHOICES:
            index = choice.index if isinstance(choice.index, int) else 0
            self.reasons.setdefault(index, choice.finish_reason)
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
        status = _count(value)
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


def _tokens(usage: _Usage | None) -> Tokens | None:
    """The tokens that a usage tells; None where it does not say how many were sent."""
    sent = None if usage is None else _count(usage.prompt_tokens)
    if usage is None or sent is None:
        return None
    told = usage.prompt_tokens_details or _PromptDetails()
    received = usage.completion_tokens_details or _CompletionDetails()
    output, total = _count(usage.completion_tokens) or 0, _count(usage.total_tokens) or 0
    cached = (told.cached_tokens, usage.prompt_cache_hit_tokens, usage.cached_tokens)
    return Tokens(
        input=sent,
        output=max(output, total - sent),  # some tell reasoning beside it, and in the total alone
        cached=min(sent, next((count for each in cached if (count := _count(each))), 0)),
        cache_write=_count(told.cache_write_tokens) or 0,
        input_audio=_count(told.audio_tokens) or 0,
        output_audio=_count(received.audio_tokens) or 0,
        reasoning=_count(received.reasoning_tokens) or 0,
    )


def _count(value: object) -> int | None:
    """A number of tokens; some providers send it as a float or as text."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 10:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        return None
    return int(value) if 0 <= value <= MAX_TOKENS else None
