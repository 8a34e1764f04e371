"""Streams of the local model in OpenAI's format: chunks as server-sent events, usage last."""

import time
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from typing import Any

from inference_svc.cost import priced
from inference_svc.engine import GenerationRequest
from inference_svc.generation import Generator, Turn
from inference_svc.running import Running
from o11y.web import problems
from o11y.web.events import EventStream, Last, LastError, event
from o11y.web.problems import Problem, openai_error

DONE = Last(b"data: [DONE]\n\n")

Choice = Callable[[int, str | None, str | None], dict[str, Any]]
"""Builder of a chunk's choice, from its number, some text or None, finish reason or None."""


async def stream_chat(
    generator: Generator, requests: Sequence[GenerationRequest], turns: Sequence[Turn], usage: bool
) -> EventStream:
    """The streamed response for a chat. Raises Problem when it fails before the first token."""
    running = await _begun(generator, "chat", requests, turns)
    chunks = _Chunks(running, "chatcmpl", "chat.completion.chunk", _chat_choice, usage)
    roles = [_chat_choice(index, "", None) for index in range(len(requests))]
    for choice in roles:
        choice["delta"] = {"role": "assistant", "content": ""}
    return EventStream(chunks.events(generator.engine.language_model.name, roles), running.close)


async def stream_text(
    generator: Generator, requests: Sequence[GenerationRequest], turns: Sequence[Turn], usage: bool
) -> EventStream:
    """The streamed response for a text completion. Raises Problem as `stream_chat` does."""
    running = await _begun(generator, "text_completion", requests, turns)
    chunks = _Chunks(running, "cmpl", "text_completion", _text_choice, usage)
    return EventStream(chunks.events(generator.engine.language_model.name, []), running.close)


async def _begun(
    generator: Generator,
    operation: str,
    requests: Sequence[GenerationRequest],
    turns: Sequence[Turn],
) -> Running:
    running = Running(partial(generator.run, operation, requests, turns=turns))
    await running.begin()
    return running


def _chat_choice(index: int, text: str | None, finish: str | None) -> dict[str, Any]:
    delta = {} if text is None else {"content": text}
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}


def _text_choice(index: int, text: str | None, finish: str | None) -> dict[str, Any]:
    return {"index": index, "text": text or "", "logprobs": None, "finish_reason": finish}


class _Chunks:
    """Writes the events of one stream."""

    def __init__(
        self, running: Running, prefix: str, kind: str, choice: Choice, usage: bool
    ) -> None:
        self._running = running
        self._prefix = prefix
        self._kind = kind
        self._choice = choice
        self._usage = usage

    async def events(
        self, model: str, opening: Sequence[dict[str, Any]]
    ) -> AsyncGenerator[bytes, None]:
        frame: dict[str, Any] = {
            "id": f"{self._prefix}-{uuid.uuid4().hex}",
            "object": self._kind,
            "created": int(time.time()),
            "model": model,
        }
        if self._usage:
            frame["usage"] = None
        for choice in opening:
            yield event({**frame, "choices": [choice]})
        blank = {choice["index"] for choice in opening}
        try:
            async for index, text in self._running.pieces():
                # as in a whole answer, the text of a chat begins without white space
                piece = text.lstrip() if index in blank else text
                if piece:
                    blank.discard(index)
                    yield event({**frame, "choices": [self._choice(index, piece, None)]})
        except Problem as problem:  # too late for an HTTP status
            problems.report(problem)
            yield LastError(event(openai_error(problem)))
            return
        outcome = self._running.outcome
        for index, each in enumerate(outcome.generations):
            yield event({**frame, "choices": [self._choice(index, None, each.finish_reason)]})
        if self._usage:
            usage = priced(outcome.metadata.usage.model_dump(), outcome.usd)
            yield event({**frame, "choices": [], "usage": usage})
        yield DONE
