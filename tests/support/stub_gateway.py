"""A gateway and a trace store in process: every answer is right unless a test changes it."""

import json
import re
from collections.abc import Callable
from typing import Any

import httpx2

from gateway.contracts import EMBED_ANSWER, STAGES, STORE
from o11y.web.problems import TRACE_HEADER

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
WINDOW = 64
SERVICES = ("gateway", "llm-proxy", "vector-svc", "inference-svc")
EMBED_METADATA = {
    "model": "mini",
    "usage": {"prompt_tokens": 4, "total_tokens": 4},
    "cost_usd": 0.001,
    "duration_seconds": 0.1,
}

Change = Callable[[httpx2.Request, dict[str, Any]], dict[str, Any] | None]


class Stub:
    """A transport. `change` may give another body for a good answer; `gone` hosts are down."""

    def __init__(self, change: Change = lambda *_: None, gone: tuple[str, ...] = ()) -> None:
        self.change = change
        self.gone = gone
        self.services: tuple[str, ...] = SERVICES
        self.paths: list[str] = []
        self.stored: set[str] = set()

    def transport(self) -> httpx2.MockTransport:
        return httpx2.MockTransport(self._answer)

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        host, path = request.url.host, request.url.path
        if host in self.gone:
            raise httpx2.ConnectError("refused", request=request)
        if host == "tempo":
            return self._tempo(path)
        self.paths.append(path)
        if path == "/metrics":
            return httpx2.Response(200, text="o11y_service_up memory_used_bytes")
        try:
            asked = json.loads(request.content or b"{}") | dict(request.url.params)
        except ValueError:
            return refuse(path, 422, "body")
        if refused := self._refused(path, asked):
            return refused
        body = getattr(self, path.strip("/").replace("-", "_"))(asked)
        changed = self.change(request, body)
        headers = {TRACE_HEADER: TRACE_ID}
        return httpx2.Response(200, json=changed or body, headers=headers)

    def _refused(self, path: str, asked: dict[str, Any]) -> httpx2.Response | None:
        words = len(asked.get("prompt", "").split())
        match path, asked:
            case _, {"message": ""}:
                return refuse(path, 422, "message")
            case _, {"temperature": 9}:
                return refuse(path, 422, "temperature")
            case _, {"n_results": 0}:
                return refuse(path, 422, "n_results")
            case _, {"model": "no-such-model"}:
                return refuse(path, 404, "model")
            case "/no-such-path", _:
                return refuse(path, 404)
        if words >= WINDOW:
            return refuse(path, 422, "prompt", f"the prompt has {words} tokens of {WINDOW}")
        return None

    def _tempo(self, path: str) -> httpx2.Response:
        if not path.startswith("/api/v2/traces/"):
            return httpx2.Response(404)
        groups = [
            {
                "resource": {
                    "attributes": [{"key": "service.name", "value": {"stringValue": name}}]
                },
                "scopeSpans": [{"spans": [{"spanId": f"{number:016x}", "name": "a span"}]}],
            }
            for number, name in enumerate(self.services, 1)
        ]
        return httpx2.Response(200, json={"trace": {"resourceSpans": groups}})

    def livez(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"status": "alive"}

    def health(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"status": "healthy", "services": {"local_model": {"status": "available"}}}

    def stats(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"vector_database": {}, "local_model": {"context_window": WINDOW}, "system": {}}

    def chat(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {
            "response": "An answer.",
            "metadata": {
                "model": "gpt",
                "provider": "openai",
                "usage": {"prompt_tokens": 3, "completion_tokens": 8, "total_tokens": 11},
                "cost_usd": 0.01,
                "duration_seconds": 0.1,
                "finish_reason": "stop",
            },
        }

    def embed(self, asked: dict[str, Any]) -> dict[str, Any]:
        texts, store = asked["texts"], asked["store_in_vector_db"]
        added = len(set(texts) - self.stored)
        self.stored |= set(texts)
        result = {
            "documents_added": added,
            "total_documents": len(self.stored),
            "ids": asked.get("ids", texts),
            "duration_seconds": 0.1,
        }
        return {
            "embeddings_created": len(texts),
            "stored_in_vector_db": store,
            "metadata": EMBED_METADATA,
            "vector_db_result": result if store else None,
        }

    def search(self, asked: dict[str, Any]) -> dict[str, Any]:
        topic = asked.get("filter_metadata", {}).get("topic", "observability")
        count = 0 if topic == "no such topic" else int(asked["n_results"])
        return {
            "query": asked["query"],
            "count": count,
            "metadata": {
                "query_embedding_cost_usd": 0.001,
                "search_duration_seconds": 0.1,
                "total_duration_seconds": 0.2,
            },
            "results": [
                {
                    "document": f"Tracing, tracing and an error budget {rank}.",
                    "similarity": 1 - rank / 100,
                    "distance": rank / 100,
                    "metadata": {"topic": topic},
                    "id": str(rank),
                    "rank": rank,
                }
                for rank in range(1, count + 1)
            ],
        }

    def local_inference(self, asked: dict[str, Any]) -> dict[str, Any]:
        tokens = asked["num_sequences"] * asked["max_length"]
        return {
            "generated_texts": ["a text"] * asked["num_sequences"],
            "metadata": {
                "model": "gemma",
                "device": "cpu",
                "usage": {"prompt_tokens": 2, "completion_tokens": tokens},
                "performance": {
                    "duration_seconds": 1,
                    "tokens_per_second": tokens,
                    "time_to_first_token_seconds": 0.1,
                    "queue_seconds": 0,
                    "batch_efficiency": 1,
                },
            },
        }

    def full_pipeline(self, asked: dict[str, Any]) -> dict[str, Any]:
        store = str(asked["store_results"]).lower() == "true"
        idle = [] if store else [EMBED_ANSWER, STORE]
        return {
            "query": asked["query"],
            "results": {
                "openai_response": self.chat(asked),
                "embeddings": {"embeddings_created": 2, "metadata": EMBED_METADATA},
                "local_model_response": self.local_inference({"num_sequences": 1, "max_length": 9}),
            },
            "summary": {
                "total_duration_seconds": 1,
                "total_cost_usd": 0.02,
                "steps_completed": len(STAGES) - len(idle),
                "openai_tokens_used": 15,
                "local_tokens_generated": 9,
                "documents_stored": 2 if store else 0,
                "search_results_found": 3,
            },
            "stages": [
                {
                    "name": name,
                    "status": "skipped" if name in idle else "ok",
                    "duration_seconds": 0.1,
                }
                for name in STAGES
            ],
            "trace_id": TRACE_ID,
        }


def refuse(path: str, status: int, field: str = "", detail: str = "") -> httpx2.Response:
    detail = detail or f"{field} is wrong"
    headers = {TRACE_HEADER: TRACE_ID, "content-type": "application/problem+json"}
    if re.match("/v1/", path):
        error = {
            "message": detail,
            "type": "invalid_request_error",
            "param": field,
            "code": "model_not_found",
        }
        headers["content-type"] = "application/json"
        return httpx2.Response(status, json={"error": error}, headers=headers)
    body = {
        "title": "A refusal",
        "status": status,
        "detail": detail,
        "trace_id": TRACE_ID,
        "errors": [{"field": field, "message": detail}],
    }
    return httpx2.Response(status, json=body, headers=headers)
