"""Every row of the contract on the running stack, with good and with bad input."""

import re
import socket
from typing import Any

import httpx2
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from gateway.contracts import STAGES
from tests.integration.conftest import EmbeddedStack

NUMBER = (int, float)


def shape(answer: Any, expected: Any, where: str = "") -> None:
    """Fails unless `answer` has the fields of `expected`, each of the type it names."""
    if isinstance(expected, dict):
        assert isinstance(answer, dict), f"{where}: {answer!r}"
        for key, inner in expected.items():
            assert key in answer, f"{where}.{key} is missing"
            shape(answer[key], inner, f"{where}.{key}")
    elif isinstance(expected, list):
        assert isinstance(answer, list), f"{where}: {answer!r}"
        assert answer, f"{where} is empty"
        for item in answer:
            shape(item, expected[0], where)
    else:
        assert isinstance(answer, expected), f"{where}: {answer!r}"


USAGE = {"prompt_tokens": int, "completion_tokens": int, "total_tokens": int}
CHAT = {
    "response": str,
    "metadata": {
        "model": str,
        "provider": str,
        "usage": USAGE,
        "cost_usd": NUMBER,
        "duration_seconds": NUMBER,
        "finish_reason": str,
    },
}
STORED = {"documents_added": int, "total_documents": int, "ids": [str], "duration_seconds": NUMBER}
EMBED_METADATA = {"model": str, "usage": USAGE, "cost_usd": NUMBER, "duration_seconds": NUMBER}
EMBED = {
    "embeddings_created": int,
    "stored_in_vector_db": bool,
    "metadata": EMBED_METADATA,
    "vector_db_result": STORED,
}
RESULT = {
    "document": str,
    "similarity": NUMBER,
    "distance": NUMBER,
    "metadata": dict,
    "id": str,
    "rank": int,
}
SEARCH = {
    "query": str,
    "results": [RESULT],
    "count": int,
    "metadata": {
        "query_embedding_cost_usd": NUMBER,
        "search_duration_seconds": NUMBER,
        "total_duration_seconds": NUMBER,
    },
}
LOCAL = {
    "generated_texts": [str],
    "metadata": {
        "model": str,
        "device": str,
        "usage": USAGE,
        "performance": {
            "duration_seconds": NUMBER,
            "tokens_per_second": NUMBER,
            "time_to_first_token_seconds": NUMBER,
            "queue_seconds": NUMBER,
            "batch_efficiency": NUMBER,
        },
    },
}
PIPELINE = {
    "query": str,
    "results": {
        "openai_response": CHAT,
        "embeddings": {"embeddings_created": int, "metadata": EMBED_METADATA},
        "vector_storage": STORED,
        "local_model_response": LOCAL,
        "similarity_search": SEARCH,
    },
    "summary": {
        "total_duration_seconds": NUMBER,
        "total_cost_usd": NUMBER,
        "steps_completed": int,
        "openai_tokens_used": int,
        "local_tokens_generated": int,
        "documents_stored": int,
        "search_results_found": int,
    },
    "stages": [{"name": str, "status": str, "duration_seconds": NUMBER}],
    "trace_id": str,
}
AVAILABLE = {"status": str}
HEALTH = {
    "status": str,
    "timestamp": str,
    "services": {
        "openai_service": AVAILABLE,
        "vector_database": {"status": str, "document_count": int},
        "local_model": {"status": str, "model_name": str, "device": str},
    },
}
STATS = {
    "vector_database": {"collection_name": str, "document_count": int},
    "local_model": {"model_name": str, "device": str, "parameters": int},
    "system": {"timestamp": str, "uptime_seconds": NUMBER},
}

GOOD: list[tuple[str, str, dict[str, Any] | None, Any]] = [
    ("GET", "/health", None, HEALTH),
    ("GET", "/stats", None, STATS),
    ("POST", "/chat", {"message": "What is a span?", "max_tokens": 8, "user_id": "ada"}, CHAT),
    ("POST", "/embed", {"texts": ["A trace is a tree of spans."]}, EMBED),
    ("POST", "/search", {"query": "How are vectors compared?"}, SEARCH),
    ("POST", "/local-inference", {"prompt": "A span is", "max_length": 8}, LOCAL),
    ("POST", "/full-pipeline?query=What+is+a+metric%3F&max_tokens=8&seed=7", None, PIPELINE),
    (
        "POST",
        "/full-pipeline",
        {"query": "What is a metric?", "max_tokens": 8, "seed": 7},
        PIPELINE,
    ),
    ("GET", "/v1/models", None, {"object": str, "data": [{"id": str, "object": str}]}),
    (
        "POST",
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8},
        {"choices": [{"message": {"content": str}, "finish_reason": str}], "usage": USAGE},
    ),
    (
        "POST",
        "/v1/completions",
        {"prompt": "Hello", "max_tokens": 8},
        {"choices": [{"text": str, "finish_reason": str}], "usage": USAGE},
    ),
    (
        "POST",
        "/v1/embeddings",
        {"input": ["one", "two"]},
        {"data": [{"embedding": [float], "index": int}], "model": str},
    ),
]


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"), GOOD, ids=[f"{row[0]} {row[1]}" for row in GOOD]
)
def test_good_input_gets_every_field(
    gateway: httpx2.Client, method: str, path: str, body: dict[str, Any] | None, expected: Any
) -> None:
    answer = gateway.request(method, path, json=body)
    assert answer.status_code == 200, answer.text
    shape(answer.json(), expected)
    assert len(answer.headers["x-trace-id"]) == 32


BAD: list[tuple[str, Any, int, str | None]] = [
    ("/chat", {"message": ""}, 422, "message"),
    ("/chat", {"message": "hi", "temperature": 2.1}, 422, "temperature"),
    ("/chat", {"message": "hi", "max_tokens": 0}, 422, "max_tokens"),
    ("/chat", {"message": "hi", "stream": "perhaps"}, 422, "stream"),
    ("/chat", {"message": "hi", "mesage": "typo"}, 422, "mesage"),
    ("/chat", {"message": "hi", "model": "no-such-model"}, 404, "model"),
    ("/chat", {"message": "hi", "user_id": "x" * 200}, 422, "user_id"),
    ("/chat", {"message": "word " * 5000}, 422, "message"),
    ("/embed", {"texts": []}, 422, "texts"),
    ("/embed", {"texts": ["a", ""]}, 422, "texts.1"),
    ("/embed", {"texts": ["a"], "metadata": [{}, {}]}, 422, "body"),
    ("/embed", {"texts": ["a"], "model": "no-such-model"}, 404, "model"),
    ("/search", {"query": "a", "n_results": 0}, 422, "n_results"),
    ("/search", {"query": "a", "n_results": 101}, 422, "n_results"),
    ("/search", {"query": "a", "filter_metadata": {"k": {"$x": 1}}}, 422, "filter_metadata"),
    ("/local-inference", {"prompt": "a", "max_length": 513}, 422, "max_length"),
    ("/local-inference", {"prompt": "a", "num_sequences": 6}, 422, "num_sequences"),
    ("/local-inference", {"prompt": "word " * 5000}, 422, "prompt"),
    ("/full-pipeline", None, 422, "query"),
    ("/full-pipeline?query=a&max_tokens=0", None, 422, "max_tokens"),
    ("/full-pipeline?quary=a", None, 422, "quary"),
    ("/nowhere", {}, 404, None),
]


@pytest.mark.parametrize(
    ("path", "body", "status", "field"), BAD, ids=[f"{row[0]}-{row[3]}-{row[2]}" for row in BAD]
)
def test_bad_input_is_refused_by_name(
    gateway: httpx2.Client, path: str, body: Any, status: int, field: str | None
) -> None:
    answer = gateway.post(path, json=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["trace_id"] == answer.headers["x-trace-id"]
    assert problem["status"] == status
    if field:
        assert field in [error["field"] for error in problem["errors"]]


def test_a_prompt_beyond_the_window_is_told_both_lengths(gateway: httpx2.Client) -> None:
    answer = gateway.post("/local-inference", json={"prompt": "word " * 5000, "max_length": 10})
    assert "5002 tokens" in answer.json()["detail"]
    assert "4096" in answer.json()["detail"]


OFFERS = {
    "h2c": "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
    "websocket": "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
}


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
@pytest.mark.parametrize(
    ("port", "path", "body", "status"),
    [
        ("GATEWAY_PORT", "/v1/embeddings", '{"input": "a"}', 200),
        ("LLM_PROXY_PORT", "/v1/embeddings", '{"input": "a"}', 200),
        ("VECTOR_SVC_PORT", "/documents", '{"documents": []}', 422),
        ("INFERENCE_SVC_PORT", "/v1/embeddings", '{"input": "a"}', 200),
    ],
)
def test_an_offer_of_another_protocol_is_answered_in_this_one(
    stack: EmbeddedStack, port: str, path: str, body: str, status: int, offer: str
) -> None:
    known = f"X-Internal-Token: {stack.token}\r\n"
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{known}{offer}"
    first = f"{head}Content-Length: {len(body)}\r\n\r\n{body}"
    second = "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    received = b""
    with socket.create_connection(("127.0.0.1", stack.ports[port]), 30) as connection:
        connection.sendall((first + second).encode())
        while piece := connection.recv(65536):
            received += piece
    assert re.findall(rb"HTTP/1.1 (\d+) ", received) == [str(status).encode(), b"200"]
    assert received.endswith(b'{"status":"alive"}')
    if status == 422:  # the body has been read
        assert b"documents" in received


def test_malformed_json_is_422(gateway: httpx2.Client) -> None:
    answer = gateway.post(
        "/chat", content=b'{"message": ', headers={"content-type": "application/json"}
    )
    assert answer.status_code == 422
    assert "not valid JSON" in answer.json()["detail"]


def test_under_v1_errors_are_openai_envelopes(gateway: httpx2.Client) -> None:
    answer = gateway.post(
        "/v1/chat/completions",
        json={"model": "no-such-model", "messages": [{"role": "user", "content": "hi"}]},
    )
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"
    assert answer.json()["error"]["param"] == "model"


def test_the_pipeline_does_all_its_steps_and_costs_nothing(gateway: httpx2.Client) -> None:
    answer = gateway.post(
        "/full-pipeline", json={"query": "What is HNSW?", "max_tokens": 8, "seed": 7}
    ).json()
    assert [stage["status"] for stage in answer["stages"]] == ["ok"] * len(STAGES)
    assert answer["summary"]["steps_completed"] == len(STAGES)
    assert answer["summary"]["total_cost_usd"] == 0
    assert answer["results"]["similarity_search"]["results"][0]["id"] == "vec-hnsw"


def test_a_repeated_question_finds_neither_itself_nor_its_answer(gateway: httpx2.Client) -> None:
    query = "Is this very question its own nearest document?"
    for _ in range(2):
        answer = gateway.post(
            "/full-pipeline", json={"query": query, "max_tokens": 4, "seed": 7}
        ).json()
        results = answer["results"]["similarity_search"]["results"]
        assert {row["metadata"].get("kind") for row in results} <= {"corpus", None}
    stored = gateway.post("/search", json={"query": query, "n_results": 1}).json()["results"]
    assert stored[0]["document"] == query


def test_storing_twice_adds_once(gateway: httpx2.Client) -> None:
    body = {"texts": ["Stored twice, kept once."], "metadata": [{"topic": "test"}]}
    first, second = (gateway.post("/embed", json=body).json() for _ in range(2))
    assert first["vector_db_result"]["documents_added"] == 1
    assert second["vector_db_result"]["documents_added"] == 0
    assert first["vector_db_result"]["ids"] == second["vector_db_result"]["ids"]


def test_search_finds_by_meaning_and_filters_by_metadata(gateway: httpx2.Client) -> None:
    query = {"query": "How does a trace follow a request across services?", "n_results": 4}
    answer = gateway.post("/search", json={**query, "filter_metadata": {"topic": "observability"}})
    results = answer.json()["results"]
    assert results[0]["metadata"]["topic"] == "observability"
    assert [row["rank"] for row in results] == [1, 2, 3, 4]
    similarities = [row["similarity"] for row in results]
    assert similarities == sorted(similarities, reverse=True)
    assert similarities[0] > 0.5
    for row in results:
        assert row["distance"] == pytest.approx(1 - row["similarity"])


def test_num_sequences_and_usage_agree(gateway: httpx2.Client) -> None:
    body = {"prompt": "Once upon", "max_length": 6, "num_sequences": 3, "temperature": 1.0}
    answer = gateway.post("/local-inference", json=body).json()
    assert len(answer["generated_texts"]) == 3
    usage = answer["metadata"]["usage"]
    assert 3 <= usage["completion_tokens"] <= 18
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert 0 < answer["metadata"]["performance"]["batch_efficiency"] <= 1


def test_greedy_answers_repeat(gateway: httpx2.Client) -> None:
    body = {"prompt": "Artificial intelligence is", "max_length": 8, "temperature": 0}
    first, second = (gateway.post("/local-inference", json=body).json() for _ in range(2))
    assert first["generated_texts"] == second["generated_texts"]


EMITTED = [
    ("gateway", "pipeline_stage_duration_seconds_count"),
    ("llm-proxy", "openai_api_duration_seconds_count"),
    ("llm-proxy", "openai_cost_usd_total"),
    ("llm-proxy", "openai_tokens_used_total"),
    ("vector-svc", "vector_operation_duration_seconds_count"),
    ("vector-svc", "vector_search_similarity_count"),
    ("vector-svc", "vector_search_distance_count"),
    ("vector-svc", "vector_documents"),
    ("inference-svc", "model_inference_duration_seconds_count"),
    ("inference-svc", "model_tokens_generated_total"),
    ("inference-svc", "memory_used_bytes"),
    ("inference-svc", "cpu_usage_percent"),
]


def test_one_scrape_shows_every_service(gateway: httpx2.Client) -> None:
    gateway.post("/full-pipeline", json={"query": "What is a gauge?", "max_tokens": 4})

    def samples(path: str) -> set[tuple[str, str]]:
        families = text_string_to_metric_families(gateway.get(path).text)
        return {
            (sample.labels["service"], sample.name)
            for family in families
            for sample in family.samples
        }

    assert set(EMITTED) <= samples("/metrics")
    assert {service for service, _ in samples("/metrics?scope=self")} == {"gateway"}
