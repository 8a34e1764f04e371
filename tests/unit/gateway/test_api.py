"""Each call of the gateway: what it answers, what it asks for, which input it refuses."""

import math
from typing import Any

import httpx2
import pytest
from httpx2 import Response
from opentelemetry.trace import SpanKind

from tests.support.gateway_services import (
    ANSWER,
    CHAT,
    DOCUMENTS,
    EMBED,
    GENERATE,
    SEARCH,
    STORE,
    Gateway,
    Services,
    llm_response,
    packed,
    problem,
    usage,
)
from tests.support.recorded import identity


async def test_chat_answers_with_what_it_took(gateway: Gateway, services: Services) -> None:
    response = await gateway.post("/chat", {"message": "why is the sky blue?"})
    answer = response.json()
    assert response.status_code == 200
    assert answer["response"] == ANSWER
    assert answer["metadata"].pop("duration_seconds") >= 0
    assert answer["metadata"] == {
        "model": "gpt",
        "provider": "openai",
        "usage": usage(20, 5),
        "cost_usd": 0.25,
        "finish_reason": "stop",
    }
    assert services.asked(CHAT).body == {
        "messages": [{"role": "user", "content": "why is the sky blue?"}],
        "temperature": 0.7,
    }


async def test_chat_asks_for_what_the_caller_chose(gateway: Gateway, services: Services) -> None:
    chosen = {"model": "m", "temperature": 0, "max_tokens": 9}
    answer = (await gateway.post("/chat", {"message": "a", **chosen})).json()
    body = services.asked(CHAT).body
    assert {key: body[key] for key in chosen} == chosen
    assert answer["metadata"]["model"] == "m"


async def test_a_cost_nobody_knows_is_null(gateway: Gateway, services: Services) -> None:
    services.costs = {}
    assert (await gateway.post("/chat", {"message": "a"})).json()["metadata"]["cost_usd"] is None
    search = (await gateway.post("/search", {"query": "a"})).json()
    assert search["metadata"]["query_embedding_cost_usd"] is None


async def test_embed_stores_each_text_with_its_own_vector(
    gateway: Gateway, services: Services
) -> None:
    metadata = [{"n": 1}, {"n": 2}]
    body = {"texts": ["a", "b"], "model": "e", "metadata": metadata, "ids": ["1", "2"]}
    answer = (await gateway.post("/embed", body)).json()
    assert services.asked(EMBED).body == {
        "model": "e",
        "input": ["a", "b"],
        "encoding_format": "base64",
    }
    assert services.asked(STORE).body == {
        "documents": ["a", "b"],
        "embeddings": [[0, 1.0], [1, 1.0]],
        "embedding_model": "e",
        "metadata": metadata,
        "ids": ["1", "2"],
    }
    assert (answer["embeddings_created"], answer["stored_in_vector_db"]) == (2, True)
    assert answer["metadata"].pop("duration_seconds") >= 0
    assert answer["metadata"] == {"model": "e", "usage": usage(6), "cost_usd": 0.5}
    assert answer["vector_db_result"]["documents_added"] == 2
    assert answer["vector_db_result"]["ids"] == ["1", "2"]


async def test_embed_stores_nothing_when_not_asked_to(gateway: Gateway, services: Services) -> None:
    response = await gateway.post("/embed", {"texts": ["a"], "store_in_vector_db": False})
    answer = response.json()
    assert services.calls() == [EMBED]
    assert (answer["stored_in_vector_db"], answer["vector_db_result"]) == (False, None)


async def test_a_vector_may_come_as_numbers(gateway: Gateway, services: Services) -> None:
    rows = [{"index": 0, "embedding": [0.25, -1]}]
    services.answers[EMBED] = llm_response({"model": "e", "data": rows, "usage": usage(1)})
    await gateway.post("/embed", {"texts": ["a"]})
    assert services.asked(STORE).body["embeddings"] == [[0.25, -1.0]]


ROWS = [{"embedding": [0.5, at]} for at in range(3)]


@pytest.mark.parametrize(
    ("indices", "order"),
    [
        ([None, None, None], [0, 1, 2]),
        ([2, 0, 1], [1, 2, 0]),
        ([0, 0, 0], [0, 1, 2]),
        ([1, 2, 3], [0, 1, 2]),
        (["2", "1", "0"], [0, 1, 2]),
        ([0, None, 2], [0, 1, 2]),
    ],
)
@pytest.mark.parametrize("usual", [{"model": "e", "usage": usage(1)}, {}, {"usage": None}])
async def test_vectors_without_index_or_usage_are_vectors(
    indices: list[Any],
    order: list[int],
    usual: dict[str, Any],
    gateway: Gateway,
    services: Services,
) -> None:
    rows = [
        row if index is None else {**row, "index": index}
        for row, index in zip(ROWS, indices, strict=True)
    ]
    services.answers[EMBED] = llm_response({**usual, "data": rows})
    answer = await gateway.post("/embed", {"texts": ["a", "b", "c"]})
    assert answer.status_code == 200
    assert services.asked(STORE).body["embeddings"] == [[0.5, at] for at in order]
    assert answer.json()["metadata"]["usage"] == (usual.get("usage") or usage(7, 2))


@pytest.mark.parametrize(
    "lacking",
    [
        {"usage": None},
        {"usage": {"prompt_tokens": 3, "completion_tokens": None, "total_tokens": 3}},
        {"model": None},
        {"usage": None, "model": None, "id": None, "created": None, "object": None},
        {"choices": [{"message": {"content": "a"}}]},
        {"choices": [{"index": None, "message": {"content": "a"}, "finish_reason": None}]},
        {"choices": [{"message": {"content": [{"type": "text", "text": "a"}]}}]},
    ],
)
@pytest.mark.parametrize("path", ["/chat", "/full-pipeline"])
async def test_a_chat_that_lacks_what_nobody_needs_is_an_answer(
    path: str, lacking: dict[str, Any], gateway: Gateway, services: Services
) -> None:
    whole = {"model": "m", "usage": usage(1), "choices": [{"message": {"content": "a"}}]}
    summed_up = {"X-O11y-Summary": llm_response({}).headers["X-O11y-Summary"]}
    services.answers[CHAT] = Response(200, json=whole | lacking, headers=summed_up)
    body = {"message": "q"} if path == "/chat" else {"query": "q"}
    found = (await gateway.post(path, body)).json()
    if path == "/full-pipeline":
        found = found["results"]["openai_response"]
    assert found["response"] == "a"
    assert found["metadata"]["usage"] == usage(7, 2)


async def test_search_looks_for_the_embedding_of_the_query(
    gateway: Gateway, services: Services
) -> None:
    body = {"query": "sky", "n_results": 2, "filter_metadata": {"topic": "physics"}}
    answer = (await gateway.post("/search", body)).json()
    assert services.asked(EMBED).body["input"] == ["sky"]
    assert services.asked(SEARCH).body == {
        "embedding": [0, 1.0],
        "embedding_model": "embedder",
        "n_results": 2,
        "filter_metadata": {"topic": "physics"},
        "caller_filters": True,
    }
    assert (answer["query"], answer["count"]) == ("sky", 2)
    assert [result["document"] for result in answer["results"]] == list(DOCUMENTS)
    assert set(answer["results"][0]) == {
        *("document", "similarity", "distance", "metadata", "id", "rank")
    }
    assert answer["metadata"]["query_embedding_cost_usd"] == 0.5
    assert answer["metadata"]["search_duration_seconds"] == 0.01
    assert answer["metadata"]["total_duration_seconds"] >= 0


async def test_local_inference_answers_as_the_service_does(
    gateway: Gateway, services: Services
) -> None:
    drawn = {"top_p": 0.9, "top_k": 40, "seed": 7}
    body = {"prompt": "sky", "num_sequences": 2, "max_length": 9, "user_id": "ann", **drawn}
    answer = (await gateway.post("/local-inference", body)).json()
    asked = services.asked(GENERATE).body
    assert asked == {
        "prompt": "sky",
        "max_length": 9,
        "temperature": 0.7,
        "num_sequences": 2,
        "stream": False,
        **drawn,
    }
    assert answer["generated_texts"] == ["It is blue."] * 2
    assert answer["metadata"]["device"] == "cpu"
    assert answer["metadata"]["usage"] == usage(4, 7)
    assert answer["metadata"]["performance"]["tokens_per_second"] == 7.0


async def test_a_call_and_the_calls_behind_it_are_one_trace(gateway: Gateway) -> None:
    response = await gateway.post("/embed", {"texts": ["a"]})
    [server] = gateway.recorded.spans(SpanKind.SERVER)
    clients = gateway.recorded.spans(SpanKind.CLIENT)
    assert [span.parent for span in clients] == [identity(server)] * 2
    assert response.headers["x-trace-id"] == f"{identity(server).trace_id:032x}"


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/chat", {}, "message"),
        ("/chat", {"message": ""}, "message"),
        ("/chat", {"message": "a", "temperature": 3}, "temperature"),
        ("/chat", {"message": "a", "max_tokens": 0}, "max_tokens"),
        ("/chat", {"message": "a", "stream": "perhaps"}, "stream"),
        ("/chat", {"message": "a", "user_id": "é"}, "user_id"),
        ("/chat", {"message": "a", "mesage": "b"}, "mesage"),
        ("/chat", {"message": "a", "model": "m" * 257}, "model"),
        ("/embed", {"texts": ["a"], "model": "m" * 1_000_000}, "model"),
        ("/embed", {"texts": []}, "texts"),
        ("/embed", {"texts": ["a", ""]}, "texts.1"),
        ("/embed", {"texts": "a"}, "texts"),
        ("/embed", {"texts": ["a"], "ids": []}, "body"),
        ("/search", {"query": "a", "n_results": 0}, "n_results"),
        ("/search", {"query": "a", "n_results": 101}, "n_results"),
        ("/local-inference", {"prompt": "a", "max_length": 513}, "max_length"),
        ("/local-inference", {"prompt": "a", "num_sequences": 0}, "num_sequences"),
        ("/local-inference", {}, "prompt"),
        ("/full-pipeline", {}, "query"),
        ("/full-pipeline", {"query": ""}, "query"),
        ("/full-pipeline", {"query": "a", "max_tokens": 0}, "max_tokens"),
        ("/full-pipeline?max_tokens=0&query=a", None, "max_tokens"),
        ("/full-pipeline?query=a&verbose=1", None, "verbose"),
        ("/full-pipeline", {"query": "a", "verbose": True}, "verbose"),
    ],
)
async def test_wrong_input_is_refused_with_the_field_named(
    path: str, body: object, field: str, gateway: Gateway, services: Services
) -> None:
    response = await gateway.post(path, body)
    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == [field]
    assert services.requests == []


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/chat", '{"message": '),
        ("/chat", '{"message": "a", "temperature": NaN}'),
        ("/chat", '{"message": "a", "model": "\\ud800"}'),
        ("/chat", '{"message": "a", "\\ud800": 1}'),
        ("/search", '{"query": "a", "filter_metadata": {"n": NaN}}'),
        ("/search", '{"query": "a", "filter_metadata": {"n": "\\ud800"}}'),
        ("/embed", '{"texts": ["a"], "metadata": [{"n": Infinity}]}'),
        ("/embed", '{"texts": ["a"], "metadata": [{"\\ud800": 1}]}'),
    ],
)
async def test_what_json_cannot_carry_on_is_refused(
    path: str, content: str, gateway: Gateway, services: Services
) -> None:
    headers = {"content-type": "application/json"}
    response = await gateway.client.post(path, content=content, headers=headers)
    assert (response.status_code, services.calls(EMBED)) == (422, [])


CALLS: list[tuple[str, dict[str, Any], str]] = [
    ("/chat", {"message": "a"}, CHAT),
    ("/embed", {"texts": ["a"]}, EMBED),
    ("/embed", {"texts": ["a"]}, STORE),
    ("/search", {"query": "a"}, EMBED),
    ("/search", {"query": "a"}, SEARCH),
    ("/local-inference", {"prompt": "a"}, GENERATE),
]
each_dependency = pytest.mark.parametrize(("path", "body", "call"), CALLS)


@each_dependency
@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (problem(404, "no such model"), 404),
        (problem(422, "too long"), 422),
        (problem(429, "busy", **{"Retry-After": "3"}), 429),
        (problem(503, "loading"), 503),
        (problem(500, "oh"), 502),
        (problem(401, "who?"), 502),
        (httpx2.ConnectError("refused"), 503),
        (httpx2.ReadTimeout("slow"), 504),
    ],
    ids=lambda value: repr(value) if isinstance(value, (Response, Exception)) else "",
)
async def test_a_dependency_that_fails_is_told_by_status_and_words(
    path: str,
    body: dict[str, Any],
    call: str,
    answer: Response | Exception,
    status: int,
    gateway: Gateway,
    services: Services,
) -> None:
    services.answers[call] = answer
    response = await gateway.post(path, body)
    assert response.status_code == status
    if isinstance(answer, Response):
        assert answer.json()["detail"] in response.json()["detail"]
        assert response.headers.get("retry-after") == answer.headers.get("retry-after")


@pytest.mark.parametrize(
    ("path", "body", "call", "field", "named"),
    [
        ("/chat", {"message": "a"}, CHAT, "messages", "message"),
        ("/chat", {"message": "a"}, CHAT, "messages.0.content", "message"),
        ("/chat", {"message": "a"}, CHAT, "prompt", "message"),
        ("/chat", {"message": "a"}, CHAT, "temperature", "temperature"),
        ("/chat", {"message": "a", "stream": True}, CHAT, "messages", "message"),
        ("/embed", {"texts": ["a"]}, EMBED, "input", "texts"),
        ("/embed", {"texts": ["a"]}, EMBED, "input.0", "texts"),
        ("/embed", {"texts": ["a"]}, EMBED, "model", "model"),
        ("/search", {"query": "a"}, EMBED, "input", "query"),
    ],
)
async def test_an_error_names_the_field_this_caller_sent(
    path: str,
    body: dict[str, Any],
    call: str,
    field: str,
    named: str,
    gateway: Gateway,
    services: Services,
) -> None:
    error = {"error": {"message": "too long", "param": field}}
    services.answers[call] = Response(422, json=error)
    response = await gateway.post(path, body)
    assert response.json()["errors"] == [{"field": named, "message": "too long"}]


@pytest.mark.parametrize("code", [429, None, ["busy"], {"a": 1}, ""])
async def test_a_code_that_is_no_word_is_the_statuss(
    code: object, gateway: Gateway, services: Services
) -> None:
    services.answers[CHAT] = Response(429, json={"error": {"message": "busy", "code": code}})
    response = await gateway.post("/chat", {"message": "a"})
    assert response.json()["code"] == "too_many_requests"


GARBAGE = [
    Response(200, content=b"<html>", headers={"content-type": "text/html"}),
    Response(200, json={}),
]


@each_dependency
@pytest.mark.parametrize("answer", GARBAGE, ids=lambda value: value.text or "empty")
async def test_an_answer_that_makes_no_sense_is_a_bad_gateway(
    path: str,
    body: dict[str, Any],
    call: str,
    answer: Response,
    gateway: Gateway,
    services: Services,
) -> None:
    headers = {**answer.headers, "X-O11y-Provider": "openai"}
    services.answers[call] = Response(200, content=answer.content, headers=headers)
    assert (await gateway.post(path, body)).status_code == 502


NAN = packed(1, math.nan)


@pytest.mark.parametrize(
    ("path", "body", "call", "changed"),
    [
        ("/chat", {"message": "a"}, CHAT, {"choices": []}),
        ("/chat", {"message": "a"}, CHAT, {"choices": [{}]}),
        ("/chat", {"message": "a"}, CHAT, {"choices": [{"message": {"content": {"a": 1}}}]}),
        ("/chat", {"message": "a"}, CHAT, {"choices": {"0": {}}}),
        ("/search", {"query": "a"}, EMBED, {"data": []}),
        ("/search", {"query": "a"}, EMBED, {"data": [{"index": 0}]}),
        ("/search", {"query": "a"}, EMBED, {"data": [{"index": 0, "embedding": []}]}),
        ("/search", {"query": "a"}, EMBED, {"data": [{"index": 0, "embedding": "AAA"}]}),
        ("/search", {"query": "a"}, EMBED, {"data": [{"index": 0, "embedding": ["b"]}]}),
        ("/search", {"query": "a"}, EMBED, {"data": [{"index": 0, "embedding": NAN}]}),
        ("/search", {"query": "a"}, EMBED, {"data": [1]}),
        ("/embed", {"texts": ["a", "b"]}, EMBED, {"data": [{"index": 0, "embedding": [1.0]}]}),
    ],
)
async def test_an_answer_of_the_llm_that_lacks_what_was_asked_for_is_a_bad_gateway(
    path: str,
    body: dict[str, Any],
    call: str,
    changed: dict[str, Any],
    gateway: Gateway,
    services: Services,
) -> None:
    whole = {"model": "m", "usage": usage(1), "choices": [{"message": {"content": "a"}}]}
    services.answers[call] = llm_response({**whole, **changed})
    response = await gateway.post(path, body)
    assert (response.status_code, services.calls(EMBED, CHAT)) == (502, [])


async def test_an_answer_without_a_summary_is_a_bad_gateway(
    gateway: Gateway, services: Services
) -> None:
    services.answers[CHAT] = Response(200, json={})
    response = await gateway.post("/chat", {"message": "a"})
    assert (response.status_code, response.json()["code"]) == (502, "bad_upstream")


async def test_an_answer_from_elsewhere_is_a_bad_gateway(
    gateway: Gateway, services: Services
) -> None:
    headers = {"X-O11y-Provider": "openai", "Location": "http://elsewhere.test"}
    services.answers[CHAT] = Response(302, json={}, headers=headers)
    response = await gateway.post("/chat", {"message": "a"})
    assert (response.status_code, services.calls()) == (502, [CHAT])


@pytest.mark.parametrize("stream", [False, True])
async def test_what_the_environment_tells_the_sdk_goes_nowhere(
    stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-secret")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-secret")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer sk-secret\nX-Own: secret")
    gateway = Gateway()
    await gateway.post("/chat", {"message": "a", "stream": stream})
    asked = gateway.services.asked(CHAT)
    await gateway.close()
    assert "authorization" not in asked.headers
    assert "secret" not in str(asked.headers.raw)
