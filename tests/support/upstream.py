"""A stand-in for the providers: answers as told and keeps what it was asked."""

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any

import httpx2
from httpx2 import Response
from opentelemetry.sdk.trace import ReadableSpan

from llm_proxy import requests
from llm_proxy.app import build
from llm_proxy.calls import Calls
from llm_proxy.failures import CallRejected
from llm_proxy.provider import Provider
from llm_proxy.routing import Routing
from llm_proxy.sending import WholeResponse
from llm_proxy.settings import ProviderSettings, Settings
from llm_proxy.spending import Spending
from llm_proxy.stream import Stream
from o11y.openai import operations
from o11y.openai.operations import Operation
from o11y.telemetry import schema
from o11y.web.problems import Problem
from tests.support.near import NearTransport, Streamed
from tests.support.recorded import Recorded, attributes, http

KEY = "sk-hunter2-hunter2"
INFERENCE = "http://inference:8083"

CHAT_PATH = "/v1/chat/completions"
COMPLETION_PATH = "/v1/completions"
EMBEDDING_PATH = "/v1/embeddings"
CHAT_CALL = "/chat/completions"

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
COMPLETION: dict[str, Any] = {"prompt": "hi"}
EMBEDDING: dict[str, Any] = {"input": ["hi", "ho"]}

MODEL = "gpt-4o-mini-2024-07-18"
USAGE: dict[str, Any] = {
    "prompt_tokens": 1000,
    "completion_tokens": 100,
    "total_tokens": 1100,
    "prompt_tokens_details": {"cached_tokens": 400},
}
CHAT_ANSWER: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": MODEL,
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "hello"},
            "finish_reason": "stop",
            "field_nobody_knows": {"a": None},
        }
    ],
    "usage": USAGE,
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


# Streams


def event(body: object) -> bytes:
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def said(text: str | None = None, finish: str | None = None, **more: Any) -> bytes:
    """One event of a chat stream."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return event({"id": "chatcmpl-1", "model": MODEL, "choices": [choice], **more})


DONE = b"data: [DONE]\n\n"
USAGE_EVENT = event({"id": "chatcmpl-1", "model": MODEL, "choices": [], "usage": USAGE})
STREAM = (said("hel"), said("lo"), said(finish="stop"), USAGE_EVENT, DONE)


class Hang:
    """An answer that never comes. `reached` is set when it is waited for."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()


Answer = Response | Streamed | Exception | Hang
Answers = Answer | Callable[[], Answer] | list[Answer]


class Upstream:
    """The providers' side of the network.

    `answers` may be changed at any time: for a path below the base URL, or for one at one host
    ("b.test/chat/completions"). Of a list each call takes the next, and the last one stays.
    """

    def __init__(self) -> None:
        self.requests: list[httpx2.Request] = []
        self.answers: dict[str, Answers] = {}
        self.usual: Answer | None = None
        """The answer to everything else; without it, what the path usually gets."""

    async def __call__(self, request: httpx2.Request) -> Response | Streamed:
        self.requests.append(request)
        await asyncio.sleep(0)  # as the network, which others run beside
        path = request.url.path.removeprefix("/v1")
        answer = self._next(f"{request.url.host}{path}") or self._next(path) or self.usual
        match answer:
            case Hang():
                answer.reached.set()
                await asyncio.Event().wait()
            case Exception():
                raise answer
            case Response():
                return Response(answer.status_code, headers=answer.headers, content=answer.content)
            case Streamed():
                return answer
        if path == CHAT_CALL and json.loads(request.content).get("stream"):
            return Streamed(*STREAM)
        usual = {
            "/chat/completions": CHAT_ANSWER,
            "/completions": COMPLETION_ANSWER,
            "/embeddings": EMBEDDING_ANSWER,
            "/models": MODELS,
        }
        return Response(200, json=usual[path])

    def _next(self, key: str) -> Answer | None:
        found = self.answers.get(key)
        if isinstance(found, list):
            return found.pop(0) if len(found) > 1 else found[0]
        return found() if callable(found) else found

    @property
    def calls(self) -> list[httpx2.Request]:
        """All requests but those for the list of models."""
        return [each for each in self.requests if not each.url.path.endswith("/models")]

    @property
    def hosts(self) -> list[str]:
        return [each.url.host for each in self.calls]

    @property
    def asked(self) -> httpx2.Request:
        """The only call."""
        [request] = self.calls
        return request

    @property
    def body(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.asked.content)
        return found


class Proxy:
    """The service before the stand-in, with what both recorded."""

    def __init__(self, **settings: object) -> None:
        given = Settings.model_validate(settings)
        self.upstream = Upstream()
        self.recorded = Recorded("llm-proxy", given)
        self.app = build(given, self.recorded.telemetry, NearTransport(self.upstream))
        self.client = http(self.app)

    async def chat(
        self, body: Mapping[str, object] = CHAT, headers: Mapping[str, str] | None = None
    ) -> Response:
        return await self.client.post(CHAT_PATH, json=body, headers=headers)

    async def close(self) -> None:
        await self.client.aclose()
        self.recorded.telemetry.shutdown()


class Caller:
    """Calls to providers "a", "b" … at a.test, b.test …, without the service around them."""

    def __init__(self, *providers: Mapping[str, object]) -> None:
        self.upstream = Upstream()
        self.transport = NearTransport(self.upstream)
        self.recorded = Recorded("llm-proxy", Settings())
        self.providers = [
            Provider(
                provider_settings(name, given), INFERENCE, self.recorded.telemetry, self.transport
            )
            for name, given in zip("abcd", providers or ({},), strict=False)
        ]
        self.spending = Spending(None, self.recorded.telemetry, passes=False)
        self.calls = Calls(Routing(self.providers), self.recorded.telemetry, self.spending)

    async def make(
        self, operation: Operation = operations.CHAT, **fields: object
    ) -> "WholeResponse | Stream":
        usual = EMBEDDING if operation.embeds else {operation.prompt: CHAT["messages"]}
        body = json.dumps({"model": "gpt-4o-mini", **usual, **fields}).encode()
        return await self.calls.make(requests.read(operation, body))

    async def answer(self, **fields: object) -> bytes:
        """All that the caller is sent."""
        given = await self.make(**fields)  # type: ignore[arg-type]
        if isinstance(given, WholeResponse):
            return given.content
        async with aclosing(given.events()) as events:
            return b"".join([each async for each in events])

    def attempts(self) -> list[ReadableSpan]:
        """The HTTP spans of all calls."""
        return [span for span in self.recorded.spans() if schema.HTTP_METHOD in attributes(span)]

    def spans(self) -> list[ReadableSpan]:
        """The GenAI spans, one a call."""
        return [span for span in self.recorded.spans() if schema.OPERATION in attributes(span)]

    def is_idle(self) -> bool:
        """Whether no call holds on to anything."""
        running = self.recorded.points(schema.OPENAI_RUNNING.name)
        free = [_all_free(each.slots) for each in self.providers]
        local = [each.balancer for each in self.providers if each.balancer]
        busy = [replica.in_flight for balancer in local for replica in balancer.replicas]
        return all(free) and not any(busy) and not any(point.value for point in running)

    async def close(self) -> None:
        for provider in self.providers:
            await provider.aclose()
        self.recorded.telemetry.shutdown()


def _all_free(slots: asyncio.BoundedSemaphore) -> bool:
    """Whether there is none to give back."""
    try:
        slots.release()
    except ValueError:
        return True
    return False


def provider_settings(name: str, given: Mapping[str, object]) -> ProviderSettings:
    usual = {"name": name, "base_url": f"http://{name}.test/v1", "pricing": "openai"}
    return ProviderSettings.model_validate({**usual, **given})


def problem(status: int, body: object, **headers: str) -> Response:
    """An error of the provider, which wants to be asked again at once."""
    return Response(status, json=body, headers={"retry-after-ms": "1", **headers})


def failing(status: int, **headers: str) -> Response:
    """An error of the provider, which doesn't say when to come back."""
    return Response(status, json={"error": {"message": "overloaded"}}, headers=headers)


async def outcome(caller: Caller, **fields: object) -> int:
    """The status the caller of the proxy would see."""
    try:
        given = await caller.make(**fields)  # type: ignore[arg-type]
    except (Problem, CallRejected) as error:
        return error.status
    assert isinstance(given, WholeResponse)
    return 200
