"""The OpenAI API of the proxy: bodies pass as they came, wrong ones are named."""

from collections.abc import Callable

import pytest
from httpx2 import Response

from tests.unit.llm_proxy.upstream import (
    CHAT,
    CHAT_PATH,
    COMPLETION,
    COMPLETION_PATH,
    EMBEDDING,
    EMBEDDING_PATH,
    KEY,
    MODELS,
    Proxy,
)

JSON = {"content-type": "application/json"}

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
    await proxy.client.post(path, json=sent)
    assert proxy.upstream.body == sent
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


async def test_the_local_service_is_asked_once_for_its_models(local: Proxy) -> None:
    await local.chat()
    await local.client.post(EMBEDDING_PATH, json=EMBEDDING)
    asked = [(each.url.path, each.url.host) for each in local.upstream.requests]
    assert asked == [
        ("/v1/models", "inference"),
        (CHAT_PATH, "inference"),
        (EMBEDDING_PATH, "inference"),
    ]
    assert b'"tiny-chat"' in local.upstream.requests[1].content
    assert b'"tiny-embedding"' in local.upstream.requests[2].content


async def test_the_provider_sees_our_key_and_not_the_callers(proxy: Proxy) -> None:
    await proxy.chat(headers={"Authorization": "Bearer sk-of-the-caller"})
    assert proxy.upstream.asked.headers["authorization"] == f"Bearer {KEY}"


async def test_another_base_url_is_used_as_it_is(start: Callable[..., Proxy]) -> None:
    proxy = start(openai_base_url="http://llm.test:8000/api/v1/")
    await proxy.client.post(CHAT_PATH, json={**CHAT, "model": "m"})
    assert str(proxy.upstream.requests[0].url) == "http://llm.test:8000/api/v1/chat/completions"


async def test_the_list_of_models_is_the_providers(proxy: Proxy) -> None:
    response = await proxy.client.get("/v1/models")
    assert response.json() == MODELS
    assert response.headers["x-o11y-provider"] == "openai"


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (CHAT_PATH, '{"model": "m"}', "messages"),
        (CHAT_PATH, '{"messages": []}', "messages"),
        (COMPLETION_PATH, "{}", "prompt"),
        (EMBEDDING_PATH, '{"input": ""}', "input"),
        (CHAT_PATH, '{"messages": [{}], "stream": true}', "stream"),
        (COMPLETION_PATH, '{"prompt": "a", "stream": true}', "stream"),
        (CHAT_PATH, '{"messages": [{}], "model": 7}', "model"),
        (CHAT_PATH, "[]", "body"),
        (CHAT_PATH, '{"messages": ', "body"),
        (CHAT_PATH, "", "body"),
        (CHAT_PATH, '{"messages": [{}], "temperature": NaN}', None),
        (CHAT_PATH, '{"messages": [{}], "max_tokens": Infinity}', None),
        (CHAT_PATH, '{"messages": [{"content": "\\ud800"}]}', None),
        (EMBEDDING_PATH, '{"input": "\\ud800"}', None),
    ],
)
async def test_a_wrong_body_is_refused_with_the_field_named_and_never_sent(
    path: str, body: str, field: str | None, proxy: Proxy
) -> None:
    response = await proxy.client.post(path, content=body, headers=JSON)
    error = response.json()["error"]
    assert (response.status_code, error["type"]) == (422, "invalid_request_error")
    assert field in (None, error["param"])
    assert proxy.upstream.requests == []
