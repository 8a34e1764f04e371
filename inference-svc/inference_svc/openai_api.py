"""The OpenAI API in front of the local models: chat, completions, embeddings, models.

Follows OpenAI's API reference. What the engine can't do yet is refused by name rather than ignored:
a parameter is accepted only with the value that changes nothing.
"""

import base64
import struct
import time
import uuid
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Response
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from inference_svc.cost import priced
from inference_svc.embedder import Embedder
from inference_svc.engine import GenerationRequest
from inference_svc.generation import Generator, Outcome
from inference_svc.openai_stream import stream_chat, stream_text
from inference_svc.prompt import PLAIN_STOP, Prompts
from o11y.contracts import MAX_TEXTS, ModelName, Seed, Text, TopK, TopP
from o11y.http import deadline
from o11y.web.openapi import EVENT_STREAM, errors
from o11y.web.problems import Problem

DEFAULT_MAX_TOKENS = 128
MAX_STOPS = 16
MAX_STOP_LENGTH = 256
"""Stop texts are looked for in each new piece of text, so their number and length are bounded."""


def _only(*neutral: object) -> AfterValidator:
    def check(value: object) -> object:
        if value not in neutral:
            raise ValueError(f"the local engine takes only {neutral[-1]!r} here")
        return value

    return AfterValidator(check)


def _stops(value: object) -> object:
    """One stop text, several, or none, as OpenAI takes them; an empty string is none."""
    if value is None or value == "":
        return []
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        raise ValueError("a text or a list of texts")
    if len(given) > MAX_STOPS or not all(0 < len(each) <= MAX_STOP_LENGTH for each in given):
        raise ValueError(f"at most {MAX_STOPS} texts of 1 to {MAX_STOP_LENGTH} characters")
    return given


class TextPart(BaseModel):
    type: Literal["text"]
    text: str


class RefusalPart(BaseModel):
    type: Literal["refusal"]
    refusal: str


class Function(BaseModel):
    name: str
    arguments: str = ""

    def text(self) -> str:
        return f"{self.name}({self.arguments})"


class CustomTool(BaseModel):
    name: str
    input: str = ""

    def text(self) -> str:
        return f"{self.name}({self.input})"


class ToolCall(BaseModel):
    """A call of a tool; of a kind that isn't known here, nothing is read."""

    function: Function | None = None
    custom: CustomTool | None = None


Part = Annotated[TextPart | RefusalPart, Field(discriminator="type")]


class Message(BaseModel):
    """A turn of the conversation. One of an assistant may consist of calls of tools alone."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: Function | None = None

    @model_validator(mode="after")
    def has_content(self) -> Self:
        if self.content is None and self.role != "assistant":
            raise ValueError(f"a message of the role {self.role!r} needs content")
        return self

    def text(self) -> str:
        """The text of the turn, calls of functions included: the model reads nothing else."""
        content = [self.content] if isinstance(self.content, str) else self.content or []
        parts = [_text(part) for part in content] + ([self.refusal] if self.refusal else [])
        calls = [call.function or call.custom for call in self.tool_calls or ()]
        written = [call.text() for call in (*calls, self.function_call) if call]
        return "\n".join(["".join(parts), *written] if parts else written)


def _text(part: str | TextPart | RefusalPart) -> str:
    match part:
        case TextPart():
            return part.text
        case RefusalPart():
            return part.refusal
    return part


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="ignore")

    include_usage: bool | None = None


class Sampling(BaseModel):
    """The parameters that chat and text completions have in common.

    Unknown fields are ignored: clients may send some that are newer than this service. `top_k`,
    `min_p` and `repetition_penalty` are none of OpenAI's, but other servers of its API take them.
    """

    model_config = ConfigDict(extra="ignore")

    model: ModelName | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    n: int | None = Field(None, ge=1, le=5)
    max_tokens: int | None = Field(None, ge=1)
    stop: Annotated[tuple[str, ...], BeforeValidator(_stops)] = ()
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    top_p: TopP | None = None
    top_k: TopK | None = None
    seed: Seed | None = None
    presence_penalty: Annotated[float | None, _only(None, 0)] = None
    frequency_penalty: Annotated[float | None, _only(None, 0)] = None
    repetition_penalty: Annotated[float | None, _only(None, 1)] = None
    min_p: Annotated[float | None, _only(None, 0)] = None
    logit_bias: Annotated[Any, _only(None, {})] = None
    logprobs: Annotated[bool | int | None, _only(None, False)] = None
    top_logprobs: Annotated[int | None, _only(None, 0)] = None
    response_format: Annotated[Any, _only(None, {"type": "text"})] = None

    def request(self, ids: list[int], new: int, stops: tuple[str, ...]) -> GenerationRequest:
        temperature = 1.0 if self.temperature is None else self.temperature
        return GenerationRequest(ids, new, temperature, stops, self.top_p, self.top_k, self.seed)


class ChatCompletionRequest(Sampling):
    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    tools: Annotated[Any, _only(None, [])] = None
    tool_choice: Annotated[Any, _only(None, "none", "auto")] = None
    functions: Annotated[Any, _only(None, [])] = None
    function_call: Annotated[Any, _only(None, "none", "auto")] = None
    modalities: Annotated[Any, _only(None, ["text"])] = None
    audio: Annotated[Any, _only(None)] = None
    prediction: Annotated[Any, _only(None)] = None
    web_search_options: Annotated[Any, _only(None)] = None
    reasoning_effort: Annotated[Any, _only(None, "none")] = None
    verbosity: Annotated[Any, _only(None, "medium")] = None


class CompletionRequest(Sampling):
    prompt: Text
    suffix: Annotated[str | None, _only(None, "")] = None
    echo: Annotated[bool | None, _only(None, False)] = None
    best_of: int | None = None

    @field_validator("best_of")
    @classmethod
    def is_all(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value not in (None, choices := info.data.get("n") or 1):
            raise ValueError(f"the local engine takes only {choices} here, as many as `n`")
        return value


class EmbeddingRequest(BaseModel):
    model_config = ConfigDict(extra="ignore")

    input: Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]
    model: ModelName | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None


def router(
    generator: Generator,
    embedder: Embedder,
    prompts: Prompts,
    stream_timeout_seconds: float,
) -> APIRouter:
    api = APIRouter(prefix="/v1", tags=["openai"], responses=errors(400, 404, 429))
    engine = generator.engine
    model = engine.language_model
    created = int(time.time())
    kinds = {model.name: "chat", embedder.name: "embedding"}

    def require(name: str | None, kind: str) -> None:
        if name is not None and kinds.get(name) != kind:
            known = ", ".join(known for known, of in kinds.items() if of == kind)
            raise Problem(
                404,
                f"model '{name}' is not served for {kind}; this service has {known}",
                code="model_not_found",
                field="model",
            )

    def budget(max_tokens: int | None, prompt_ids: list[int]) -> int:
        """New tokens: what was asked for, else a default that fits beside the prompt."""
        return max_tokens or max(1, min(DEFAULT_MAX_TOKENS, engine.window - len(prompt_ids)))

    @api.post("/chat/completions", response_model=None, responses=EVENT_STREAM)
    async def chat(body: ChatCompletionRequest) -> dict[str, Any] | Response:
        require(body.model, "chat")
        messages = [(message.role, message.text()) for message in body.messages]
        ids = await prompts.chat(messages)
        plain_stop = () if prompts.has_template else PLAIN_STOP
        new = budget(body.max_completion_tokens or body.max_tokens, ids)
        requests = body.request(ids, new, body.stop + plain_stop).choices(body.n or 1)
        if body.stream:
            deadline.stream(stream_timeout_seconds)
            return await stream_chat(generator, requests, messages, _wants_usage(body))
        outcome = await generator.run("chat", requests, turns=messages)
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": item.text.strip(), "refusal": None},
                "finish_reason": item.finish_reason,
                "logprobs": None,
            }
            for index, item in enumerate(outcome.generations)
        ]
        return _completion("chatcmpl", "chat.completion", outcome, choices)

    @api.post("/completions", response_model=None, responses=EVENT_STREAM)
    async def completions(body: CompletionRequest) -> dict[str, Any] | Response:
        require(body.model, "chat")
        ids = await prompts.text(body.prompt)
        new = budget(body.max_tokens, ids)
        requests = body.request(ids, new, body.stop).choices(body.n or 1)
        turns = [("user", body.prompt)]
        if body.stream:
            deadline.stream(stream_timeout_seconds)
            return await stream_text(generator, requests, turns, _wants_usage(body))
        outcome = await generator.run("text_completion", requests, turns=turns)
        choices = [
            {
                "index": index,
                "text": item.text,
                "finish_reason": item.finish_reason,
                "logprobs": None,
            }
            for index, item in enumerate(outcome.generations)
        ]
        return _completion("cmpl", "text_completion", outcome, choices)

    @api.post("/embeddings")
    async def embeddings(body: EmbeddingRequest) -> dict[str, Any]:
        require(body.model, "embedding")
        embedded = await embedder.embed([body.input] if isinstance(body.input, str) else body.input)
        if body.dimensions not in (None, len(embedded.vectors[0])):
            raise Problem(
                400,
                f"{embedder.name} has {len(embedded.vectors[0])} dimensions and no other number",
                field="dimensions",
            )
        encode = _base64 if body.encoding_format == "base64" else list[float]
        return {
            "object": "list",
            "model": embedder.name,
            "data": [
                {"object": "embedding", "index": index, "embedding": encode(vector)}
                for index, vector in enumerate(embedded.vectors)
            ],
            "usage": priced(
                {"prompt_tokens": embedded.tokens, "total_tokens": embedded.tokens}, embedded.usd
            ),
        }

    @api.get("/models")
    async def models() -> dict[str, Any]:
        data = [
            {
                "id": name,
                "object": "model",
                "created": created,
                "owned_by": "local",
                "kind": kind,
            }
            for name, kind in kinds.items()
        ]
        return {"object": "list", "data": data}

    return api


def _wants_usage(body: Sampling) -> bool:
    return bool(body.stream_options and body.stream_options.include_usage)


def _completion(
    prefix: str, kind: str, outcome: Outcome, choices: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "id": f"{prefix}-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": outcome.metadata.model,
        "choices": choices,
        "usage": priced(outcome.metadata.usage.model_dump(), outcome.usd),
    }


def _base64(vector: list[float]) -> str:
    """Little-endian float32, as OpenAI's `encoding_format: base64`."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
