"""Stand-ins for the services behind the gateway, and a gateway before them."""

import asyncio
import base64
import json
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import httpx2
from httpx2 import Response
from opentelemetry import baggage, propagate
from pydantic import HttpUrl

from gateway.app import build
from gateway.backends import Backends
from gateway.settings import Settings
from gateway.trust_boundary import TraceContext
from tests.support.near import NearTransport, Streamed
from tests.support.recorded import Recorded, http

LLM = "llm-proxy"
VECTOR = "vector-svc"
INFERENCE = "inference-svc"

CHAT = f"{LLM}/v1/chat/completions"
EMBED = f"{LLM}/v1/embeddings"
SEARCH = f"{VECTOR}/search"
STORE = f"{VECTOR}/documents"
GENERATE = f"{INFERENCE}/local-inference"

ANSWER = "Because the sky scatters blue light."
DOCUMENTS = ("Rayleigh scattering", "The colour of the sea")

METRICS = """\
# HELP things_seconds Time of things.
# TYPE things_seconds histogram
# UNIT things_seconds seconds
things_seconds_bucket{le="1.0"} 1.0 # {trace_id="0af7651916cd43dd8448eb211c80319c"} 0.5
things_seconds_bucket{le="+Inf"} 2.0
things_seconds_count 2.0
things_seconds_sum 3.5
# HELP calls Calls.
# TYPE calls counter
calls_total{model="m"} 4.0
# EOF
"""


class Held:
    """The usual answer, held back until it is let go."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.let_go = asyncio.Event()


Answer = Response | Streamed | Exception | Held | Callable[[Any], Response | None]
"""What a call gets: this, or the usual answer where a function of the body says None."""


class Asked(NamedTuple):
    """One request a service got."""

    call: str
    headers: httpx2.Headers
    content: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.content) if self.content else None

    @property
    def who(self) -> dict[str, object]:
        return dict(baggage.get_all(propagate.extract(self.headers)))


class Services:
    """llm-proxy, vector-svc and inference-svc on one transport: the host says which is meant.

    `answers` may hold another answer for a call ("llm-proxy/v1/embeddings") or for all calls of a
    service ("llm-proxy").
    """

    def __init__(self) -> None:
        self.requests: list[Asked] = []
        self.answers: dict[str, Answer] = {}
        self.costs: dict[str, str] = {CHAT: "0.25", EMBED: "0.5"}

    async def __call__(self, request: httpx2.Request) -> Response | Streamed:
        call = f"{request.url.host}{request.url.path}"
        asked = Asked(call, request.headers, request.content)
        self.requests.append(asked)
        answer = self.answers.get(call, self.answers.get(request.url.host))
        if isinstance(answer, Held):
            answer.asked.set()
            await answer.let_go.wait()
            answer = None
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, Streamed):
            return answer
        if callable(answer):
            answer = answer(asked.body)
        if answer is None:
            return self._usual(call, asked.body)
        return Response(answer.status_code, headers=answer.headers, content=answer.content)

    def calls(self, *without: str) -> list[str]:
        return [asked.call for asked in self.requests if asked.call not in without]

    def asked(self, call: str) -> Asked:
        """The only request of this call."""
        [found] = [asked for asked in self.requests if asked.call == call]
        return found

    def _usual(self, call: str, body: Any) -> Response:
        if call.startswith(LLM) and call in USUAL:
            return llm_response(USUAL[call](body), self.costs.get(call))
        if call.endswith("/metrics"):
            return Response(200, text=METRICS)
        if call in USUAL:
            return Response(200, json=USUAL[call](body))
        return Response(404, json={"detail": "no such call"})


def llm_response(content: dict[str, Any], cost: str | None = None, status: int = 200) -> Response:
    """An answer of llm-proxy, which sums up what the provider says, and estimates the rest."""
    choices = content.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else {}
    reported = content.get("usage")
    summary = {
        "model": content.get("model") or "asked-for",
        "provider": "openai",
        "usage": reported or usage(7, 2),
        "usage_estimated": not reported,
        "cost_usd": float(cost) if cost else None,
        "finish_reason": first.get("finish_reason") if isinstance(first, dict) else None,
    }
    headers = {"X-O11y-Provider": "openai", "X-O11y-Summary": json.dumps(summary)}
    if cost:
        headers["X-O11y-Cost-Usd"] = cost
    return Response(status, json=content, headers=headers)


def usage(prompt: int, completion: int = 0) -> dict[str, int]:
    total = prompt + completion
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}


def completion(body: dict[str, Any]) -> dict[str, Any]:
    choice = {"message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}
    return {"model": body.get("model", "gpt"), "choices": [choice], "usage": usage(20, 5)}


def embeddings(body: dict[str, Any]) -> dict[str, Any]:
    """A vector a text whose first number is its place; the rows come in the wrong order."""
    rows = [{"index": index, "embedding": packed(index, 1)} for index in range(len(body["input"]))]
    model = body.get("model", "embedder")
    return {"model": model, "data": rows[::-1], "usage": usage(3 * len(rows))}


def packed(*vector: float) -> str:
    """A vector as OpenAI's API sends it for `encoding_format: base64`."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def found(body: dict[str, Any]) -> dict[str, Any]:
    results = [
        {
            "document": document,
            "similarity": 0.5,
            "distance": 0.5,
            "metadata": {"kind": "corpus"},
            "id": f"d{rank}",
            "rank": rank,
        }
        for rank, document in enumerate(DOCUMENTS[: body["n_results"]], 1)
    ]
    return {"results": results, "duration_seconds": 0.01}


def stored(body: dict[str, Any]) -> dict[str, Any]:
    ids = body["ids"] or [f"s{index}" for index in range(len(body["documents"]))]
    return {
        "documents_added": len(ids),
        "total_documents": 10 + len(ids),
        "ids": ids,
        "duration_seconds": 0.01,
    }


def generated(body: dict[str, Any]) -> dict[str, Any]:
    performance = {
        "duration_seconds": 1.0,
        "tokens_per_second": 7.0,
        "time_to_first_token_seconds": 0.1,
        "queue_seconds": 0.0,
        "batch_efficiency": 1.0,
    }
    metadata = {"model": "tiny", "device": "cpu", "usage": usage(4, 7), "performance": performance}
    texts = ["It is blue."] * body.get("num_sequences", 1)
    return {"generated_texts": texts, "metadata": metadata}


def _always(answer: dict[str, Any]) -> Callable[[Any], dict[str, Any]]:
    return lambda _: answer


USUAL: dict[str, Callable[[Any], dict[str, Any]]] = {
    CHAT: completion,
    EMBED: embeddings,
    SEARCH: found,
    STORE: stored,
    GENERATE: generated,
    f"{LLM}/v1/models": _always({"object": "list", "data": []}),
    f"{LLM}/v1/completions": _always({"choices": []}),
    f"{LLM}/health": _always({"status": "available", "provider": "openai"}),
    f"{VECTOR}/health": _always({"status": "available", "document_count": 3}),
    f"{INFERENCE}/health": _always({"status": "available", "model_name": "tiny", "device": "cpu"}),
    f"{VECTOR}/stats": _always({"collection_name": "documents", "document_count": 0}),
    f"{INFERENCE}/stats": _always({"model_name": "tiny", "device": "cpu", "parameters": 7}),
    f"{LLM}/readyz": _always({"status": "ready"}),
    f"{INFERENCE}/readyz": _always({"status": "ready"}),
}


class Gateway:
    """The gateway's calls before the stand-ins, with what both recorded."""

    def __init__(self, trace_context: TraceContext = "continue", **given: Any) -> None:
        """`given` are more settings."""
        self.services = Services()
        settings = Settings(
            llm_proxy_url=HttpUrl(f"http://{LLM}"),
            vector_url=HttpUrl(f"http://{VECTOR}"),
            inference_url=HttpUrl(f"http://{INFERENCE}"),
            seed_corpus=False,
            trace_context=trace_context,
            **given,
        )
        self.recorded = Recorded("gateway", settings)
        transport = NearTransport(self.services)
        self.backends = Backends(settings, self.recorded.telemetry, transport)
        """Calls of their own, for what is tested without the application."""
        self.app = build(settings, self.recorded.telemetry, transport)
        self.client = http(self.app)

    async def post(
        self, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> Response:
        return await self.client.post(path, json=body, headers=headers)

    async def close(self) -> None:
        await self.client.aclose()
        await self.backends.aclose()
        self.recorded.telemetry.shutdown()


def problem(status: int, detail: str = "no", **headers: str) -> Response:
    """A service's error, as all of them answer."""
    return Response(status, json={"detail": detail}, headers=headers)
