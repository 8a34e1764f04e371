"""What the caller hears when the provider fails: its own words, or ours, and never a secret."""

import asyncio
import json
from collections.abc import Callable

import httpx2
import pytest
from httpx2 import Response

from tests.unit.llm_proxy.upstream import KEY, MODELS, Hang, Proxy, problem
from tests.unit.o11y.recorded import attributes

PATIENCE_SECONDS = 2
"""Longer than any call here may take; only one that hangs reaches it."""

REFUSAL = {"error": {"message": "no such model", "type": "t", "param": "model", "code": "c"}}
CHAT_CALL = "/chat/completions"


async def call(proxy: Proxy, path: str, headers: dict[str, str] | None = None) -> Response:
    if path == CHAT_CALL:
        return await proxy.chat(headers=headers)
    return await proxy.client.get(f"/v1{path}", headers=headers)


@pytest.mark.parametrize("status", [400, 404, 409, 413, 422, 429])
async def test_what_the_caller_did_wrong_passes_in_the_providers_words(
    status: int, proxy: Proxy
) -> None:
    proxy.upstream.answers[CHAT_CALL] = problem(status, REFUSAL, **{"Retry-After": "7"})
    response = await proxy.chat()
    assert (response.status_code, response.json()) == (status, REFUSAL)
    assert response.headers["retry-after"] == "7"
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-o11y-provider"] == "openai"
    assert "x-o11y-cost-usd" not in response.headers


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("path", [CHAT_CALL, "/models"])
async def test_refused_credentials_name_the_variable_and_not_the_key(
    path: str, status: int, proxy: Proxy
) -> None:
    refusal = {"error": {"message": f"Incorrect API key provided: {KEY}"}}
    proxy.upstream.answers[path] = problem(status, refusal)
    response = await call(proxy, path)
    assert response.status_code == 502
    assert "OPENAI_API_KEY" in response.json()["error"]["message"]
    told = response.text + str(response.headers)
    assert KEY not in told
    assert all(
        KEY not in f"{attributes(span)}{span.status.description}{span.events}"
        for span in proxy.recorded.spans()
    )


@pytest.mark.parametrize("status", [301, 302, 307, 500, 502, 503, 529])
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


async def test_nothing_is_sent_when_no_time_is_left(proxy: Proxy) -> None:
    response = await proxy.chat(headers={"X-Request-Timeout": "0"})
    assert (response.status_code, proxy.upstream.requests) == (504, [])


async def test_a_busy_provider_is_not_waited_for_beyond_the_deadline(proxy: Proxy) -> None:
    busy = Response(429, json=REFUSAL, headers={"Retry-After": "20"})
    proxy.upstream.answers[CHAT_CALL] = busy
    response = await proxy.chat(headers={"X-Request-Timeout": "1"})
    assert (response.status_code, response.headers.get("retry-after")) == (429, "20")


@pytest.mark.parametrize("path", [CHAT_CALL, "/models"])
@pytest.mark.parametrize(
    "error",
    [
        httpx2.ConnectError("refused"),
        httpx2.ConnectTimeout("no route"),
        httpx2.RemoteProtocolError("no HTTP"),
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


# The local service


@pytest.mark.parametrize("status", [422, 429, 503, 504])
async def test_what_the_local_service_says_of_itself_passes(status: int, local: Proxy) -> None:
    local.upstream.answers[CHAT_CALL] = problem(status, REFUSAL)
    response = await local.chat()
    assert (response.status_code, response.json()) == (status, REFUSAL)


@pytest.mark.parametrize("status", [500, 502])
async def test_a_local_service_that_fails_is_a_bad_gateway(status: int, local: Proxy) -> None:
    local.upstream.answers[CHAT_CALL] = problem(status, REFUSAL)
    response = await local.chat()
    assert (response.status_code, response.json()["error"]["code"]) == (502, "provider_error")


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
    assert chat.status_code in (502, 503)


async def test_the_proxy_is_ready_once_the_local_service_is(local: Proxy) -> None:
    local.upstream.answers["/models"] = httpx2.ConnectError("refused")
    assert (await local.client.get("/readyz")).status_code == 503
    local.upstream.answers["/models"] = Response(200, content=json.dumps(MODELS))
    assert (await local.client.get("/readyz")).status_code == 200
    assert (await local.client.get("/health")).json() == {
        "status": "available",
        "provider": "o11y-local",
        "model": "tiny-chat",
        "embedding_model": "tiny-embedding",
    }


async def test_with_a_key_the_proxy_is_ready_without_asking_anybody(proxy: Proxy) -> None:
    assert (await proxy.client.get("/readyz")).status_code == 200
    assert (await proxy.client.get("/health")).json() == {
        "status": "available",
        "provider": "openai",
        "model": "gpt-4o-mini",
        "embedding_model": "text-embedding-3-small",
    }
    assert proxy.upstream.requests == []
