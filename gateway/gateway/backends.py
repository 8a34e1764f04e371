"""Calls to the services behind the gateway, as typed methods (see `o11y.contracts`)."""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, TypeVar, cast

import httpx2
from openai import Omit, omit
from openai.types import CreateEmbeddingResponse, Embedding
from openai.types.chat import ChatCompletionMessageParam
from pydantic.dataclasses import dataclass

from gateway import llm
from gateway.chat_stream import ChatStream
from gateway.contracts import ChatAnswer, ChatMetadata, EmbedMetadata, SearchAnswer, SearchMetadata
from gateway.limits import tokens
from gateway.llm import readable, text_of
from gateway.relay import begin, own_ending, relayed
from gateway.service_client import ServiceClient, StreamedResponse
from gateway.settings import Settings
from o11y.contracts import (
    SUMMARY_HEADER,
    WHOLE_SUMMARY_HEADER,
    CallSummary,
    LocalInferenceAnswer,
    LocalInferenceMetadata,
    StoreAnswer,
    Vector,
    VectorSearchAnswer,
)
from o11y.http import sse
from o11y.telemetry.signals import Telemetry
from o11y.web import problems
from o11y.web.events import EventStream, Last, LastError, event
from o11y.web.problems import Problem, details

T = TypeVar("T")


class _Row(Embedding):
    """A vector not parsed yet: the SDK would check each number, for seconds where they are many."""

    embedding: Any


class _Rows(CreateEmbeddingResponse):
    data: list[_Row]  # type: ignore[assignment] # lists are invariant


@dataclass(frozen=True)
class Embedded:
    """One vector for each text, and their metadata. Raises ValidationError for a bad vector."""

    vectors: list[Vector]
    metadata: EmbedMetadata


class Backends:
    """Calls to llm-proxy, vector-svc and inference-svc.

    Searching, storing (documents have ids) and generating locally may be sent twice; calls that a
    provider bills may not. Every call raises Problem.
    """

    def __init__(
        self,
        settings: Settings,
        telemetry: Telemetry,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        def client(name: str, url: object) -> ServiceClient:
            seconds = settings.request_timeout_seconds
            token = settings.internal_token
            return ServiceClient(name, str(url), telemetry, seconds, transport, token)

        self.stream_timeout_seconds = settings.stream_timeout_seconds
        self.llm = client("llm-proxy", settings.llm_proxy_url)
        sdk = llm.sdk(self.llm, settings.stream_timeout_seconds)
        self.completions, self.embeddings = sdk.chat.completions, sdk.embeddings
        self.vector = client("vector-svc", settings.vector_url)
        self.inference = client("inference-svc", settings.inference_url)

    async def chat(
        self,
        messages: Sequence[ChatCompletionMessageParam],
        *,
        model: str | None = None,
        temperature: float,
        max_tokens: int | None,
        seed: int | None = None,
    ) -> ChatAnswer:
        started = time.perf_counter()
        response = await self.completions.with_raw_response.create(
            messages=messages,
            model=_model(model),
            temperature=temperature,
            max_tokens=_given(max_tokens),
            seed=_given(seed),
        )
        with readable():
            choices = response.parse().choices
            summary = _summary(response.headers)
            return ChatAnswer(
                response=text_of(choices[0].message.content),
                metadata=ChatMetadata(
                    **summary.model_dump(exclude={"usage_estimated"}),
                    duration_seconds=time.perf_counter() - started,
                ),
            )

    async def chat_stream(
        self,
        message: str,
        *,
        model: str | None,
        temperature: float,
        max_tokens: int | None,
        seed: int | None = None,
    ) -> ChatStream:
        """Answer one message like `chat`, as a stream."""
        started = time.perf_counter()
        chunks = await self.completions.create(
            messages=[{"role": "user", "content": message}],
            model=_model(model),
            temperature=temperature,
            max_tokens=_given(max_tokens),
            seed=_given(seed),
            stream=True,
            extra_headers={SUMMARY_HEADER: "1"},
        )
        return ChatStream(chunks, started)

    async def embed(self, texts: Sequence[str], *, model: str | None = None) -> Embedded:
        started = time.perf_counter()
        response = await self.embeddings.with_raw_response.create(
            input=list(texts), model=_model(model)
        )
        with readable():
            rows = _in_order(response.parse(to=_Rows).data)
            if len(rows) != len(texts):
                raise Problem(
                    502, f"{len(rows)} vectors came for {len(texts)} texts", code="bad_upstream"
                )
            summary = _summary(response.headers)
            metadata = EmbedMetadata(
                **summary.model_dump(include={"model", "usage", "cost_usd"}),
                duration_seconds=time.perf_counter() - started,
            )
            return Embedded([row.embedding for row in rows], metadata)

    async def store(
        self,
        documents: Sequence[str],
        embedded: Embedded,
        *,
        metadata: Sequence[dict[str, Any]] | None = None,
        ids: Sequence[str] | None = None,
    ) -> StoreAnswer:
        request = {
            "documents": list(documents),
            "embeddings": embedded.vectors,
            "embedding_model": embedded.metadata.model,
            "metadata": metadata,
            "ids": ids,
        }
        return await self.vector.call(
            StoreAnswer,
            "POST",
            "/documents",
            json=request,
            idempotent=True,
        )

    async def search(
        self,
        query: str,
        embedded: Embedded,
        n_results: int,
        filter_metadata: dict[str, Any] | None,
        *,
        caller_filters: bool = False,
    ) -> SearchAnswer:
        """The documents nearest to a query's embedding, whose time the total time includes."""
        started = time.perf_counter()
        request = {
            "embedding": embedded.vectors[0],
            "embedding_model": embedded.metadata.model,
            "n_results": n_results,
            "filter_metadata": filter_metadata,
            "caller_filters": caller_filters,
        }
        found = await self.vector.call(
            VectorSearchAnswer,
            "POST",
            "/search",
            json=request,
            idempotent=True,
        )
        took = time.perf_counter() - started
        return SearchAnswer(
            query=query,
            results=found.results,
            count=len(found.results),
            metadata=SearchMetadata(
                query_embedding_cost_usd=embedded.metadata.cost_usd,
                search_duration_seconds=found.duration_seconds,
                total_duration_seconds=embedded.metadata.duration_seconds + took,
            ),
        )

    async def generate(self, request: dict[str, Any]) -> LocalInferenceAnswer:
        answer = await self.inference.call(
            LocalInferenceAnswer,
            "POST",
            "/local-inference",
            json=request,
            idempotent=True,
        )
        tokens.add(answer.metadata.usage.total_tokens)
        return answer

    async def generate_stream(self, request: dict[str, Any]) -> EventStream:
        """Generate like `generate`, as the stream of inference-svc, whose events are unchanged."""
        opened = await begin(
            self.inference, "/local-inference", json=request, seconds=self.stream_timeout_seconds
        )
        return EventStream(_relayed(opened), opened.aclose)

    async def aclose(self) -> None:
        for client in (self.llm, self.vector, self.inference):
            await client.aclose()


async def _relayed(opened: StreamedResponse) -> AsyncGenerator[bytes, None]:
    try:
        async with aclosing(relayed(opened, own_ending)) as pieces:
            async for events in pieces:
                if isinstance(events[-1], Last) and tokens.is_counted():
                    tokens.add(_local_tokens(events[-1]))
                yield events[0] if len(events) == 1 else b"".join(events)
    except Problem as problem:
        problems.report(problem)
        yield LastError(event(details(problem), "error"))


def _local_tokens(event: bytes) -> int:
    """The tokens that the last event of a local generation tells."""
    content = sse.data(event) or b"{}"
    return LocalInferenceMetadata.model_validate_json(content).usage.total_tokens


def _given(value: T | None) -> T | Omit:
    return omit if value is None else value


def _model(name: str | None) -> str:
    """The model's name, left out when None: llm-proxy has a default, unlike OpenAI's API."""
    return cast(str, _given(name))


def _in_order(rows: Sequence[_Row]) -> Sequence[_Row]:
    """Rows in the order of their texts: by their indices, or as they came where these say none."""
    places = {getattr(row, "index", None): row for row in rows}
    ordered = [places[at] for at in range(len(rows)) if at in places]
    return ordered if len(ordered) == len(rows) else rows


def _summary(headers: httpx2.Headers) -> CallSummary:
    summary = CallSummary.model_validate_json(headers[WHOLE_SUMMARY_HEADER])
    tokens.add(summary.usage.total_tokens)
    return summary
