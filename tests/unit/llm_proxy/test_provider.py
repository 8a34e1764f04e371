"""What the caller hears when a provider fails: its own words, or ours, and never a secret."""

import asyncio
import gzip
import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from httpx2 import Response
from opentelemetry.trace import SpanKind

from llm_proxy.settings import LOCAL
from o11y.telemetry import schema
from tests.support.near import Streamed
from tests.support.recorded import attributes
from tests.support.upstream import (
    CHAT,
    CHAT_ANSWER,
    CHAT_CALL,
    CHAT_PATH,
    EMBEDDING,
    EMBEDDING_PATH,
    INFERENCE,
    KEY,
    MODELS,
    Hang,
    Proxy,
    problem,
)

PATIENCE_SECONDS = 2
"""Longer than any call here may take; only one that hangs reaches it."""

REFUSAL = {"error": {"message": "no such model", "type": "t", "param": "model", "code": "c"}}


async def call(proxy: Proxy, path: str, headers: dict[str, str] | None = None) -> Response:
    if path == CHAT_CALL:
        return await proxy.chat(headers=headers)
    return await proxy.client.get(f"/v1{path}", headers=headers)


@pytest.mark.parametrize("status", [400, 404, 409, 413, 422, 429])
async def test_what_the_caller_did_wrong_passes_in_the_providers_words(
    status: int, proxy: Proxy
) -> None:
    refusal = problem(status, REFUSAL, **{"Retry-After": "7", "Set-Cookie": "a=b"})
    proxy.upstream.answers[CHAT_CALL] = refusal
    response = await proxy.chat()
    assert (response.status_code, response.json()) == (status, REFUSAL)
    assert response.headers["retry-after"] == "7"
    assert response.headers["content-type"] == "application/json"
    assert not {"x-o11y-cost-usd", "set-cookie"} & set(response.headers)


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("path", [CHAT_CALL, "/models"])
async def test_refused_credentials_are_ours_and_the_key_is_not_told(
    path: str, status: int, proxy: Proxy
) -> None:
    refusal = {"error": {"message": f"Incorrect API key provided: {KEY}"}}
    proxy.upstream.answers[path] = problem(status, refusal)
    response = await call(proxy, path)
    assert response.status_code == 502
    assert "API key" in response.json()["error"]["message"]
    told = response.text + str(response.headers)
    assert KEY not in told
    assert all(
        KEY not in f"{attributes(span)}{span.status.description}{span.events}"
        for span in proxy.recorded.spans()
    )


@pytest.mark.parametrize("status", [301, 302, 307, 500, 502, 529])
async def test_a_provider_that_fails_is_a_bad_gateway(status: int, proxy: Proxy) -> None:
    proxy.upstream.answers[CHAT_CALL] = problem(status, {}, location="http://elsewhere.test")
    response = await proxy.chat()
    assert response.status_code == 502
    assert str(status) in response.json()["error"]["message"]


@pytest.mark.parametrize("content", [b"", b"<html>", b'{"id": ', b"[]", b"null", b"\xff"], ids=repr)
async def test_an_answer_that_is_no_json_object_is_a_bad_gateway(
    content: bytes, proxy: Proxy
) -> None:
    proxy.upstream.answers[CHAT_CALL] = Response(200, content=content)
    response = await proxy.chat()
    assert (response.status_code, response.json()["error"]["code"]) == (502, "bad_upstream")


@pytest.mark.parametrize("path", [CHAT_CALL, "/models"])
async def test_a_provider_that_hangs_is_out_of_time_when_the_deadline_is(
    path: str, proxy: Proxy
) -> None:
    proxy.upstream.answers[path] = Hang()
    async with asyncio.timeout(PATIENCE_SECONDS):
        response = await call(proxy, path, {"X-Request-Timeout": "0.05"})
    assert (response.status_code, response.json()["error"]["code"]) == (504, "out_of_time")


@pytest.mark.parametrize("path", [CHAT_CALL, "/models"])
@pytest.mark.parametrize(
    "error",
    [
        httpx2.ConnectError("refused"),
        httpx2.ConnectTimeout("no route"),
        httpx2.ReadError("reset"),
    ],
    ids=repr,
)
async def test_a_provider_that_is_not_there_is_unavailable(
    error: Exception, path: str, proxy: Proxy
) -> None:
    proxy.upstream.answers[path] = error
    response = await call(proxy, path)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "unavailable")
    assert response.headers["retry-after"] == "1"


async def test_the_credentials_of_a_base_url_are_not_told(start: Callable[..., Proxy]) -> None:
    proxy = start(openai_base_url="http://user:hunter2@llm.test/v1")
    proxy.upstream.answers[CHAT_CALL] = httpx2.ConnectError("refused")
    response = await proxy.chat()
    assert response.status_code == 503
    assert "hunter2" not in response.text
    assert all("hunter2" not in str(attributes(span)) for span in proxy.recorded.spans())


# How it is asked


AZURE = {
    "name": "azure",
    "base_url": "https://x.openai.azure.test/openai/v1/",
    "api_key": KEY,
    "api_key_header": "Api-Key",
    "headers": {"X-Team": "search"},
    "query": {"api-version": "2026-01-01"},
}


async def test_a_provider_may_want_its_key_elsewhere(start: Callable[..., Proxy]) -> None:
    proxy = start(llm_providers=[AZURE])
    await proxy.client.post(CHAT_PATH, json={**CHAT, "model": "m"})
    [request] = proxy.upstream.requests
    assert str(request.url) == (
        "https://x.openai.azure.test/openai/v1/chat/completions?api-version=2026-01-01"
    )
    assert (request.headers["api-key"], request.headers["x-team"]) == (KEY, "search")
    assert "authorization" not in request.headers


@pytest.mark.parametrize(
    ("key", "sent"), [(None, "Basic dXNlcjpodW50ZXIy"), (KEY, f"Bearer {KEY}")]
)
async def test_credentials_in_a_base_url_are_used_unless_there_is_a_key(
    key: str | None, sent: str, start: Callable[..., Proxy]
) -> None:
    provider = {"name": "a", "base_url": "http://user:hunter2@llm.test/v1", "api_key": key}
    proxy = start(llm_providers=[provider])
    await proxy.client.post(CHAT_PATH, json={**CHAT, "model": "m"})
    assert proxy.upstream.asked.headers["authorization"] == sent
    assert proxy.upstream.asked.url.userinfo == b""


async def test_a_packed_answer_of_a_provider_is_unpacked(proxy: Proxy) -> None:
    packed = gzip.compress(json.dumps(CHAT_ANSWER).encode())
    headers = {"content-encoding": "gzip", "content-type": "application/json"}
    proxy.upstream.answers[CHAT_CALL] = Streamed(packed, headers=headers)
    response = await proxy.chat()
    assert response.json() == CHAT_ANSWER
    assert "content-encoding" not in response.headers
    assert "gzip" in proxy.upstream.asked.headers["accept-encoding"]


async def test_the_provider_sees_our_key_and_not_the_callers(proxy: Proxy) -> None:
    caller = {"Authorization": "Bearer sk-of-the-caller", "Cookie": "a=b"}
    await proxy.chat(headers=caller)
    headers = proxy.upstream.asked.headers
    assert headers["authorization"] == f"Bearer {KEY}"
    assert "cookie" not in headers


@pytest.mark.parametrize(
    "url", ["http://llm.test:8000/api/v1", "http://llm.test:8000", "http://llm.test:8000/a%20b"]
)
@pytest.mark.parametrize("slash", ["", "/"])
async def test_another_base_url_is_used_as_it_is(
    url: str, slash: str, start: Callable[..., Proxy]
) -> None:
    proxy = start(openai_base_url=url + slash)
    proxy.upstream.usual = Response(200, json={})
    await proxy.client.post(CHAT_PATH, json={**CHAT, "model": "m"})
    assert str(proxy.upstream.requests[0].url) == f"{url}/chat/completions"


# The local service


@pytest.mark.parametrize(
    ("provider", "is_told"),
    [
        ({"name": LOCAL}, True),
        ({"name": LOCAL, "base_url": "http://somebody.test/v1"}, False),
        ({"name": "a", "base_url": f"{INFERENCE}/v1"}, False),
    ],
)
async def test_the_token_goes_to_the_service_of_this_installation_alone(
    provider: dict[str, str], is_told: bool, start: Callable[..., Proxy]
) -> None:
    token = "the-token-of-this-test"
    proxy = start(
        llm_providers=[{**provider, "chat_model": "m", "embedding_model": "m"}],
        inference_url=INFERENCE,
        internal_token=token,
    )
    await proxy.client.post(CHAT_PATH, json=CHAT, headers={"X-Internal-Token": token})
    assert proxy.upstream.asked.headers.get("x-internal-token") == (token if is_told else None)


async def test_the_local_service_is_asked_once_for_its_models(local: Proxy) -> None:
    await local.chat()
    await local.client.post(EMBEDDING_PATH, json=EMBEDDING)
    asked = [(each.url.path, each.url.host) for each in local.upstream.requests]
    assert asked == [
        ("/v1/models", "inference"),
        (CHAT_PATH, "inference"),
        (EMBEDDING_PATH, "inference"),
    ]
    models = [json.loads(each.content)["model"] for each in local.upstream.calls]
    assert models == ["tiny-chat", "tiny-embedding"]


async def test_the_span_names_the_replica_that_answered(
    start: Callable[..., Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def replicas(host: str, port: int) -> list[str]:
        return ["10.0.0.1", "10.0.0.2"]

    monkeypatch.setattr("llm_proxy.provider.as_is", replicas)
    local = start(inference_url="http://127.0.0.1:8083")
    local.upstream.answers[f"10.0.0.2{CHAT_CALL}"] = httpx2.ConnectError("refused")
    for _ in range(3):
        assert (await local.chat()).status_code == 200
    assert local.upstream.hosts == ["10.0.0.2", *["10.0.0.1"] * 3]
    assert {each.headers["host"] for each in local.upstream.calls} == {"127.0.0.1:8083"}
    spans = [span for span in local.recorded.spans() if span.name == "POST /v1/chat/completions"]
    told = [attributes(span) for span in spans if span.kind is SpanKind.CLIENT]
    assert [each[schema.SERVER_ADDRESS] for each in told] == ["10.0.0.2", *["10.0.0.1"] * 3]
    assert [each.get(schema.HTTP_RESEND_COUNT) for each in told] == [None, 1, None, None]
    assert [each[schema.LLM_ATTEMPT] for each in told] == [1, 1, 1, 1]
    labels = [
        point.labels for point in local.recorded.points(schema.GEN_AI_INFERENCE_DURATION.name)
    ]
    assert [each[schema.SERVER_ADDRESS] for each in labels] == ["127.0.0.1"]


@pytest.mark.parametrize("status", [422, 429])
async def test_what_the_local_service_says_of_a_call_passes(status: int, local: Proxy) -> None:
    local.upstream.answers[CHAT_CALL] = problem(status, REFUSAL)
    response = await local.chat()
    assert (response.status_code, response.json()) == (status, REFUSAL)


@pytest.mark.parametrize(("status", "told"), [(500, 502), (502, 502), (503, 503), (504, 504)])
async def test_a_local_service_that_fails_is_told_by_its_status(
    status: int, told: int, local: Proxy
) -> None:
    local.upstream.answers[CHAT_CALL] = problem(status, REFUSAL)
    response = await local.chat()
    assert (response.status_code, response.json()["error"]["code"]) == (told, "provider_error")


NO_MODELS = [
    httpx2.ConnectError("refused"),
    problem(503, {"detail": "loading"}),
    problem(500, {}),
    Response(200, json={"object": "list", "data": []}),
    Response(200, json={}),
    Response(200, content=b"<html>", headers={"content-type": "text/html"}),
    Response(200, content=b"{", headers={"content-type": "application/json"}),
]


def shown(answer: Response | Exception) -> str:
    return repr(answer) + (answer.text if isinstance(answer, Response) else "")


@pytest.mark.parametrize("answer", NO_MODELS, ids=shown)
async def test_without_the_local_services_models_the_proxy_is_not_ready_and_says_so(
    answer: Response | Exception, local: Proxy
) -> None:
    local.upstream.answers["/models"] = answer
    ready = await local.client.get("/readyz")
    health = await local.client.get("/health")
    chat = await local.chat()
    assert (ready.status_code, health.status_code) == (503, 200)
    assert health.json()["status"] == "unavailable"
    assert health.json()["reason"] == ready.json()["detail"]
    assert chat.status_code == 503


async def test_the_proxy_is_ready_once_the_local_service_is(local: Proxy) -> None:
    local.upstream.answers["/models"] = httpx2.ConnectError("refused")
    assert (await local.client.get("/readyz")).status_code == 503
    local.upstream.answers["/models"] = Response(200, content=json.dumps(MODELS))
    assert (await local.client.get("/readyz")).status_code == 200
    health: dict[str, Any] = (await local.client.get("/health")).json()
    assert (health["status"], health["provider"]) == ("available", "o11y-local")
    assert (health["model"], health["embedding_model"]) == ("tiny-chat", "tiny-embedding")


async def test_with_a_key_the_proxy_is_ready_without_asking_anybody(proxy: Proxy) -> None:
    assert (await proxy.client.get("/readyz")).status_code == 200
    health = (await proxy.client.get("/health")).json()
    assert (health["status"], health["model"]) == ("available", "gpt-4o-mini")
    assert proxy.upstream.requests == []
