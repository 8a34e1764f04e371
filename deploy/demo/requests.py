"""Each kind of request the demo makes, and what its answer must be."""

from collections.abc import Iterator
from typing import Any

import httpx2
from pydantic import BaseModel

from deploy.demo.calls import Call, Reading
from deploy.demo.judges import good
from gateway.contracts import (
    EMBED_ANSWER,
    STAGES,
    STORE,
    ChatAnswer,
    EmbedAnswer,
    PipelineAnswer,
    SearchAnswer,
)
from o11y.contracts import LocalInferenceAnswer
from o11y.telemetry import schema

SEED = 7
"""Every run asks for the same random choices."""


class Health(BaseModel):
    """The fields of GET /health that the demo reads."""

    status: str
    services: dict[str, dict[str, Any]]


class Stats(BaseModel):
    """The fields of GET /stats that the demo reads."""

    vector_database: dict[str, Any]
    local_model: dict[str, Any]
    system: dict[str, Any]


def health() -> Call:
    def check(answer: Health) -> Iterator[str]:
        if answer.status not in ("healthy", "degraded"):
            yield f"the gateway calls itself {answer.status}"

    return Call("/health", good(Health, check), method="GET")


def stats() -> Call:
    return Call("/stats", good(Stats, lambda _: ()), method="GET")


def metrics() -> Call:
    def judge(response: httpx2.Response) -> Reading:
        if response.status_code != 200:
            return Reading([f"status {response.status_code}, not 200"])
        wanted = (schema.SERVICE_UP.name, "memory_used_bytes")
        return Reading([f"there is no {name}" for name in wanted if name not in response.text])

    return Call("/metrics", judge, method="GET")


def chat(message: str, user: str, session: str, max_tokens: int, temperature: float = 0.7) -> Call:
    def check(answer: ChatAnswer) -> Iterator[str]:
        tokens = answer.metadata.usage.completion_tokens
        if not 0 <= tokens <= max_tokens or (answer.response and not tokens):
            yield f"{tokens} tokens came back where {max_tokens} are the most"

    body = {
        "message": message,
        "temperature": temperature,
        "max_tokens": max_tokens,
        "seed": SEED,
        "user_id": user,
        "session_id": session,
    }
    return Call("/chat", good(ChatAnswer, check), body)


def embed(
    texts: list[str],
    user: str,
    *,
    store: bool = True,
    again: bool = False,
    ids: list[str] | None = None,
    topic: str | None = None,
) -> Call:
    """With `again`, texts that an earlier call has stored: nothing may be added."""

    def check(answer: EmbedAnswer) -> Iterator[str]:
        stored = answer.vector_db_result
        if answer.embeddings_created != len(texts):
            yield f"{answer.embeddings_created} embeddings for {len(texts)} texts"
        if answer.stored_in_vector_db != store or (stored is not None) != store:
            yield f"stored: {answer.stored_in_vector_db}, asked: {store}"
        if stored and len(stored.ids) != len(texts):
            yield f"{len(stored.ids)} ids for {len(texts)} texts"
        if stored and ids and stored.ids != ids:
            yield f"stored under {stored.ids}, not under {ids}"
        if stored and again and stored.documents_added:
            yield f"storing the same again added {stored.documents_added} documents"

    body: dict[str, Any] = {"texts": texts, "store_in_vector_db": store, "user_id": user}
    if ids:
        body["ids"] = ids
    if topic:
        body["metadata"] = [{"kind": "demo", "topic": topic} for _ in texts]
    return Call("/embed", good(EmbedAnswer, check), body)


def search(
    query: str,
    user: str,
    n_results: int = 5,
    *,
    topic: str | None = None,
    about: str = "",
    found: int | None = None,
) -> Call:
    """`about` must be in the first document; `found` is the number of results if it is certain."""

    def check(answer: SearchAnswer) -> Iterator[str]:
        results = answer.results
        similarities = [result.similarity for result in results]
        if answer.count != len(results) or len(results) > n_results:
            yield f"{len(results)} results, counted as {answer.count}, at most {n_results} asked"
        if found is not None and len(results) != found:
            yield f"{len(results)} results, not {found}"
        if similarities != sorted(similarities, reverse=True):
            yield f"the results are not sorted by similarity: {similarities}"
        if [result.rank for result in results] != list(range(1, len(results) + 1)):
            yield f"the ranks are {[result.rank for result in results]}"
        if topic and any(result.metadata.get("topic") != topic for result in results):
            yield f"some results are of another topic than {topic}"
        first = results[0].document if results else ""
        if about not in first.lower():
            yield f"the first result is not about {about!r} but: {first[:80] or 'nothing'}"

    body: dict[str, Any] = {"query": query, "n_results": n_results, "user_id": user}
    if topic:
        body["filter_metadata"] = {"topic": topic}
    return Call("/search", good(SearchAnswer, check), body)


def local(prompt: str, user: str, length: int, temperature: float = 0.7, texts: int = 1) -> Call:
    def check(answer: LocalInferenceAnswer) -> Iterator[str]:
        usage, performance = answer.metadata.usage, answer.metadata.performance
        if len(answer.generated_texts) != texts:
            yield f"{len(answer.generated_texts)} texts, not {texts}"
        if not 0 <= usage.completion_tokens <= length * texts:
            yield f"{usage.completion_tokens} tokens, not 0 to {length * texts}"
        if usage.completion_tokens and (
            performance.tokens_per_second <= 0 or not 0 < performance.batch_efficiency <= 1
        ):
            yield f"impossible performance: {performance}"

    body = {
        "prompt": prompt,
        "max_length": length,
        "temperature": temperature,
        "num_sequences": texts,
        "seed": SEED,
        "user_id": user,
    }
    return Call("/local-inference", good(LocalInferenceAnswer, check), body)


def pipeline(
    query: str,
    user: str,
    session: str,
    *,
    as_body: bool = False,
    store: bool = True,
    use_context: bool = True,
    n_results: int = 3,
    max_tokens: int = 32,
) -> Call:
    """With its parameters in the query string, or in a JSON body.

    A model may have nothing to say: then there is no answer to embed, and the query is stored
    alone.
    """

    def check(answer: PipelineAnswer) -> Iterator[str]:
        summary, chat = answer.summary, answer.results.openai_response
        silent = chat is not None and not chat.response.strip()
        idle = [EMBED_ANSWER] if silent else []
        if not store:
            idle = [EMBED_ANSWER, STORE]
        steps = len(STAGES) - len(idle)
        missed = [s for s in answer.stages if s.status != "ok" and s.name not in idle]
        yield from (f"stage {stage.name} {stage.status}: {stage.error}" for stage in missed)
        if missed:
            return  # the rest would only be its consequences
        if summary.steps_completed != steps:
            yield f"{summary.steps_completed} steps completed, not {steps}"
        if bool(summary.documents_stored) != store:
            yield f"{summary.documents_stored} documents stored, store_results={store}"
        if not 0 < summary.search_results_found <= n_results:
            yield f"{summary.search_results_found} search results, not 1 to {n_results}"
        if not answer.trace_id:
            yield "the answer has no trace_id"

    asked = {
        "query": query,
        "store_results": store,
        "use_context": use_context,
        "n_results": n_results,
        "max_tokens": max_tokens,
        "seed": SEED,
        "user_id": user,
        "session_id": session,
    }
    judge = good(PipelineAnswer, check)
    if as_body:
        return Call("/full-pipeline", judge, asked)
    return Call("/full-pipeline", judge, params=asked)
