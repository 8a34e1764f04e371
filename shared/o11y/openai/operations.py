"""OpenAI's calls as operations of OpenAPI, for routes whose bodies go through as they came.

Only what this system reads of a body, or promises of an answer, is described; everything else that
OpenAI's API reference has may be there as well.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from o11y.web.openapi import EVENT

Schema = dict[str, Any]

_STRING: Schema = {"type": "string"}
_INTEGER: Schema = {"type": "integer"}
_OBJECTS: Schema = {"type": "array", "items": {"type": "object"}}

_USAGE: Schema = {
    "type": "object",
    "properties": {
        "prompt_tokens": _INTEGER,
        "completion_tokens": _INTEGER,
        "total_tokens": _INTEGER,
    },
}
_SAMPLING: Schema = {
    "model": {
        "type": ["string", "null"],
        "minLength": 1,
        "description": "The configured model where none is named.",
    },
    "stream_options": {"type": ["object", "null"]},
    "stream": {"type": ["boolean", "null"]},
    "user": {"description": "The end user, unless `safety_identifier` names one."},
    "safety_identifier": {},
    **{name: {} for name in ("max_tokens", "temperature", "top_p", "n", "seed", "stop")},
}
"""The provider says what is right where no type is given."""


@dataclass(frozen=True, eq=False)
class Operation:
    """A call of OpenAI's API to a model, as gateway and llm-proxy need to know it."""

    name: str
    """`gen_ai.operation.name` (semconv gen-ai)."""
    path: str
    """Below the base URL of a provider; this system has it below `/v1`."""
    prompt: str
    """The field of the request that the call can't be without."""
    summary: str
    id: str
    """`operationId` of OpenAPI."""
    request: Schema
    """Fields of the request besides the prompt, by name."""
    answer: Schema
    """Fields of the answer besides `model` and `usage`, by name."""
    generates: bool = True
    """True: the answer is text, of which there may be several choices, and a stream."""
    embeds: bool = False
    """True: the answer is vectors, and only a model of the same name can take another's place."""
    chunk: str = ""
    """`object` of the chunks of a stream."""

    @property
    def described(self) -> Schema:
        """The operation as OpenAPI has it."""
        fields = {self.prompt: {}, **self.request}
        body = {"type": "object", "properties": fields, "required": [self.prompt]}
        answer = {"model": _STRING, "usage": _USAGE, **self.answer}
        content: Schema = {"application/json": {"schema": {"type": "object", "properties": answer}}}
        if self.generates:
            content["text/event-stream"] = {"schema": EVENT}
        return {
            "operationId": self.id,
            "summary": self.summary,
            "tags": ["openai"],
            "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
            "responses": {
                "200": {"description": "As the provider answers.", "content": content},
                **{status: {"description": why} for status, why in _REFUSED.items()},
            },
        }


_REFUSED = {
    "400": "The provider refuses the call.",
    "401": "The gateway asks for keys, and this is none.",
    "403": "The key may not use this model or route.",
    "404": "No provider has the model.",
    "429": "Too many calls; `Retry-After` says when to try again.",
    "502": "A provider failed, or its answer can't be read.",
}

CHAT = Operation(
    name="chat",
    path="/chat/completions",
    prompt="messages",
    summary="Chat",
    id="create_chat_completion",
    request={"max_completion_tokens": {}, **_SAMPLING},
    answer={"id": _STRING, "choices": _OBJECTS},
    chunk="chat.completion.chunk",
)

COMPLETION = Operation(
    name="text_completion",
    path="/completions",
    prompt="prompt",
    summary="Continue a text",
    id="create_completion",
    request=_SAMPLING,
    answer={"id": _STRING, "choices": _OBJECTS},
    chunk="text_completion",
)

EMBEDDINGS = Operation(
    name="embeddings",
    path="/embeddings",
    prompt="input",
    summary="Embed texts",
    id="create_embedding",
    request={
        "encoding_format": {},
        **{name: _SAMPLING[name] for name in ("model", "user", "safety_identifier")},
    },
    answer={"data": _OBJECTS},
    generates=False,
    embeds=True,
)

OPERATIONS: Mapping[str, Operation] = {
    f"/v1{operation.path}": operation for operation in (CHAT, COMPLETION, EMBEDDINGS)
}
"""The operations, by the path they have here."""
