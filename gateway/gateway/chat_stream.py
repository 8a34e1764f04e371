"""A chat answer as it is written: OpenAI's chunks turned into this API's events.

    data: {"content": "Hel"}
    event: metadata
    data: {"model": …, "provider": …, "usage": …, "cost_usd": …, "duration_seconds": …, …}

What goes wrong in the middle is told by an event `error`, a problem as its data.
"""

import time
from collections.abc import AsyncGenerator

import msgspec
from pydantic import ValidationError

from o11y import sse
from o11y.contracts import SUMMARY_COMMENT, ChatMetadata, StreamSummary
from o11y.events import EventStream, event
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


class ChatStream(EventStream):
    """The response for an answer that llm-proxy is streaming."""

    def __init__(self, opened: Opened, started: float) -> None:
        super().__init__(self.events(), opened.close)
        self._opened = opened
        self._started = started

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Server-sent events, the last one `metadata` or `error`."""
        try:
            async for each in self._translated():
                yield each
        except Problem as problem:
            yield event(details(problem), "error")

    async def _translated(self) -> AsyncGenerator[bytes, None]:
        splitter = sse.Splitter()
        async for chunk in self._opened.chunks():
            try:
                events = splitter.feed(chunk)
            except sse.TooLong as error:
                raise Problem(
                    502, "llm-proxy's stream is unreadable", code="bad_upstream"
                ) from error
            for each in events:
                if each.startswith(SUMMARY_COMMENT):
                    yield event(self._metadata(each[len(SUMMARY_COMMENT) :]), "metadata")
                    return
                if content := _content(each):
                    yield event({"content": content})
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


def _content(chunk_event: bytes) -> str:
    """The text of a chunk; nothing for any other event. Raises Problem for an error."""
    data = sse.data(chunk_event)
    if data is None or data == b"[DONE]":
        return ""
    try:
        chunk = _chunk.decode(data)
    except msgspec.DecodeError as error:
        raise Problem(502, "llm-proxy's stream is unreadable", code="bad_upstream") from error
    if chunk.error:
        raise Problem(502, chunk.error.message, code="stream_broken")
    return "".join(c.delta.content for c in chunk.choices or () if c.delta and c.delta.content)
