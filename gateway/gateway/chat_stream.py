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
from pydantic import ValidationError

from gateway.relay import openai_ending, relayed
from o11y import problems, sse
from o11y.contracts import SUMMARY_COMMENT, ChatMetadata, StreamSummary
from o11y.events import EventStream, Last, LastError, event
from o11y.hop import StreamedResponse
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

    def __init__(self, opened: StreamedResponse, started: float) -> None:
        super().__init__(self.events(), opened.aclose)
        self._opened = opened
        self._started = started

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Server-sent events, the last one `metadata` or `error`."""
        try:
            async with aclosing(self._translated()) as translated:
                async for each in translated:
                    yield each
        except Problem as problem:
            problems.report(problem)
            await self._opened.finish()
            yield LastError(event(details(problem), "error"))

    async def _translated(self) -> AsyncGenerator[bytes, None]:
        async with aclosing(relayed(self._opened, _ending)) as pieces:
            async for events in pieces:
                for each in events:
                    if isinstance(each, Last) and not each.broken:
                        summary = each[len(SUMMARY_COMMENT) :]
                        yield Last(event(self._metadata(summary), "metadata"))
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


def _ending(chunk_event: bytes) -> type[Last] | None:
    """As the summary, which comes after `[DONE]`, or as an error."""
    if chunk_event.startswith(SUMMARY_COMMENT):
        return Last
    return LastError if openai_ending(chunk_event) is LastError else None


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
