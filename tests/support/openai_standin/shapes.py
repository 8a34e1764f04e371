"""Answers as the API writes them: bodies and the events of a stream."""

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.support.openai_standin.answers import Answer
from tests.support.openai_standin.ledger import DATED, PRICES
from tests.support.openai_standin.step import Step

FINGERPRINT = "fp_0ba0d124f1"
HTML = b"<html><head><title>502 Bad Gateway</title></head><body>Bad Gateway</body></html>"
NOT_AN_OBJECT = b'["not", "an", "object"]'
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Event:
    """An event of a stream, and what is true once it is sent."""

    data: bytes
    chunks: int
    """Content chunks so far, with this one."""
    opening: bool = False
    """It comes before any content, and no middle is before it."""
    reports: bool = False
    """It has the whole usage."""


def dump(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def models() -> dict[str, Any]:
    names = [*PRICES, *DATED.values(), "text-embedding-3-large"]
    return {"object": "list", "data": [model(name) for name in names]}


def model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 1721172741, "owned_by": "system"}


def body(answer: Answer, step: Step) -> dict[str, Any]:
    """The whole answer to a request that isn't streamed."""
    if answer.operation == "embeddings":
        whole: dict[str, Any] = {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": vector}
                for index, vector in enumerate(answer.vectors)
            ],
            "model": answer.model,
        }
    else:
        choices = [_choice(answer, index) for index in range(answer.choices)]
        object_name = "chat.completion" if answer.operation == "chat" else "text_completion"
        whole = _head(answer, object_name) | {"choices": choices}
    if step.usage != "absent":
        whole["usage"] = None if step.usage == "null" else answer.reported()
    return whole


def events(answer: Answer, step: Step, *, include_usage: bool) -> Iterator[Event]:
    """The stream. The quirks of `usage` show whether or not usage was asked for."""
    chat = answer.operation == "chat"
    object_name = "chat.completion.chunk" if chat else "text_completion"
    head = _head(answer, object_name)
    announced = include_usage and step.usage not in ("absent", "in_last_chunk")

    def event(choices: list[Any], chunks: int, *, last: bool = False) -> Event:
        chunk = head | {"choices": choices}
        reports = False
        if step.usage == "every_chunk" or (step.usage == "in_last_chunk" and last):
            so_far = answer.usage.until(chunks, answer.chunks)
            chunk["usage"] = so_far.reported(answer.operation)
            reports = last
        elif announced:
            chunk["usage"] = None
        return Event(_event(chunk), chunks, opening=chunks == 0 and not last, reports=reports)

    sent = 0
    if chat:
        for index in range(answer.choices):
            yield event([_delta(index, _opening(answer))], 0)
    for piece in answer.pieces:
        for index in range(answer.choices):
            sent += 1
            choice = _delta(index, _content(answer, piece)) if chat else _part(index, piece)
            yield event([choice], sent)
    for index in range(answer.choices):
        choice = _delta(index, {}, answer.finish) if chat else _part(index, "", answer.finish)
        yield event([choice], sent, last=index == answer.choices - 1)
    if announced:
        usage = None if step.usage == "null" else answer.reported()
        data = _event(head | {"choices": [], "usage": usage})
        yield Event(data, sent, reports=usage is not None and answer.reports_tokens())
    if not step.no_done:
        yield Event(DONE, sent)


def malformed_body(whole: bytes, step: Step) -> bytes:
    """In place of a body."""
    if step.malformed == "not_an_object":
        return NOT_AN_OBJECT
    if step.malformed == "sse":
        return b"data: " + whole + b"\n\n"
    if (step.content_type or "").startswith("text/html"):
        return HTML
    return whole[: max(1, len(whole) // 2)]


def malformed_event(step: Step) -> bytes:
    """Between two events of a stream."""
    if step.malformed == "not_an_object":
        return b"data: " + NOT_AN_OBJECT + b"\n\n"
    if step.malformed == "sse":
        return b'{"choices": [this line has no field name\n: \xff\xfe\ndata\n\n'
    return b'data: {"choices": [{"index": 0, "del\n\n'


def _event(chunk: dict[str, Any]) -> bytes:
    return b"data: " + dump(chunk) + b"\n\n"


def _head(answer: Answer, object_name: str) -> dict[str, Any]:
    return {
        "id": answer.id,
        "object": object_name,
        "created": answer.created,
        "model": answer.model,
        "service_tier": "default",
        "system_fingerprint": FINGERPRINT,
    }


def _choice(answer: Answer, index: int) -> dict[str, Any]:
    if answer.operation == "text_completion":
        return _part(index, answer.text, answer.finish)
    message: dict[str, Any] = {
        "role": "assistant",
        "content": answer.text,
        "refusal": None,
        "annotations": [],
    }
    if answer.function is not None:
        message |= {"content": None, "tool_calls": [_call(answer, answer.text)]}
    return {
        "index": index,
        "message": message,
        "logprobs": None,
        "finish_reason": answer.finish,
    }


def _part(index: int, text: str, finish: str | None = None) -> dict[str, Any]:
    return {"text": text, "index": index, "logprobs": None, "finish_reason": finish}


def _delta(index: int, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}


def _opening(answer: Answer) -> dict[str, Any]:
    opening: dict[str, Any] = {"role": "assistant", "content": "", "refusal": None}
    if answer.function is not None:
        opening |= {"content": None, "tool_calls": [{"index": 0, **_call(answer, "")}]}
    return opening


def _content(answer: Answer, piece: str) -> dict[str, Any]:
    if answer.function is None:
        return {"content": piece}
    return {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}


def _call(answer: Answer, arguments: str) -> dict[str, Any]:
    return {
        "id": f"call_{zlib.crc32(answer.id.encode()):024d}",
        "type": "function",
        "function": {"name": answer.function, "arguments": arguments},
    }
