"""A chat answer as it is written: OpenAI's chunks turned into this API's events.

    data: {"content": "Hel"}
    event: metadata
    data: {"model": …, "provider": …, "usage": …, "cost_usd": …, "duration_seconds": …, …}

What goes wrong in the middle is told by an event `error`, a problem as its data.
"""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
from fastapi import Response
from pydantic import ValidationError
from starlette.types import Receive, Scope, Send

from o11y import sse
from o11y.contracts import SUMMARY_COMMENT, ChatMetadata, StreamSummary
from o11y.hop import Opened
from o11y.problems import Problem, details


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None


class _Error(msgspec.Struct):
    message: str = "the LLM provider failed"


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    error: _Error | None = None


_chunk = msgspec.json.Decoder(_Chunk)


class ChatStream(Response):
    """The response for an answer that llm-proxy is streaming."""

    def __init__(self, opened: Opened, started: float) -> None:
        super().__init__(media_type="text/event-stream", headers={"cache-control": "no-cache"})
        del self.headers["content-length"]
        self._opened = opened
        self._started = started

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async with aclosing(self.events()) as events:
                async for event in events:
                    await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            self._opened.close()

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Server-sent events, the last one `metadata` or `error`."""
        try:
            async for event in self._translated():
                yield event
        except Problem as problem:
            yield _event(details(problem), "error")

    async def _translated(self) -> AsyncGenerator[bytes, None]:
        splitter = sse.Splitter()
        async for chunk in self._opened.chunks():
            try:
                events = splitter.feed(chunk)
            except sse.TooLong as error:
                raise Problem(
                    502, "llm-proxy's stream is unreadable", code="bad_upstream"
                ) from error
            for event in events:
                if event.startswith(SUMMARY_COMMENT):
                    yield _event(self._metadata(event[len(SUMMARY_COMMENT) :]), "metadata")
                    return
                if content := _content(event):
                    yield _event({"content": content})
        raise Problem(502, "llm-proxy's stream has no summary", code="bad_upstream")

    def _metadata(self, summary: bytes) -> dict[str, object]:
        try:
            told = StreamSummary.model_validate_json(summary)
        except ValidationError as error:
            raise Problem(502, "llm-proxy's summary is unreadable", code="bad_upstream") from error
        metadata = ChatMetadata(
            model=told.model or "",
            provider=told.provider,
            usage=told.usage,
            cost_usd=told.cost_usd,
            duration_seconds=time.perf_counter() - self._started,
            finish_reason=told.finish_reason,
        )
        return metadata.model_dump()


def _content(event: bytes) -> str:
    """The text of a chunk; nothing for any other event. Raises Problem for an error."""
    data = sse.data(event)
    if data is None or data == b"[DONE]":
        return ""
    try:
        chunk = _chunk.decode(data)
    except msgspec.DecodeError as error:
        raise Problem(502, "llm-proxy's stream is unreadable", code="bad_upstream") from error
    if chunk.error:
        raise Problem(502, chunk.error.message, code="stream_broken")
    return "".join(c.delta.content for c in chunk.choices or () if c.delta and c.delta.content)


def _event(data: dict[str, object], name: str | None = None) -> bytes:
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + msgspec.json.encode(data) + b"\n\n"
