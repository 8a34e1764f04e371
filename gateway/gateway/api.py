"""The gateway's own calls: /chat, /embed, /search, /local-inference, /full-pipeline."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from gateway.backends import Backends
from gateway.caller import identify, query_identity
from gateway.contracts import (
    ChatAnswer,
    ChatRequest,
    EmbedAnswer,
    EmbedRequest,
    PipelineAnswer,
    PipelineParameters,
    PipelineRequest,
    SearchAnswer,
    SearchRequest,
)
from gateway.pipeline import Pipeline
from o11y.contracts import LocalInferenceAnswer, LocalInferenceRequest
from o11y.http import deadline
from o11y.web.openapi import EVENT_STREAM, errors
from o11y.web.problems import Problem


@contextmanager
def _in_words_of_ours(**fields: str) -> Iterator[None]:
    """Name fields at fault as the caller of this API knows them, by those of OpenAI's."""
    try:
        yield
    except Problem as problem:
        for error in problem.errors:
            field = error["field"].partition(".")[0]
            error["field"] = fields.get(field, error["field"])
        raise


def router(backends: Backends, pipeline: Pipeline) -> APIRouter:
    api = APIRouter(
        dependencies=[Depends(query_identity)],
        tags=["pipeline"],
        responses=errors(400, 401, 402, 403, 404, 409, 429, 502),
    )

    @api.post("/chat", response_model=ChatAnswer, responses=EVENT_STREAM)
    async def chat(body: ChatRequest) -> ChatAnswer | Response:
        """Ask the LLM one question."""
        identify(body.user_id, body.session_id)
        with _in_words_of_ours(prompt="message", messages="message"):
            if body.stream:
                deadline.stream(backends.stream_timeout_seconds)
                return await backends.chat_stream(
                    body.message,
                    model=body.model,
                    temperature=body.temperature,
                    max_tokens=body.max_tokens,
                    seed=body.seed,
                )
            return await backends.chat(
                [{"role": "user", "content": body.message}],
                model=body.model,
                temperature=body.temperature,
                max_tokens=body.max_tokens,
                seed=body.seed,
            )

    @api.post("/embed")
    async def embed(body: EmbedRequest) -> EmbedAnswer:
        """Embed texts, and store them as documents."""
        identify(body.user_id, body.session_id)
        with _in_words_of_ours(input="texts"):
            embedded = await backends.embed(body.texts, model=body.model)
        stored = None
        if body.store_in_vector_db:
            stored = await backends.store(
                body.texts, embedded, metadata=body.metadata, ids=body.ids
            )
        return EmbedAnswer(
            embeddings_created=len(embedded.vectors),
            stored_in_vector_db=stored is not None,
            metadata=embedded.metadata,
            vector_db_result=stored,
        )

    @api.post("/search")
    async def search(body: SearchRequest) -> SearchAnswer:
        """Find the documents nearest to a text."""
        identify(body.user_id, body.session_id)
        with _in_words_of_ours(input="query"):
            embedded = await backends.embed([body.query])
        return await backends.search(
            body.query,
            embedded,
            body.n_results,
            body.filter_metadata,
            caller_filters=bool(body.filter_metadata),
        )

    @api.post("/local-inference", response_model=LocalInferenceAnswer, responses=EVENT_STREAM)
    async def local_inference(body: LocalInferenceRequest) -> LocalInferenceAnswer | Response:
        """Continue a prompt with the local model."""
        identify(body.user_id, body.session_id)
        request = body.model_dump(exclude={"user_id", "session_id"})
        if body.stream:
            deadline.stream(backends.stream_timeout_seconds)
            return await backends.generate_stream(request)
        return await backends.generate(request)

    @api.post("/full-pipeline")
    async def full_pipeline(
        parameters: Annotated[PipelineParameters, Query()],
        body: PipelineParameters | None = None,
    ) -> PipelineAnswer:
        """Embed a query, search, ask both models, and store question and answer.

        `query` is needed in the query string or in the body.
        """
        given = parameters.model_dump(exclude_unset=True)
        if body:
            given |= body.model_dump(exclude_unset=True)
        try:
            parsed = PipelineRequest.model_validate(given)
        except ValidationError as error:
            errors = [{**item, "loc": ("body", *item["loc"])} for item in error.errors()]
            raise RequestValidationError(errors) from error
        identify(parsed.user_id, parsed.session_id)
        return await pipeline.run(parsed)

    return api
