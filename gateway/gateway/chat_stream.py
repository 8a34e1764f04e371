"""A chat answer as it is written: OpenAI's chunks turned into this API's events.

    data: {"content": "Hel"}
    event: metadata
    data: {"model": …, "provider": …, "usage": …, "cost_usd": …, "duration_seconds": …, …}

A failure in the middle ends the stream with an event `error`, whose data is a problem.
"""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from openai import AsyncStream
from openai.types.chat import ChatCompletionChunk

from gateway.contracts import ChatMetadata
from gateway.limits import tokens
from gateway.llm import OPENED, readable, text_of
from gateway.service_client import StreamedResponse
from o11y.contracts import SUMMARY_FIELD, CallSummary
from o11y.web import problems
from o11y.web.events import EventStream, Last, LastError, event
from o11y.web.problems import Problem, details


class ChatStream(EventStream):
    """The streamed response to a chat call, made of the chunks that llm-proxy sends."""

    def __init__(self, chunks: AsyncStream[ChatCompletionChunk], started: float) -> None:
        super().__init__(self.events(), self._leave)
        self._chunks = chunks
        self._opened: StreamedResponse = chunks.response.extensions[OPENED]
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
        metadata: ChatMetadata | None = None
        with readable():
            async for chunk in self._chunks:
                if SUMMARY_FIELD in (chunk.model_extra or {}):
                    metadata = self._metadata(chunk)
                    await self._opened.finish()
                elif content := _content(chunk):
                    yield event({"content": content})
        if metadata is None:
            raise Problem(502, "llm-proxy's stream has no summary", code="bad_upstream")
        yield Last(event(metadata.model_dump(), "metadata"))

    def _metadata(self, chunk: ChatCompletionChunk) -> ChatMetadata:
        summary = CallSummary.model_validate((chunk.model_extra or {})[SUMMARY_FIELD])
        tokens.add(summary.usage.total_tokens)
        return ChatMetadata(
            model=summary.model,
            provider=summary.provider,
            usage=summary.usage,
            cost_usd=summary.cost_usd,
            duration_seconds=time.perf_counter() - self._started,
            finish_reason=summary.finish_reason,
        )

    async def _leave(self) -> None:
        await self._opened.aclose()
        await self._chunks.close()


def _content(chunk: ChatCompletionChunk) -> str:
    deltas = (choice.delta for choice in chunk.choices or ())
    return "".join(text_of(delta.content) for delta in deltas if delta)
