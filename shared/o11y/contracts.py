"""The requests and answers of the calls between the services, and what their fields may be.

Lengths and ranges are checked here, once, so that every service refuses the same input with the
same words. The gateway's own API is in `gateway.contracts`.
"""

import math
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
)

from o11y.telemetry.identity import MAX_LENGTH

MAX_NAME = 256
"""Longest name of a model in characters: it is in spans, metrics and messages."""

Text = Annotated[str, StringConstraints(min_length=1, max_length=100_000)]
Identity = Annotated[
    str, StringConstraints(min_length=1, max_length=MAX_LENGTH, pattern=r"^[\x20-\x7e]+$")
]
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME)]
Scalar = str | int | float | bool
Metadata = dict[str, Scalar]


def _storable_key(key: str) -> str:
    """A key of metadata that Chroma stores and filters can name."""
    if not key or key.startswith(("$", "#", "chroma:")):
        raise ValueError("a key is not empty, and begins with none of '$', '#' and 'chroma:'")
    return key


def _storable_value(value: object) -> object:
    """A value of metadata that comes back as it is: Chroma's integers have 64 bits."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError("an integer of more than 64 bits")
    return value


NewMetadata = dict[
    Annotated[str, AfterValidator(_storable_key)],
    Annotated[Scalar, BeforeValidator(_storable_value)],
]
LARGEST = 3.4028234663852886e38
"""Largest number of 32 bits, as vectors are stored."""

Vector = Annotated[
    list[Annotated[float, Field(ge=-LARGEST, le=LARGEST)]],
    Field(min_length=1),
]

PROVIDER_HEADER = "X-O11y-Provider"
"""Answer header of the LLM proxy: who answered."""

COST_HEADER = "X-O11y-Cost-Usd"
"""Answer header of the LLM proxy: US dollars as a decimal number; absent when the price is
unknown.
"""

BUDGET_HEADER = "X-O11y-Budget"
"""The header of a refusal that names the budget, such as `tenant/month`."""

BUDGET_WARNING_HEADER = "X-O11y-Budget-Warning"
"""Answer header of the gateway: the budgets that are nearly used up, such as `key/day;used=83`, in
percent.
"""

SUMMARY_HEADER = "X-O11y-Stream-Summary"
"""Request header of the LLM proxy: sum the call up, a stream in its last chunk, a whole answer in
WHOLE_SUMMARY_HEADER.
"""

WHOLE_SUMMARY_HEADER = "X-O11y-Summary"
"""Answer header of the LLM proxy, where it was asked for: a CallSummary as JSON in ASCII."""

SUMMARY_FIELD = "o11y"
"""Field of a stream's last chunk, beside OpenAI's own: a CallSummary."""

MAX_TEXTS = 256
MAX_DEPTH = 50
MAX_RESULTS = 100
MAX_NEW_TOKENS = 512

TopP = Annotated[float, Field(gt=0, le=1)]
TopK = Annotated[int, Field(ge=1, le=2**31 - 1)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
"""A seed: as wide as OpenAI's API reference has it, and a span attribute can hold."""


def require_json(value: object, depth: int = MAX_DEPTH) -> None:
    """Raise ValueError unless the next service can be sent this as JSON.

    Python's parser takes more than JSON has: NaN, infinities, halves of surrogate pairs.
    """
    if depth == 0:
        raise ValueError("too deeply nested")
    match value:
        case float() if not math.isfinite(value):
            raise ValueError("not a finite number")
        case str():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise ValueError("not valid Unicode") from None
        case dict():
            for key, item in value.items():
                require_json(key, depth - 1)
                require_json(item, depth - 1)
        case list():
            for item in value:
                require_json(item, depth - 1)


class Body(BaseModel):
    """A request body: unknown fields are refused, so that a typing error is not ignored."""

    model_config = ConfigDict(extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def can_travel_on(cls, value: object) -> object:
        require_json(value)
        return value


class Usage(BaseModel):
    """Tokens of one call, as the provider or the engine counted them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class CallSummary(BaseModel):
    """The summary of a call to an LLM that has ended: what the provider tells of it, and where it
    doesn't, the model that was asked for and an estimate of the tokens.
    """

    model: str
    provider: str
    usage: Usage
    usage_estimated: bool
    cost_usd: float | None
    finish_reason: str | None


# Vector service


class StoreAnswer(BaseModel):
    """The acknowledgement of the vector service: the documents are durable when it is sent."""

    documents_added: int
    total_documents: int
    ids: list[str]
    duration_seconds: float


class SearchResult(BaseModel):
    """One document; `similarity` is the cosine (-1 to 1), `distance` is 1 minus it, `rank` from
    1.
    """

    document: str
    similarity: float
    distance: float
    metadata: Metadata
    id: str
    rank: int


class VectorSearchAnswer(BaseModel):
    results: list[SearchResult]
    duration_seconds: float


# Local inference


class LocalInferenceRequest(Body):
    prompt: Text
    max_length: int = Field(100, ge=1, le=MAX_NEW_TOKENS, description="new tokens")
    temperature: float = Field(0.7, ge=0, le=2)
    top_p: TopP | None = None
    top_k: TopK | None = None
    seed: Seed | None = None
    num_sequences: int = Field(1, ge=1, le=5)
    user_id: Identity | None = None
    session_id: Identity | None = None
    stream: bool = False


class Performance(BaseModel):
    """The timing of a generation by the local model.

    `batch_efficiency`: over the forward steps the call took part in, token slots whose result was
    used / token slots computed, of everyone in those steps.
    """

    duration_seconds: float
    tokens_per_second: float
    time_to_first_token_seconds: float
    queue_seconds: float
    batch_efficiency: float


class LocalInferenceMetadata(BaseModel):
    model: str
    device: str
    usage: Usage
    cost_usd: float = 0.0
    """The share in the price of the machine; 0 without one."""
    performance: Performance


class LocalInferenceAnswer(BaseModel):
    generated_texts: list[str]
    metadata: LocalInferenceMetadata


# The state of services


class ServiceHealth(BaseModel):
    """The state of one service, with whatever else it says of itself."""

    model_config = ConfigDict(extra="allow")

    status: Literal["available", "unavailable"]
    reason: str | None = None
