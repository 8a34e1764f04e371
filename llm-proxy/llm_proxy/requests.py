"""A caller's request as it is read, and the little that is changed in it.

The body goes to the provider byte for byte as it came, but for the values of the keys set here.
"""

import re
from functools import cache
from typing import Any

import msgspec

from llm_proxy.answers import MAX_CHOICES
from o11y.contracts import MAX_NAME
from o11y.openai.operations import Operation
from o11y.telemetry import schema
from o11y.web.problems import Problem

_INT64 = 1 << 63
"""Telemetry has no room for larger numbers."""

_OTHER_PARTS = re.compile(rb'"type"\s*:\s*"(?:image_url|image|file|video_url|video)"')
"""The parts of messages whose tokens are neither text nor, as providers count them, audio."""

_DATA = re.compile(rb'"(?:data:[^"\\]{0,128};base64,[^"]*|[A-Za-z0-9+/=_-]{1024,})"')
"""Data as JSON has it, in base64: how long it is says nothing of its tokens."""

_EMPTY = (b"", b"[]", b'""', b"{}", b"null")


class _StreamOptions(msgspec.Struct):
    include_usage: Any = None


class _Parameters(msgspec.Struct):
    """A request's parameters as telemetry reads them: a wrong value is the provider's to judge."""

    model: Any = None
    stream: Any = None
    stream_options: Any = None
    temperature: Any = None
    top_p: Any = None
    max_tokens: Any = None
    max_completion_tokens: Any = None
    n: Any = None
    best_of: Any = None
    seed: Any = None
    service_tier: Any = None


@cache
def _decoder(prompt: str) -> msgspec.json.Decoder[Any]:
    """The decoder of bodies whose prompt is in this field."""
    fields = [(prompt, msgspec.Raw, msgspec.Raw())]
    return msgspec.json.Decoder(msgspec.defstruct("Body", fields, bases=(_Parameters,)))


_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_list = msgspec.json.Decoder(list[msgspec.Raw])


class Request(msgspec.Struct, frozen=True):
    """A call to a model as its caller sent it."""

    operation: Operation
    body: bytes
    model: str | None
    stream: bool
    include_usage: bool
    """True if the caller wants to see the usage of a stream."""
    input_bytes: int
    """Length of the prompt as JSON, without images, audio and files that are sent within it: for an
    estimate where nobody counted its tokens.
    """
    text_bytes: int
    """Length of the whole body, without these."""
    is_text: bool
    """True if the prompt has text and audio at most, and no images or files."""
    temperature: float | None
    top_p: float | None
    max_tokens: int | None
    choices: int | None
    answers: int
    """The choices that an answer has: so many for each prompt."""
    candidates: int
    """The choices that are written to be chosen from, for all prompts."""
    seed: int | None
    service_tier: str | None
    has_audio: bool
    """True if the prompt may have audio, or the answer."""

    @property
    def attributes(self) -> dict[str, str | int | float]:
        """The parameters of the call, as attributes of a span."""
        parameters = {
            schema.REQUEST_TEMPERATURE: self.temperature,
            schema.REQUEST_TOP_P: self.top_p,
            schema.REQUEST_MAX_TOKENS: self.max_tokens,
            schema.REQUEST_CHOICES: self.choices,
            schema.REQUEST_SEED: self.seed,
            schema.REQUEST_STREAM: self.stream or None,
        }
        return {key: value for key, value in parameters.items() if value is not None}

    def for_provider(self, model: str, stream_usage: bool) -> bytes:
        """The body with the provider's name for the model; a stream is to tell its usage."""
        ask = self.stream and stream_usage and not self.include_usage
        if model == self.model and not ask:
            return self.body
        try:
            values = _object.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:  # a key that nobody read before
            raise _invalid("body", f"not a JSON object: {error}") from error
        values["model"] = msgspec.Raw(msgspec.json.encode(model))
        if ask:
            given = bytes(values.get("stream_options", b"null"))
            options = {} if given == b"null" else _object.decode(given)
            options["include_usage"] = msgspec.Raw(b"true")
            values["stream_options"] = msgspec.Raw(msgspec.json.encode(options))
        return msgspec.json.encode(values)


def read(operation: Operation, body: bytes) -> Request:
    """Raises Problem 422 that names the field at fault."""
    try:
        fields = _decoder(operation.prompt).decode(body)
    except msgspec.ValidationError as error:
        raise _invalid("body", f"not a JSON object: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _invalid("body", f"not JSON in UTF-8 with whole characters: {error}") from error
    content: msgspec.Raw = getattr(fields, operation.prompt)
    if bytes(content) in _EMPTY:
        raise _invalid(operation.prompt, "required")
    if fields.model is not None and (not isinstance(fields.model, str) or not fields.model):
        raise _invalid("model", "must be a string")
    if fields.model is not None and len(fields.model) > MAX_NAME:
        raise _invalid("model", f"longer than {MAX_NAME} characters")
    if fields.stream is not None and not isinstance(fields.stream, bool):
        raise _invalid("stream", "must be true or false")
    options = fields.stream_options
    if options is not None and not isinstance(options, dict):
        raise _invalid("stream_options", "must be an object")
    data_bytes = sum(len(each[0]) for each in _DATA.finditer(content))
    choices, prompts = _whole(fields.n), _prompts(operation, content)
    return Request(
        operation=operation,
        body=body,
        model=fields.model,
        stream=bool(fields.stream) and operation.generates,
        include_usage=bool(options and options.get("include_usage")),
        input_bytes=len(content) - data_bytes,
        text_bytes=len(body) - data_bytes,
        is_text=_OTHER_PARTS.search(content) is None,
        temperature=_number(fields.temperature),
        top_p=_number(fields.top_p),
        max_tokens=_whole(fields.max_completion_tokens) or _whole(fields.max_tokens),
        choices=choices,
        answers=min(MAX_CHOICES, max(1, choices or 1) * prompts),
        candidates=max(1, choices or 1, _whole(fields.best_of) or 1) * prompts,
        seed=_whole(fields.seed),
        service_tier=fields.service_tier if isinstance(fields.service_tier, str) else None,
        has_audio=b"audio" in body,
    )


def _prompts(operation: Operation, content: msgspec.Raw) -> int:
    """The number of prompts: a completion may have a list of texts, or of lists of tokens."""
    if operation.prompt != "prompt" or not bytes(content).startswith(b"["):
        return 1
    prompts = _list.decode(content)
    return len(prompts) if prompts and bytes(prompts[0])[:1] in (b'"', b"[") else 1


def _invalid(field: str, reason: str) -> Problem:
    return Problem(422, f"{field}: {reason}", code="invalid_input", field=field)


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _whole(value: object) -> int | None:
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if -_INT64 <= value < _INT64 else None
