"""The OpenAI API of the proxy: bodies pass as they came, wrong ones are named."""

import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from httpx2 import Response

from llm_proxy.settings import LOCAL
from o11y.contracts import SUMMARY_FIELD
from tests.support.near import Streamed
from tests.support.upstream import (
    CHAT,
    CHAT_ANSWER,
    CHAT_CALL,
    CHAT_PATH,
    COMPLETION,
    COMPLETION_PATH,
    DONE,
    EMBEDDING,
    EMBEDDING_PATH,
    KEY,
    MODEL,
    MODELS,
    STREAM,
    USAGE_EVENT,
    Proxy,
    failing,
    problem,
    said,
)

JSON = {"content-type": "application/json"}
AWAY = httpx2.ConnectError("refused")

each_call = pytest.mark.parametrize(
    ("path", "body"),
    [(CHAT_PATH, CHAT), (COMPLETION_PATH, COMPLETION), (EMBEDDING_PATH, EMBEDDING)],
    ids=["chat", "completion", "embedding"],
)


@each_call
async def test_a_body_reaches_the_provider_as_it_came(
    path: str, body: dict[str, object], proxy: Proxy
) -> None:
    sent = {**body, "model": "some-model", "user": "é", "nobody_knows": [{"a": None}, 1.5, True]}
    content = json.dumps(sent, indent=1).encode()
    await proxy.client.post(path, content=content, headers=JSON)
    assert proxy.upstream.asked.content == content
    assert str(proxy.upstream.asked.url) == f"https://api.openai.com{path}"


@each_call
async def test_an_answer_reaches_the_caller_byte_by_byte(
    path: str, body: dict[str, object], proxy: Proxy
) -> None:
    content = '{ "model" : "m",\n "nobody_knows":[1.50, "é"] }'.encode()
    proxy.upstream.answers[path.removeprefix("/v1")] = Response(200, content=content)
    response = await proxy.client.post(path, json=body)
    assert response.content == content
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-o11y-provider"] == "openai"


@pytest.mark.parametrize(
    ("settings", "path", "body", "model"),
    [
        ({}, CHAT_PATH, CHAT, "gpt-4o-mini"),
        ({}, COMPLETION_PATH, COMPLETION, "gpt-4o-mini"),
        ({}, EMBEDDING_PATH, EMBEDDING, "text-embedding-3-small"),
        ({}, CHAT_PATH, {**CHAT, "model": None}, "gpt-4o-mini"),
        ({}, CHAT_PATH, {**CHAT, "model": "o1"}, "o1"),
        ({"openai_model": "m"}, CHAT_PATH, CHAT, "m"),
        ({"openai_embedding_model": "e"}, EMBEDDING_PATH, EMBEDDING, "e"),
    ],
)
async def test_who_names_no_model_gets_the_default(
    settings: dict[str, object],
    path: str,
    body: dict[str, object],
    model: str,
    start: Callable[..., Proxy],
) -> None:
    proxy = start(openai_api_key=KEY, **settings)
    await proxy.client.post(path, json=body)
    assert proxy.upstream.body["model"] == model


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (CHAT_PATH, b'{"model": "m"}', "messages"),
        (COMPLETION_PATH, b"{}", "prompt"),
        (EMBEDDING_PATH, b'{"input": ""}', "input"),
        (CHAT_PATH, b'{"messages": [{}], "model": 7}', "model"),
        (CHAT_PATH, b"", "body"),
        (EMBEDDING_PATH, b'{"input": "\\ud800"}', "body"),
        (CHAT_PATH, b'{"messages": [{}], "\xff": 1}', "body"),
    ],
)
async def test_a_wrong_body_is_refused_with_the_field_named_and_never_sent(
    path: str, body: bytes, field: str, proxy: Proxy
) -> None:
    response = await proxy.client.post(path, content=body, headers=JSON)
    error = response.json()["error"]
    assert (response.status_code, error["type"]) == (422, "invalid_request_error")
    assert (error["param"], proxy.upstream.requests) == (field, [])


# Streams


async def test_a_stream_comes_as_the_provider_sends_it(proxy: Proxy) -> None:
    response = await proxy.chat({**CHAT, "stream": True})
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-o11y-provider"] == "openai"
    assert response.content == b"".join(each for each in STREAM if each is not USAGE_EVENT)


async def test_a_completion_streams_too(proxy: Proxy) -> None:
    pieces = (b'data: {"choices": [{"text": "a", "finish_reason": "stop"}]}\n\n', DONE)
    proxy.upstream.answers["/completions"] = Streamed(*pieces)
    response = await proxy.client.post(COMPLETION_PATH, json={**COMPLETION, "stream": True})
    assert response.content == b"".join(pieces)


SUMMARY = {"X-O11y-Stream-Summary": "1"}
STREAMED = {**CHAT, "stream": True}


def summary(event: bytes) -> dict[str, Any]:
    """What a chunk says that sums a stream up."""
    chunk: dict[str, Any] = json.loads(event.removeprefix(b"data: "))
    assert (chunk["object"], chunk["choices"]) == ("chat.completion.chunk", [])
    found: dict[str, Any] = chunk[SUMMARY_FIELD]
    assert chunk["usage"] == found["usage"]
    return found


async def test_who_asks_for_it_is_told_before_the_end_what_the_stream_cost(proxy: Proxy) -> None:
    response = await proxy.chat(STREAMED, SUMMARY)
    *before, told, done = response.content.split(b"\n\n")[:-1]
    assert before == (await proxy.chat(STREAMED)).content.split(b"\n\n")[:-2]
    assert done + b"\n\n" == DONE
    assert summary(told) == {
        "model": MODEL,
        "provider": "openai",
        "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
        "usage_estimated": False,
        "cost_usd": pytest.approx(0.00018),
        "finish_reason": "stop",
    }


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, {}),
        (
            {"usage": None, "model": None},
            {
                "model": "gpt-4o-mini",
                "usage": {"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 10},
                "usage_estimated": True,
                "cost_usd": pytest.approx(0.0000024),
            },
        ),
        ({"model": "modèle"}, {"model": "modèle", "cost_usd": None}),
    ],
)
async def test_a_whole_answer_is_summed_up_in_a_header(
    changed: dict[str, Any], told: dict[str, Any], proxy: Proxy
) -> None:
    proxy.upstream.answers[CHAT_CALL] = Response(200, json=CHAT_ANSWER | changed)
    response = await proxy.chat(CHAT, SUMMARY)
    assert json.loads(response.headers["x-o11y-summary"]) == {
        "model": MODEL,
        "provider": "openai",
        "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
        "usage_estimated": False,
        "cost_usd": pytest.approx(0.00018),
        "finish_reason": "stop",
        **told,
    }
    assert "x-o11y-summary" not in (await proxy.chat(CHAT)).headers


async def test_the_summary_knows_of_the_usage_that_comes_after_done(proxy: Proxy) -> None:
    proxy.upstream.answers[CHAT_CALL] = Streamed(said("a", finish="stop"), DONE, USAGE_EVENT)
    response = await proxy.chat(STREAMED, SUMMARY)
    *_, told, done = response.content.split(b"\n\n")[:-1]
    assert summary(told)["usage"]["total_tokens"] == 1100
    assert done + b"\n\n" == DONE


async def test_a_stream_without_done_ends_with_the_summary(proxy: Proxy) -> None:
    proxy.upstream.answers[CHAT_CALL] = Streamed(said("a"), said(finish="stop"), USAGE_EVENT)
    response = await proxy.chat(STREAMED, SUMMARY)
    *before, told = response.content.split(b"\n\n")[:-1]
    assert len(before) == 2
    assert summary(told)["usage"]["total_tokens"] == 1100


async def test_the_summary_of_a_stream_that_ended_early_is_an_estimate(proxy: Proxy) -> None:
    proxy.upstream.answers[CHAT_CALL] = Streamed(said("a" * 40))
    response = await proxy.chat(STREAMED, SUMMARY)
    *_, error, told = response.content.split(b"\n\n")[:-1]
    assert b'"error"' in error
    found = summary(told)
    assert (found["usage_estimated"], found["finish_reason"]) == (True, None)
    assert found["usage"]["completion_tokens"] == 10


@pytest.mark.parametrize("status", [400, 429, 500])
async def test_a_stream_that_never_began_is_an_error_like_any_other(
    status: int, start: Callable[..., Proxy]
) -> None:
    proxy = start(llm_providers=[{"name": "a", "base_url": "http://a.test", "retries": 0}])
    proxy.upstream.answers[CHAT_CALL] = failing(status)
    response = await proxy.chat({**CHAT, "model": "m", "stream": True})
    assert response.status_code == (status if status < 500 else 502)
    assert response.headers["content-type"] == "application/json"
    assert "message" in response.json()["error"]


# Models and health


async def test_the_list_of_models_is_the_providers(proxy: Proxy) -> None:
    response = await proxy.client.get("/v1/models")
    assert response.json() == MODELS
    assert response.headers["x-o11y-provider"] == "openai"


def listing(*ids: str) -> Response:
    return Response(200, json={"object": "list", "data": [{"id": each, "x": 1} for each in ids]})


@pytest.mark.parametrize(
    ("b", "ids"),
    [
        (listing("m2", "m3"), ["m1", "m2", "m3"]),
        (AWAY, ["m1"]),
        (failing(401), ["m1"]),
        (Response(200, json={}), ["m1"]),
        (Response(200, json={"data": [{"name": "m2"}, None, 7, {"id": 7}]}), ["m1"]),
    ],
    ids=repr,
)
async def test_the_models_of_several_providers_are_one_list_of_those_that_answer(
    b: Response | Exception, ids: list[str], start: Callable[..., Proxy]
) -> None:
    urls = [{"name": name, "base_url": f"http://{name}.test"} for name in "ab"]
    proxy = start(llm_providers=urls)
    proxy.upstream.answers = {"a.test/models": listing("m1"), "b.test/models": b}
    response = await proxy.client.get("/v1/models")
    assert response.json()["object"] == "list"
    assert response.json()["data"] == [{"id": each, "x": 1} for each in ids]


@pytest.mark.parametrize("odd", [{"name": "m"}, None, 7, {"id": None}])
async def test_a_model_is_found_beside_rows_without_a_name(odd: object, proxy: Proxy) -> None:
    row = {"id": "m1", "x": 1}
    proxy.upstream.answers["/models"] = Response(200, json={"data": [odd, row]})
    assert (await proxy.client.get("/v1/models/m1")).json() == row
    missing = await proxy.client.get("/v1/models/" + "m" * 10_000)
    assert missing.status_code == 404
    assert len(missing.content) < 1000


async def test_health_tells_of_every_provider(start: Callable[..., Proxy]) -> None:
    proxy = start(
        llm_providers=[
            {
                "name": "a",
                "base_url": "http://a.test",
                "chat_model": "m",
                "retries": 0,
                "breaker_failures": 1,
            },
            {"name": LOCAL},
        ]
    )
    proxy.upstream.answers[f"a.test{CHAT_CALL}"] = AWAY
    await proxy.chat()
    assert (await proxy.client.get("/health")).json() == {
        "status": "available",
        "provider": "a",
        "model": "m",
        "embedding_model": None,
        "providers": [
            {"name": "a", "circuit": "open"},
            {"name": LOCAL, "circuit": "closed"},
        ],
    }


async def test_the_providers_limits_and_its_id_for_support_reach_the_caller(proxy: Proxy) -> None:
    told = {"x-request-id": "req_1", "x-ratelimit-remaining-tokens": "7", "openai-version": "1"}
    theirs = {"set-cookie": "a=b", "server": "someone", "x-o11y-provider": "mallory"}
    proxy.upstream.answers["/chat/completions"] = Response(
        200, json=CHAT_ANSWER, headers={**told, **theirs}
    )
    headers = (await proxy.chat()).headers
    assert {name: headers[name] for name in told} == told
    assert headers["x-o11y-provider"] == "openai"
    assert not {"set-cookie", "server"} & set(headers)


async def test_a_refusal_says_who_refused(proxy: Proxy) -> None:
    proxy.upstream.answers["/chat/completions"] = problem(404, {"error": {"message": "no"}})
    assert (await proxy.chat()).headers["x-o11y-provider"] == "openai"
