"""A provider's answer as it is read, whole or streamed: model, usage, why it ended.

The rest is passed over without being built (msgspec skips what isn't declared).
"""

from typing import Annotated, Any

import msgspec

from o11y.telemetry import schema

MAX_CHOICES = 128
"""Most choices of an answer that are told apart: no provider's API lets a call have more."""

TEXT_BYTES_PER_TOKEN = 4
"""Bytes of English text that make a token, roughly: for estimates where nobody counted."""


_Count = Annotated[int, msgspec.Meta(ge=0, le=10**9)]
"""Anything else is no number of tokens, and would spoil every sum it went into."""


class _PromptDetails(msgspec.Struct):
    cached_tokens: _Count | None = None
    cache_write_tokens: _Count | None = None
    audio_tokens: _Count | None = None


class _CompletionDetails(msgspec.Struct):
    audio_tokens: _Count | None = None
    reasoning_tokens: _Count | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: _Count | None = None
    completion_tokens: _Count | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


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


class _Head(msgspec.Struct):
    """An answer, or one event of a stream."""

    id: str | None = None
    model: str | None = None
    service_tier: str | None = None
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


class _Chosen(msgspec.Struct):
    finish_reason: str | None = None


class _Whole(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    service_tier: str | None = None
    choices: list[_Chosen] | None = None
    usage: _Usage | None = None
    error: Any = None


class _Written(msgspec.Struct):
    message: _Message | None = None
    text: str | None = None


class _Texts(msgspec.Struct):
    choices: list[_Written] | None = None


_texts = msgspec.json.Decoder(_Texts)
_whole = msgspec.json.Decoder(_Whole)
_event = msgspec.json.Decoder(_Head)
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


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
    try:
        answer = _whole.decode(content)
    except msgspec.ValidationError:
        _require_object(content, "the LLM provider's answer is no JSON object")
        return ResponseInfo()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotReadable(f"the LLM provider's answer is no JSON object: {error}") from error
    if answer.error is not None and not answer.choices:
        raise ProviderFailed("the LLM provider reported an error", answer.error, content)
    reasons = [each.finish_reason for each in answer.choices or ()]
    return ResponseInfo(
        *(answer.id, answer.model, answer.service_tier, _tokens(answer.usage)),
        tuple(each or schema.FINISH_ERROR for each in reasons) if any(reasons) else (),
    )


def _require_object(content: bytes, complaint: str) -> None:
    try:
        _object.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotReadable(f"{complaint}: {error}") from error


def estimate(content: bytes, input_bytes: int) -> Tokens:
    """The tokens of a whole answer that doesn't tell them."""
    try:
        choices = _texts.decode(content).choices or ()
    except (msgspec.DecodeError, UnicodeDecodeError):
        choices = ()
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
        try:
            event = _event.decode(data)
        except msgspec.ValidationError:
            _require_object(data, "an event of the stream is no JSON object")
            return False
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise NotReadable(f"an event of the stream is no JSON object: {error}") from error
        if event.error is not None:
            words = "the LLM provider reported an error in its stream"
            raise ProviderFailed(words, event.error, data)
        info = self.info
        info.id = info.id or event.id
        info.model = info.model or event.model
        info.service_tier = event.service_tier or info.service_tier
        for choice in event.choices or ():
            self._choice(choice)
        if event.usage is not None:
            info.tokens = _tokens(event.usage) or info.tokens
            return not event.choices
        return False

    def _choice(self, choice: _Choice) -> None:
        self.text_bytes += _text_bytes(choice.delta) + len(choice.text or "")
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
        code = error.get("code") if isinstance(error, dict) else None
        self.status = code if isinstance(code, int) and 400 <= code <= 599 else None
        self.content = content
        """The object that tells of it."""


def _text_bytes(message: _Message | None) -> int:
    if message is None:
        return 0
    texts = (message.content, message.refusal, message.reasoning_content)
    return sum(len(text) for text in texts if text) + len(bytes(message.tool_calls))


def _tokens(usage: _Usage | None) -> Tokens | None:
    if usage is None or usage.prompt_tokens is None:
        return None
    sent = usage.prompt_tokens_details
    received = usage.completion_tokens_details
    return Tokens(
        input=usage.prompt_tokens,
        output=usage.completion_tokens or 0,
        cached=(sent.cached_tokens or 0) if sent else 0,
        cache_write=(sent.cache_write_tokens or 0) if sent else 0,
        input_audio=(sent.audio_tokens or 0) if sent else 0,
        output_audio=(received.audio_tokens or 0) if received else 0,
        reasoning=(received.reasoning_tokens or 0) if received else 0,
    )
