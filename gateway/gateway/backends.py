"""The services behind the gateway, as contract calls."""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import httpx2
from pydantic import BaseModel, Field, FiniteFloat

from gateway.chat_stream import ChatStream
from gateway.relay import own_ending, relayed
from gateway.settings import Settings
from o11y import problems, schema
from o11y.answer import parsed, raise_for_problem
from o11y.contracts import (
    COST_HEADER,
    PROVIDER_HEADER,
    SUMMARY_HEADER,
    ChatAnswer,
    ChatMetadata,
    EmbedMetadata,
    LocalInferenceAnswer,
    SearchAnswer,
    SearchMetadata,
    StoreAnswer,
    Usage,
    VectorSearchAnswer,
)
from o11y.events import EventStream, LastError, event
from o11y.hop import ServiceClient, StreamedResponse
from o11y.problems import Problem, details
from o11y.telemetry import Telemetry

Message = dict[str, str]


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Completion(BaseModel):
    """What is read of an OpenAI chat completion."""

    model: str
    choices: list[_Choice] = Field(min_length=1)
    usage: Usage


class _Row(BaseModel):
    index: int
    embedding: list[FiniteFloat] = Field(min_length=1)


class _Embeddings(BaseModel):
    """What is read of OpenAI's list of embeddings."""

    model: str
    data: list[_Row]
    usage: Usage


@dataclass(frozen=True)
class Embedded:
    """One vector a text, and what it took."""

    vectors: list[list[float]]
    metadata: EmbedMetadata


class Backends:
    """Calls to llm-proxy, vector-svc and inference-svc.

    Searching, storing (documents have ids) and generating locally may be done twice; a provider's
    bill may not. `stage` names the pipeline stage a call is made for; it is written on its span.
    Every call raises Problem.
    """

    def __init__(self, settings: Settings, telemetry: Telemetry) -> None:
        def client(name: str, url: object) -> ServiceClient:
            return ServiceClient(name, str(url), telemetry, settings.request_timeout_seconds)

        self.stream_timeout_seconds = settings.stream_timeout_seconds
        self.llm = client("llm-proxy", settings.llm_proxy_url)
        self.vector = client("vector-svc", settings.vector_url)
        self.inference = client("inference-svc", settings.inference_url)

    async def chat(
        self,
        messages: Sequence[Message],
        *,
        model: str | None = None,
        temperature: float,
        max_tokens: int | None,
        seed: int | None = None,
        stage: str | None = None,
    ) -> ChatAnswer:
        started = time.perf_counter()
        request = {
            "model": model,
            "messages": list(messages),
            "temperature": temperature,
            "max_tokens": max_tokens,
            "seed": seed,
        }
        response = await self._ask_llm("/v1/chat/completions", request, stage)
        answer = parsed(_Completion, response, "llm-proxy")
        choice = answer.choices[0]
        return ChatAnswer(
            response=choice.message.content or "",
            metadata=ChatMetadata(
                model=answer.model,
                provider=response.headers[PROVIDER_HEADER],
                usage=answer.usage,
                cost_usd=_cost(response),
                duration_seconds=time.perf_counter() - started,
                finish_reason=choice.finish_reason,
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
        """The same for one message, as it is written."""
        request = {
            "model": model,
            "messages": [{"role": "user", "content": message}],
            "temperature": temperature,
            "max_tokens": max_tokens,
            "seed": seed,
            "stream": True,
        }
        started = time.perf_counter()
        given = {key: value for key, value in request.items() if value is not None}
        headers = {SUMMARY_HEADER: "1"}
        return ChatStream(
            await self._open(self.llm, "/v1/chat/completions", given, headers), started
        )

    async def embed(
        self, texts: Sequence[str], *, model: str | None = None, stage: str | None = None
    ) -> Embedded:
        started = time.perf_counter()
        request = {"model": model, "input": list(texts), "encoding_format": "float"}
        response = await self._ask_llm("/v1/embeddings", request, stage)
        answer = parsed(_Embeddings, response, "llm-proxy")
        rows = sorted(answer.data, key=lambda row: row.index)
        if [row.index for row in rows] != list(range(len(texts))):
            raise Problem(
                502, f"{len(rows)} vectors came for {len(texts)} texts", code="bad_upstream"
            )
        return Embedded(
            [row.embedding for row in rows],
            EmbedMetadata(
                model=answer.model,
                usage=answer.usage,
                cost_usd=_cost(response),
                duration_seconds=time.perf_counter() - started,
            ),
        )

    async def store(
        self,
        documents: Sequence[str],
        embedded: Embedded,
        *,
        metadata: Sequence[dict[str, Any]] | None = None,
        ids: Sequence[str] | None = None,
        stage: str | None = None,
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
            attributes=_of(stage),
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
        stage: str | None = None,
    ) -> SearchAnswer:
        """The documents nearest to a query by its embedding; the total time includes that."""
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
            attributes=_of(stage),
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

    async def generate(
        self, request: dict[str, Any], *, stage: str | None = None
    ) -> LocalInferenceAnswer:
        return await self.inference.call(
            LocalInferenceAnswer,
            "POST",
            "/local-inference",
            json=request,
            attributes=_of(stage),
            idempotent=True,
        )

    async def generate_stream(self, request: dict[str, Any]) -> EventStream:
        """The same as the local service writes it, its events untouched."""
        opened = await self._open(self.inference, "/local-inference", request)
        return EventStream(_relayed(opened), opened.aclose)

    async def aclose(self) -> None:
        for client in (self.llm, self.vector, self.inference):
            await client.aclose()

    async def _open(
        self,
        client: ServiceClient,
        path: str,
        request: dict[str, Any],
        headers: dict[str, str] | None = None,
    ) -> StreamedResponse:
        """A stream whose head has come. Raises Problem for any other answer."""
        opened = await client.open(
            "POST", path, json=request, headers=headers, seconds=self.stream_timeout_seconds
        )
        if "event-stream" not in opened.headers.get("content-type", ""):
            raise_for_problem(await opened.read(), client.service)
            raise Problem(502, f"{client.service}'s answer is no stream", code="bad_upstream")
        return opened

    async def _ask_llm(
        self, path: str, request: dict[str, Any], stage: str | None
    ) -> httpx2.Response:
        given = {key: value for key, value in request.items() if value is not None}
        response = await self.llm.request("POST", path, json=given, attributes=_of(stage))
        raise_for_problem(response, "llm-proxy")
        if PROVIDER_HEADER not in response.headers:
            raise Problem(502, f"llm-proxy's answer has no {PROVIDER_HEADER}", code="bad_upstream")
        return response


async def _relayed(opened: StreamedResponse) -> AsyncGenerator[bytes, None]:
    try:
        async with aclosing(relayed(opened, own_ending)) as pieces:
            async for events in pieces:
                yield events[0] if len(events) == 1 else b"".join(events)
    except Problem as problem:
        problems.report(problem)
        yield LastError(event(details(problem), "error"))


def _of(stage: str | None) -> dict[str, str]:
    return {schema.PIPELINE_STAGE: stage} if stage else {}


def _cost(response: httpx2.Response) -> float | None:
    value = response.headers.get(COST_HEADER)
    try:
        return None if value is None else float(value)
    except ValueError as error:
        raise Problem(
            502, f"llm-proxy's {COST_HEADER} is no number", code="bad_upstream"
        ) from error
