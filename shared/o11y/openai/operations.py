"""OpenAI's calls as operations of OpenAPI, for routes whose bodies go through as they came.

Only what this system reads of a body, or promises of an answer, is described; everything else that
OpenAI's API reference has may be there as well.
"""

from collections.abc import Mapping
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


def _operation(
    name: str, summary: str, request: Schema, required: list[str], answer: Schema, *, streams: bool
) -> Schema:
    body = {"type": "object", "properties": request, "required": required}
    content: Schema = {
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {"model": _STRING, "usage": _USAGE, **answer},
            }
        }
    }
    if streams:
        content["text/event-stream"] = {"schema": EVENT}
    refused = {
        str(status): {"description": description}
        for status, description in (
            (400, "The provider refuses the call."),
            (401, "The provider refuses the key that is configured."),
            (404, "No provider has the model."),
            (429, "Too many calls; `Retry-After` says when to try again."),
            (502, "A provider failed, or its answer can't be read."),
        )
    }
    return {
        "operationId": name,
        "summary": summary,
        "tags": ["openai"],
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {
            "200": {"description": "As the provider answers.", "content": content},
            **refused,
        },
    }


OPERATIONS: Mapping[str, Schema] = {
    "/v1/chat/completions": _operation(
        "create_chat_completion",
        "Chat",
        {"messages": {}, "max_completion_tokens": {}, **_SAMPLING},
        ["messages"],
        {"id": _STRING, "choices": _OBJECTS},
        streams=True,
    ),
    "/v1/completions": _operation(
        "create_completion",
        "Continue a text",
        {"prompt": {}, **_SAMPLING},
        ["prompt"],
        {"id": _STRING, "choices": _OBJECTS},
        streams=True,
    ),
    "/v1/embeddings": _operation(
        "create_embedding",
        "Embed texts",
        {
            "input": {},
            "encoding_format": {},
            **{name: _SAMPLING[name] for name in ("model", "user", "safety_identifier")},
        },
        ["input"],
        {"data": _OBJECTS},
        streams=False,
    ),
}
"""The operations, by path."""
