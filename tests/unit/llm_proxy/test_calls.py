"""What telemetry tells of a call: one GenAI span, whose child the provider is, and its counts."""

from typing import Any

import pytest
from httpx2 import Response
from opentelemetry import baggage, propagate
from opentelemetry.trace import SpanKind, StatusCode

from o11y import schema
from o11y.schema import Metric
from tests.unit.llm_proxy.upstream import (
    CHAT,
    CHAT_ANSWER,
    CHAT_PATH,
    COMPLETION,
    COMPLETION_PATH,
    EMBEDDING,
    EMBEDDING_PATH,
    Proxy,
    problem,
)
from tests.unit.o11y.recorded import attributes, identity, traceparent

WHO = {"baggage": "user.id=ann,session.id=s1"}


async def test_the_provider_is_a_child_of_the_genai_span(proxy: Proxy) -> None:
    incoming = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await proxy.chat(headers={"traceparent": incoming})
    own = identity(proxy.recorded.span("chat gpt-4o-mini"))
    assert traceparent(proxy.upstream.asked.headers) == (own.trace_id, own.span_id)
    assert f"{own.trace_id:032x}" in incoming


async def test_a_call_is_a_server_span_and_one_client_span_below(proxy: Proxy) -> None:
    await proxy.chat()
    client, server = proxy.recorded.spans()
    assert (client.kind, server.kind) == (SpanKind.CLIENT, SpanKind.SERVER)
    assert client.parent == identity(server)


async def test_who_asks_stays_in_the_house(proxy: Proxy) -> None:
    await proxy.chat(headers=WHO)
    assert "baggage" not in proxy.upstream.asked.headers
    assert attributes(proxy.recorded.span("chat gpt-4o-mini"))[schema.USER_ID] == "ann"


async def test_the_local_service_is_in_the_house(local: Proxy) -> None:
    await local.chat(headers={**WHO, "X-Request-Timeout": "5"})
    headers = local.upstream.asked.headers
    assert dict(baggage.get_all(propagate.extract(headers))) == {
        "user.id": "ann",
        "session.id": "s1",
    }
    assert 4 < float(headers["x-request-timeout"]) <= 5


CHAT_SPAN = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o-mini",
    "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
    "gen_ai.response.id": "chatcmpl-1",
    "gen_ai.response.finish_reasons": ("stop",),
    "gen_ai.usage.input_tokens": 1000,
    "gen_ai.usage.output_tokens": 100,
    "llm.usage.prompt_tokens": 1000,
    "llm.usage.completion_tokens": 100,
    "server.address": "api.openai.com",
    "server.port": 443,
}


@pytest.mark.parametrize(
    ("path", "body", "name", "expected"),
    [
        (CHAT_PATH, CHAT, "chat gpt-4o-mini", CHAT_SPAN),
        (
            CHAT_PATH,
            {**CHAT, "temperature": 0.5, "max_tokens": 7},
            "chat gpt-4o-mini",
            {"gen_ai.request.temperature": 0.5, "gen_ai.request.max_tokens": 7},
        ),
        (
            CHAT_PATH,
            {**CHAT, "max_completion_tokens": 9, "max_tokens": 7},
            "chat gpt-4o-mini",
            {"gen_ai.request.max_tokens": 9},
        ),
        (
            COMPLETION_PATH,
            COMPLETION,
            "text_completion gpt-4o-mini",
            {
                "gen_ai.operation.name": "text_completion",
                "gen_ai.response.model": "gpt-3.5-turbo-instruct",
                "gen_ai.response.finish_reasons": ("length",),
            },
        ),
        (
            EMBEDDING_PATH,
            EMBEDDING,
            "embeddings text-embedding-3-small",
            {
                "gen_ai.operation.name": "embeddings",
                "gen_ai.request.model": "text-embedding-3-small",
                "gen_ai.usage.input_tokens": 8,
                "llm.usage.prompt_tokens": 8,
            },
        ),
    ],
)
async def test_the_span_tells_what_was_asked_and_what_it_took(
    path: str, body: dict[str, Any], name: str, expected: dict[str, object], proxy: Proxy
) -> None:
    await proxy.client.post(path, json=body)
    span = proxy.recorded.span(name)
    found = attributes(span)
    assert {key: found.get(key) for key in expected} == expected
    assert span.status.status_code is StatusCode.UNSET


async def test_what_people_wrote_is_not_on_the_span(proxy: Proxy) -> None:
    words = "hunter2 in a prompt"
    await proxy.chat({"messages": [{"role": "user", "content": words}]})
    assert all(words not in str(attributes(span)) for span in proxy.recorded.spans())


@pytest.mark.parametrize(
    ("metric", "labels", "value"),
    [
        (schema.OPENAI_API_DURATION, {"operation": "chat", "status": "ok"}, 1),
        (schema.OPENAI_TOKENS, {"type": "input"}, 1000),
        (schema.OPENAI_TOKENS, {"type": "output"}, 100),
    ],
)
async def test_a_call_is_counted(
    metric: Metric, labels: dict[str, object], value: float, proxy: Proxy
) -> None:
    await proxy.chat()
    labels = {"provider": "openai", "model": "gpt-4o-mini", **labels}
    assert (labels, value) in proxy.recorded.points(metric.name)
    assert set(labels) <= set(metric.labels)


async def test_the_conventions_own_metrics_are_there_too(proxy: Proxy) -> None:
    await proxy.chat()
    [duration] = proxy.recorded.points("gen_ai.client.operation.duration")
    assert duration.value == 1
    tokens = proxy.recorded.points("gen_ai.client.token.usage")
    assert {point.labels["gen_ai.token.type"] for point in tokens} == {"input", "output"}


@pytest.mark.parametrize("status", [400, 401, 500])
async def test_a_failed_call_is_an_error_on_its_span_and_no_tokens(
    status: int, proxy: Proxy
) -> None:
    proxy.upstream.answers["/chat/completions"] = problem(status, {"error": {"message": "no"}})
    await proxy.chat()
    span = proxy.recorded.span("chat gpt-4o-mini")
    assert span.status.status_code is StatusCode.ERROR
    assert schema.ERROR_TYPE in attributes(span)
    [point] = proxy.recorded.points(schema.OPENAI_API_DURATION.name)
    assert (point.labels["status"], point.value) == ("error", 1)
    assert proxy.recorded.points(schema.OPENAI_TOKENS.name) == []


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {**CHAT_ANSWER, "usage": None},
        {**CHAT_ANSWER, "usage": "many"},
        {**CHAT_ANSWER, "usage": {"prompt_tokens": "ten"}},
        {**CHAT_ANSWER, "usage": {"prompt_tokens": -1, "completion_tokens": -1}},
        {**CHAT_ANSWER, "choices": None},
        {**CHAT_ANSWER, "choices": [None]},
        {**CHAT_ANSWER, "choices": {}},
        {**CHAT_ANSWER, "model": 7},
    ],
)
async def test_an_odd_answer_costs_telemetry_nothing_but_numbers(
    answer: dict[str, Any], proxy: Proxy
) -> None:
    proxy.upstream.answers["/chat/completions"] = Response(200, json=answer)
    response = await proxy.chat()
    assert (response.status_code, response.json()) == (200, answer)
    assert proxy.recorded.span("chat gpt-4o-mini").status.status_code is StatusCode.UNSET
