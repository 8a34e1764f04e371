"""The requests and answers of the gateway's own API.

The fields clients read are a promise: fields are added, never renamed.
"""

from typing import Any, Literal, Self

from pydantic import BaseModel, Field, model_validator

from o11y.contracts import (
    MAX_NEW_TOKENS,
    MAX_RESULTS,
    MAX_TEXTS,
    Body,
    Identity,
    LocalInferenceAnswer,
    ModelName,
    NewMetadata,
    SearchResult,
    Seed,
    ServiceHealth,
    StoreAnswer,
    Text,
    Usage,
)


class ChatRequest(Body):
    message: Text
    model: ModelName | None = None
    temperature: float = Field(0.7, ge=0, le=2)
    max_tokens: int | None = Field(None, ge=1, le=128_000)
    seed: Seed | None = None
    user_id: Identity | None = None
    session_id: Identity | None = None
    stream: bool = False


class ChatMetadata(BaseModel):
    model: str
    provider: str
    usage: Usage
    cost_usd: float | None
    duration_seconds: float
    finish_reason: str | None


class ChatAnswer(BaseModel):
    response: str
    metadata: ChatMetadata


class EmbedRequest(Body):
    texts: list[Text] = Field(min_length=1, max_length=MAX_TEXTS)
    model: ModelName | None = None
    store_in_vector_db: bool = True
    metadata: list[NewMetadata] | None = None
    ids: list[Identity] | None = None
    user_id: Identity | None = None
    session_id: Identity | None = None

    @model_validator(mode="after")
    def one_a_text(self) -> Self:
        for name, values in (("metadata", self.metadata), ("ids", self.ids)):
            if values is not None and len(values) != len(self.texts):
                raise ValueError(f"{name} has {len(values)} entries for {len(self.texts)} texts")
        return self


class EmbedMetadata(BaseModel):
    model: str
    usage: Usage
    cost_usd: float | None
    duration_seconds: float


class EmbedAnswer(BaseModel):
    embeddings_created: int
    stored_in_vector_db: bool
    metadata: EmbedMetadata
    vector_db_result: StoreAnswer | None


class SearchRequest(Body):
    query: Text
    n_results: int = Field(5, ge=1, le=MAX_RESULTS)
    filter_metadata: dict[str, Any] | None = None
    user_id: Identity | None = None
    session_id: Identity | None = None


class SearchMetadata(BaseModel):
    query_embedding_cost_usd: float | None
    search_duration_seconds: float
    total_duration_seconds: float


class SearchAnswer(BaseModel):
    query: str
    results: list[SearchResult]
    count: int
    metadata: SearchMetadata


class PipelineRequest(Body):
    query: Text
    store_results: bool = True
    use_context: bool = True
    user_id: Identity | None = None
    session_id: Identity | None = None
    max_tokens: int = Field(64, ge=1, le=MAX_NEW_TOKENS)
    seed: Seed | None = None
    n_results: int = Field(3, ge=1, le=MAX_RESULTS)


class PipelineParameters(PipelineRequest):
    """A part of a pipeline request: query parameters and a JSON body make it up together."""

    query: Text | None = None  # type: ignore[assignment]


class Embeddings(BaseModel):
    embeddings_created: int
    metadata: EmbedMetadata


class PipelineResults(BaseModel):
    """The result of each stage; None where it failed or was not asked for."""

    openai_response: ChatAnswer | None = None
    embeddings: Embeddings | None = None
    vector_storage: StoreAnswer | None = None
    local_model_response: LocalInferenceAnswer | None = None
    similarity_search: SearchAnswer | None = None


EMBED_QUERY = "embed_query"
LOCAL_INFERENCE = "local_inference"
SEARCH = "search"
CHAT = "chat"
EMBED_ANSWER = "embed_answer"
STORE = "store"
STAGES = (EMBED_QUERY, LOCAL_INFERENCE, SEARCH, CHAT, EMBED_ANSWER, STORE)
"""The stages of the pipeline, as answers list them."""


class Stage(BaseModel):
    name: str
    status: Literal["ok", "error", "skipped"]
    duration_seconds: float
    error: str | None = None


class PipelineSummary(BaseModel):
    total_duration_seconds: float
    total_cost_usd: float | None
    steps_completed: int
    openai_tokens_used: int
    local_tokens_generated: int
    documents_stored: int
    search_results_found: int


class PipelineAnswer(BaseModel):
    query: str
    results: PipelineResults
    summary: PipelineSummary
    stages: list[Stage]
    trace_id: str | None


class ServiceStates(BaseModel):
    """The state of each service behind the gateway."""

    openai_service: ServiceHealth
    vector_database: ServiceHealth
    local_model: ServiceHealth


class HealthAnswer(BaseModel):
    status: Literal["healthy", "degraded", "unhealthy"]
    timestamp: str
    services: ServiceStates


class SystemStats(BaseModel):
    timestamp: str
    uptime_seconds: float


class StatsAnswer(BaseModel):
    """Figures as the services tell them; `error` where one didn't."""

    vector_database: dict[str, Any]
    local_model: dict[str, Any]
    system: SystemStats
