"""OpenAI's API at the gateway: to llm-proxy and back as it came."""

import httpx2
import pytest
from httpx2 import Response

from tests.support.gateway_services import CHAT, LLM, Gateway, Services

BODY = b'{ "messages":[{"role": "user", "content": "\xc3\xa9"}], "nobody_knows": 1.50 }'
REFUSAL = b'{"error": {"message": "no such model", "code": "model_not_found"}}'


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("POST", "/v1/embeddings"),
        ("GET", "/v1/models"),
    ],
)
async def test_each_call_goes_to_the_same_path(
    method: str, path: str, gateway: Gateway, services: Services
) -> None:
    body = {"input": ["a"]} if method == "POST" else None
    response = await gateway.client.request(method, path, json=body)
    assert response.status_code == 200
    assert services.calls() == [f"{LLM}{path}"]
    assert services.requests[0].body == body


async def test_the_body_is_untouched_in_both_directions(
    gateway: Gateway, services: Services
) -> None:
    services.answers[CHAT] = Response(200, content=BODY)
    response = await gateway.client.post("/v1/chat/completions", content=BODY)
    assert services.asked(CHAT).content == BODY
    assert response.content == BODY


@pytest.mark.parametrize(
    ("status", "content"), [(200, b"{}"), (404, REFUSAL), (429, REFUSAL), (502, REFUSAL)]
)
async def test_status_body_and_the_headers_for_the_caller_are_kept(
    status: int, content: bytes, gateway: Gateway, services: Services
) -> None:
    kept = {
        "content-type": "application/json; charset=utf-8",
        "retry-after": "7",
        "x-o11y-provider": "openai",
        "x-o11y-cost-usd": "0.000000020000",
    }
    hop = {"server": "someone", "set-cookie": "a=b", "x-trace-id": "of another"}
    services.answers[CHAT] = Response(status, content=content, headers={**kept, **hop})
    response = await gateway.post("/v1/chat/completions", {"messages": []})
    assert (response.status_code, response.content) == (status, content)
    assert {key: response.headers[key] for key in kept} == kept
    assert not {"server", "set-cookie"} & set(response.headers)
    assert response.headers["x-trace-id"] != "of another"


@pytest.mark.parametrize(
    ("error", "status"), [(httpx2.ConnectError("refused"), 503), (httpx2.ReadTimeout("slow"), 504)]
)
async def test_a_proxy_that_does_not_answer_is_told_in_openais_words(
    error: Exception, status: int, gateway: Gateway, services: Services
) -> None:
    services.answers[LLM] = error
    response = await gateway.post("/v1/chat/completions", {"messages": []})
    assert response.status_code == status
    assert response.json()["error"]["type"] == "server_error"


async def test_who_asks_is_told_by_the_headers(gateway: Gateway, services: Services) -> None:
    headers = {"X-User-Id": "ann", "X-Session-Id": "s1", "baggage": "user.id=mallory"}
    await gateway.post("/v1/chat/completions", {"messages": []}, headers)
    assert services.asked(CHAT).who == {"user.id": "ann", "session.id": "s1"}
