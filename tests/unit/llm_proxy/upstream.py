"""A stand-in for the provider: answers as told and keeps what it was asked."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import httpx2
from httpx2 import Response

from llm_proxy.app import build
from llm_proxy.settings import Settings
from tests.unit.o11y.recorded import Recorded, http
from tests.unit.o11y.wires import NearWire

KEY = "sk-hunter2-hunter2"

CHAT_PATH = "/v1/chat/completions"
COMPLETION_PATH = "/v1/completions"
EMBEDDING_PATH = "/v1/embeddings"

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
COMPLETION: dict[str, Any] = {"prompt": "hi"}
EMBEDDING: dict[str, Any] = {"input": ["hi", "ho"]}

CHAT_ANSWER: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "gpt-4o-mini-2024-07-18",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "hello"},
            "finish_reason": "stop",
            "field_nobody_knows": {"a": None},
        }
    ],
    "usage": {
        "prompt_tokens": 1000,
        "completion_tokens": 100,
        "total_tokens": 1100,
        "prompt_tokens_details": {"cached_tokens": 400},
    },
}
COMPLETION_ANSWER: dict[str, Any] = {
    **CHAT_ANSWER,
    "model": "gpt-3.5-turbo-instruct",
    "choices": [{"index": 0, "text": "hello", "finish_reason": "length"}],
}
EMBEDDING_ANSWER: dict[str, Any] = {
    "object": "list",
    "model": "text-embedding-3-small",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -0.25]}],
    "usage": {"prompt_tokens": 8, "total_tokens": 8},
}
MODELS: dict[str, Any] = {
    "object": "list",
    "data": [
        {"id": "tiny-chat", "object": "model", "kind": "chat"},
        {"id": "tiny-embedding", "object": "model", "kind": "embedding"},
    ],
}


class Hang:
    """An answer that never comes."""


class Upstream:
    """The provider's side of the wire. `answers` may be changed at any time."""

    def __init__(self) -> None:
        self.requests: list[httpx2.Request] = []
        self.answers: dict[str, Response | Exception | Hang] = {}

    async def __call__(self, request: httpx2.Request) -> Response:
        self.requests.append(request)
        path = request.url.path.removeprefix("/v1")
        answer = self.answers.get(path)
        match answer:
            case Hang():
                await asyncio.Event().wait()
            case Exception():
                raise answer
            case Response():
                return Response(answer.status_code, headers=answer.headers, content=answer.content)
        usual = {
            "/chat/completions": CHAT_ANSWER,
            "/completions": COMPLETION_ANSWER,
            "/embeddings": EMBEDDING_ANSWER,
            "/models": MODELS,
        }
        return Response(200, json=usual[path])

    @property
    def asked(self) -> httpx2.Request:
        """The only request but those for the list of models."""
        [request] = [each for each in self.requests if not each.url.path.endswith("/models")]
        return request

    @property
    def body(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.asked.content)
        return found


class Proxy:
    """The service before a stand-in, with what both recorded."""

    def __init__(self, **settings: object) -> None:
        given = Settings.model_validate(settings)
        self.upstream = Upstream()
        self.recorded = Recorded("llm-proxy", given)
        wire = NearWire(self.upstream)
        self.client = http(build(given, self.recorded.telemetry, wire))

    async def chat(
        self, body: Mapping[str, object] = CHAT, headers: Mapping[str, str] | None = None
    ) -> Response:
        return await self.client.post(CHAT_PATH, json=body, headers=headers)

    async def close(self) -> None:
        await self.client.aclose()
        self.recorded.telemetry.shutdown()


def problem(status: int, body: object, **headers: str) -> Response:
    """An error of the provider; its own client is told not to wait before it tries again."""
    return Response(status, json=body, headers={"retry-after-ms": "1", **headers})
