"""What telemetry tells of a call: one GenAI span, and an HTTP span for each attempt below it."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from decimal import Decimal
from typing import Any

import httpx2
import pytest
from httpx2 import Response
from opentelemetry import baggage, propagate
from opentelemetry.trace import SpanKind, StatusCode

from llm_proxy.meters import MAX_MODELS
from llm_proxy.sending import WholeResponse
from llm_proxy.settings import LOCAL
from llm_proxy.stream import Stream
from o11y.telemetry import schema
from o11y.telemetry.bounded import OVERFLOW
from o11y.telemetry.identity import MAX_TENANTS
from o11y.telemetry.schema import METRICS
from o11y.web.problems import Problem
from tests.support.near import Streamed
from tests.support.recorded import attributes, identity, traceparent
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
    INFERENCE,
    MODEL,
    USAGE,
    Caller,
    Hang,
    Proxy,
    event,
    failing,
    outcome,
    said,
)
from tests.support.whose import identified

Calling = Callable[..., Caller]

WHO = {"baggage": "user.id=ann,session.id=s1"}
COST = "x-o11y-cost-usd"
OWN_GATEWAY = "http://llm.acme.test/v1"
A = {"name": "a", "base_url": OWN_GATEWAY, "chat_model": "gpt-4o-mini"}
PRICE = Decimal("0.00018")
"""Of the usual chat answer: 600 + 400 cached + 100 tokens of gpt-4o-mini."""


async def test_the_provider_is_a_child_of_the_attempts_span(proxy: Proxy) -> None:
    incoming = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await proxy.chat(headers={"traceparent": incoming})
    own = identity(proxy.recorded.spans()[0])
    assert traceparent(proxy.upstream.asked.headers) == (own.trace_id, own.span_id)
    assert f"{own.trace_id:032x}" in incoming


async def test_a_call_is_a_server_span_a_genai_span_and_its_attempt(proxy: Proxy) -> None:
    await proxy.chat()
    attempt, call, server = proxy.recorded.spans()
    assert [span.kind for span in (attempt, call, server)] == [
        SpanKind.CLIENT,
        SpanKind.CLIENT,
        SpanKind.SERVER,
    ]
    assert (attempt.parent, call.parent) == (identity(call), identity(server))
    assert attributes(call)[schema.LLM_ATTEMPTS] == 1


async def test_every_attempt_has_a_span_of_its_own(calling: Calling) -> None:
    caller = calling({"retries": 1}, {})
    caller.upstream.answers[f"a.test{CHAT_CALL}"] = [
        failing(500),
        httpx2.ReadError("reset"),
    ]
    assert await outcome(caller) == 200
    *attempts, call = caller.recorded.spans()
    assert attributes(call)[schema.LLM_ATTEMPTS] == 3
    assert attributes(call)[schema.PROVIDER] == "b"
    assert call.status.status_code is StatusCode.UNSET
    assert [span.parent for span in attempts] == [identity(call)] * 3
    told = [attributes(span) for span in attempts]
    assert [each[schema.LLM_ATTEMPT] for each in told] == [1, 2, 3]
    assert [each[schema.PROVIDER] for each in told] == ["a", "a", "b"]
    assert [each.get(schema.HTTP_RESEND_COUNT) for each in told] == [None, 1, None]
    assert [each.get(schema.ERROR_TYPE) for each in told] == ["500", "connection_lost", None]
    assert [each.get(schema.HTTP_STATUS) for each in told] == [500, None, 200]
    assert [span.status.status_code for span in attempts] == [
        StatusCode.ERROR,
        StatusCode.ERROR,
        StatusCode.UNSET,
    ]
    sent = [traceparent(each.headers)[1] for each in caller.upstream.calls]
    assert sent == [identity(span).span_id for span in attempts]


async def test_who_asks_stays_in_the_house(proxy: Proxy) -> None:
    await proxy.chat(headers={**WHO, "X-Request-Timeout": "5"})
    assert not {"baggage", "x-request-timeout"} & set(proxy.upstream.asked.headers)
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
    "gen_ai.usage.cache_read.input_tokens": 400,
    "llm.usage.prompt_tokens": 1000,
    "llm.usage.completion_tokens": 100,
    "o11y.cost.usd": float(PRICE),
    "o11y.usage.estimated": None,
    "server.address": "api.openai.com",
    "server.port": 443,
}


@pytest.mark.parametrize(
    ("path", "body", "name", "expected"),
    [
        (CHAT_PATH, CHAT, "chat gpt-4o-mini", CHAT_SPAN),
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
                "gen_ai.request.model": "text-embedding-3-small",
                "gen_ai.usage.input_tokens": 8,
                "gen_ai.usage.output_tokens": None,
                "llm.usage.prompt_tokens": 8,
                "llm.usage.completion_tokens": None,
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


# Counts and costs


def counted(caller: Caller | Proxy, metric: schema.Metric) -> dict[tuple[object, ...], float]:
    """The metric's values by its labels in the schema's order; labels that aren't there fail."""
    found = {}
    for point in caller.recorded.points(metric.name):
        assert set(point.labels) <= set(metric.labels)
        found[tuple(point.labels.get(label) for label in metric.labels)] = point.value
    return found


async def test_an_answer_is_counted_by_provider_model_and_type(proxy: Proxy) -> None:
    for _ in range(2):
        assert Decimal((await proxy.chat()).headers[COST]) == PRICE
    by = ("openai", "gpt-4o-mini")
    assert counted(proxy, schema.OPENAI_API_DURATION) == {(*by, "chat", "ok"): 2}
    assert counted(proxy, schema.OPENAI_TOKENS) == {
        (*by, "input", "false", "_none"): 2000,
        (*by, "output", "false", "_none"): 200,
        (*by, "cached", "false", "_none"): 800,
    }
    [cost] = counted(proxy, schema.OPENAI_COST).values()
    assert cost == pytest.approx(2 * float(PRICE), abs=1e-12)
    assert counted(proxy, schema.OPENAI_UNPRICED) == {}


async def test_tokens_and_costs_are_counted_by_tenant(proxy: Proxy) -> None:
    for tenant in ("acme", "acme", "zoo", None):
        who = f"user.id=ann,tenant.id={tenant}" if tenant else "user.id=ann"
        await proxy.chat(headers={"baggage": who})
    price = float(PRICE)
    by_tenant = {key[-1]: value for key, value in counted(proxy, schema.OPENAI_COST).items()}
    assert by_tenant == pytest.approx({"acme": 2 * price, "zoo": price, "_none": price}, abs=1e-12)
    inputs = {
        key[-1]: n for key, n in counted(proxy, schema.OPENAI_TOKENS).items() if key[2] == "input"
    }
    assert inputs == {"acme": 2000, "zoo": 1000, "_none": 1000}
    assert len(proxy.recorded.points(schema.GEN_AI_INFERENCE_DURATION.name)) == 1


async def test_a_tenant_too_many_shares_a_label(proxy: Proxy) -> None:
    for number in range(MAX_TENANTS + 2):
        await proxy.chat(headers={"baggage": f"tenant.id=t{number}"})
    by_tenant = {key[-1]: value for key, value in counted(proxy, schema.OPENAI_COST).items()}
    assert len(by_tenant) == MAX_TENANTS + 1
    assert by_tenant["_other"] == pytest.approx(2 * float(PRICE), abs=1e-12)


async def given_up(caller: Caller, **fields: object) -> dict[str, Any]:
    """The attributes of the attempt of a call whose caller leaves before there is an answer."""
    hang = Hang()
    caller.upstream.answers[CHAT_CALL] = hang
    task = asyncio.create_task(caller.make(**fields))  # type: ignore[arg-type]
    await hang.reached.wait()
    task.cancel()
    await asyncio.wait([task])
    return dict(attributes(caller.attempts()[-1]))


@pytest.mark.parametrize(
    ("fields", "output"),
    [
        ({}, 100),
        ({"max_tokens": 30}, 30),
        ({"n": 3}, 300),
        ({"n": 3, "max_tokens": 30}, 90),
        ({"stream": True}, 0),  # its provider ends with it
    ],
)
async def test_an_answer_that_nobody_waits_for_is_billed_as_the_model_answers_usually(
    fields: dict[str, object], output: int, calling: Calling
) -> None:
    caller = calling({"pricing": "openai"})
    await caller.answer()
    told = await given_up(caller, **fields)
    assert told[schema.ERROR_TYPE] == schema.ERROR_CANCELLED
    assert told[schema.ATTEMPT_INPUT_TOKENS] > 0
    assert told[schema.ATTEMPT_OUTPUT_TOKENS] == output
    assert told[schema.USAGE_ESTIMATED]
    assert told[schema.ATTEMPT_COST_USD] > 0


async def test_of_a_model_that_never_answered_as_many_as_were_asked_for(calling: Calling) -> None:
    caller = calling({"pricing": "openai"})
    assert (await given_up(caller, max_tokens=30))[schema.ATTEMPT_OUTPUT_TOKENS] == 30
    assert (await given_up(caller))[schema.ATTEMPT_OUTPUT_TOKENS] == 0


async def test_what_was_never_sent_is_not_billed(calling: Calling) -> None:
    caller = calling({"retries": 0})
    caller.upstream.answers[CHAT_CALL] = httpx2.ConnectTimeout("nobody there")
    with pytest.raises(Problem):
        await caller.make()
    assert schema.ATTEMPT_INPUT_TOKENS not in attributes(caller.attempts()[0])


async def test_an_unknown_price_is_no_price_and_is_counted(proxy: Proxy) -> None:
    answer = {**CHAT_ANSWER, "model": "a-model-nobody-sells"}
    proxy.upstream.answers[CHAT_CALL] = Response(200, json=answer)
    response = await proxy.chat()
    assert COST not in response.headers
    told = attributes(proxy.recorded.span("chat gpt-4o-mini"))
    assert not {schema.COST_USD, schema.COST_SOURCE} & set(told)
    assert counted(proxy, schema.OPENAI_UNPRICED) == {("openai", "gpt-4o-mini", "chat"): 1}
    assert counted(proxy, schema.OPENAI_COST) == {}


async def test_the_local_model_costs_nothing(local: Proxy) -> None:
    assert Decimal((await local.chat()).headers[COST]) == 0
    told = attributes(local.recorded.span("chat tiny-chat"))
    assert (told[schema.COST_USD], told[schema.COST_SOURCE]) == (0, "free")
    assert counted(local, schema.OPENAI_UNPRICED) == {}


async def test_the_local_model_costs_what_it_says_where_it_has_a_price(local: Proxy) -> None:
    answer = {**CHAT_ANSWER, "usage": {**CHAT_ANSWER["usage"], "cost": 1.25e-06}}
    local.upstream.answers[CHAT_CALL] = Response(200, json=answer)
    assert Decimal((await local.chat()).headers[COST]) == Decimal("0.00000125")
    told = attributes(local.recorded.span("chat tiny-chat"))
    assert (told[schema.COST_USD], told[schema.COST_SOURCE]) == (1.25e-06, "machine")


async def test_a_stream_of_the_local_model_says_at_its_end_what_it_costs(local: Proxy) -> None:
    usage = {"id": "c-1", "model": MODEL, "choices": [], "usage": {**USAGE, "cost": 2.5e-06}}
    local.upstream.answers[CHAT_CALL] = Streamed(said("hello", finish="stop"), event(usage), DONE)
    answer = await local.chat({**CHAT, "stream": True, "stream_options": {"include_usage": True}})
    assert '"cost": 2.5e-06' in answer.text
    [span] = [each for each in local.recorded.spans() if schema.COST_USD in attributes(each)]
    told = attributes(span)
    assert (told[schema.COST_USD], told[schema.COST_SOURCE]) == (2.5e-06, "machine")


@pytest.mark.parametrize("cost", [-1, "much", True, 1e30, None, {}])
async def test_what_is_no_cost_is_not_believed(local: Proxy, cost: object) -> None:
    answer = {**CHAT_ANSWER, "usage": {**CHAT_ANSWER["usage"], "cost": cost}}
    local.upstream.answers[CHAT_CALL] = Response(200, json=answer)
    assert Decimal((await local.chat()).headers[COST]) == 0


async def test_what_another_provider_says_of_its_cost_is_not_believed(proxy: Proxy) -> None:
    answer = {**CHAT_ANSWER, "usage": {**CHAT_ANSWER["usage"], "cost": 1e-9}}
    proxy.upstream.answers[CHAT_CALL] = Response(200, json=answer)
    assert Decimal((await proxy.chat()).headers[COST]) == PRICE


async def test_a_local_model_costs_nothing_whatever_its_name(local: Proxy) -> None:
    answer = {**CHAT_ANSWER, "model": "gpt-4o-mini"}
    local.upstream.answers[CHAT_CALL] = Response(200, json=answer)
    assert Decimal((await local.chat()).headers[COST]) == 0


async def test_a_local_model_with_prices_is_not_priced_by_its_name(
    start: Callable[..., Proxy],
) -> None:
    prices = {"tiny-chat": {"input": 1}}
    proxy = start(llm_providers=[{"name": LOCAL, "prices": prices}], inference_url=INFERENCE)
    for model, cost in (("tiny-chat", Decimal("0.001")), ("gpt-4o-mini", None)):
        answer = {**CHAT_ANSWER, "model": model}
        proxy.upstream.answers[CHAT_CALL] = Response(200, json=answer)
        headers = (await proxy.chat()).headers
        assert (Decimal(headers[COST]) if COST in headers else None) == cost
    unpriced = proxy.recorded.spans(SpanKind.CLIENT)[-1]
    assert schema.COST_SOURCE not in attributes(unpriced)
    assert list(counted(proxy, schema.OPENAI_UNPRICED).values()) == [1]


@pytest.mark.parametrize(
    ("settings", "cost", "source"),
    [
        ({"openai_base_url": "https://api.openai.com/v1"}, PRICE, "price_list"),
        ({"openai_base_url": OWN_GATEWAY}, PRICE, "model_name"),
        ({"openai_base_url": OWN_GATEWAY, "openai_pricing": "openai"}, PRICE, "price_list"),
        ({"openai_base_url": OWN_GATEWAY, "openai_pricing": "none"}, None, None),
        ({"llm_providers": [A]}, PRICE, "model_name"),
        ({"llm_providers": [{**A, "pricing": "none"}]}, None, None),
        (
            {"llm_providers": [{**A, "prices": {MODEL: {"input": 2}}}]},
            Decimal("0.002"),
            "configured",
        ),
    ],
    ids=str,
)
async def test_the_span_tells_where_the_price_is_from(
    settings: dict[str, object],
    cost: Decimal | None,
    source: str | None,
    start: Callable[..., Proxy],
) -> None:
    proxy = start(**settings)
    await proxy.chat()
    told = attributes(proxy.recorded.span("chat gpt-4o-mini"))
    assert told.get(schema.COST_SOURCE) == source
    assert told.get(schema.COST_USD) == (None if cost is None else float(cost))
    assert list(counted(proxy, schema.OPENAI_COST).values()) == ([float(cost)] if cost else [])
    assert sum(counted(proxy, schema.OPENAI_UNPRICED).values()) == (cost is None)


@pytest.mark.parametrize(("pricing", "told"), [(None, True), ("openai", False), ("none", False)])
async def test_the_log_says_at_the_start_whose_prices_will_be_guessed(
    pricing: str | None,
    told: bool,
    start: Callable[..., Proxy],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level("INFO", "llm_proxy.provider"):
        start(llm_providers=[{**A, "pricing": pricing}])
    assert ("llm.acme.test:80 is in no price list" in caplog.text) is told


async def test_a_cost_of_a_few_tokens_is_not_rounded_away(proxy: Proxy) -> None:
    response = await proxy.client.post(EMBEDDING_PATH, json=EMBEDDING)
    assert Decimal(response.headers[COST]) == Decimal("0.00000016")


@pytest.mark.parametrize("status", [400, 401, 429, 500])
async def test_an_error_is_billed_nothing(status: int, calling: Calling) -> None:
    caller = calling({"retries": 0})
    caller.upstream.answers[CHAT_CALL] = failing(status)
    await outcome(caller)
    for span in caller.recorded.spans():
        assert attributes(span)[schema.ERROR_TYPE] == str(status)
    assert counted(caller, schema.OPENAI_API_DURATION) == {("a", "gpt-4o-mini", "chat", "error"): 1}
    for metric in (schema.OPENAI_TOKENS, schema.OPENAI_COST, schema.OPENAI_UNPRICED):
        assert counted(caller, metric) == {}


USELESS = Response(200, content=b'{"choices": [{"message": {"content": "' + b"a" * 400)


async def test_every_attempt_that_was_billed_is_in_the_cost(calling: Calling) -> None:
    caller = calling({"retries": 0}, {})
    caller.upstream.answers[f"a.test{CHAT_CALL}"] = USELESS
    given = await caller.make()
    assert isinstance(given, WholeResponse)
    first, second, call = (attributes(span) for span in caller.recorded.spans())
    assert first[schema.ERROR_TYPE] == "invalid_answer"
    for key, together in (
        (schema.ATTEMPT_COST_USD, schema.COST_USD),
        (schema.ATTEMPT_INPUT_TOKENS, schema.INPUT_TOKENS),
        (schema.ATTEMPT_OUTPUT_TOKENS, schema.OUTPUT_TOKENS),
    ):
        each = [float(str(told[key])) for told in (first, second)]
        assert min(each) > 0
        assert call[together] == pytest.approx(sum(each), abs=1e-12)
        assert together not in {**first, **second}  # who adds up all spans adds it up once
    assert call[schema.USAGE_ESTIMATED] is True
    assert float(given.cost_usd or 0) == pytest.approx(call[schema.COST_USD], abs=1e-12)
    estimated = {key[-2]: value for key, value in counted(caller, schema.OPENAI_COST).items()}
    assert estimated == {
        "true": pytest.approx(first[schema.ATTEMPT_COST_USD]),
        "false": pytest.approx(float(PRICE)),
    }


async def test_a_stream_costs_what_the_attempts_before_it_cost_as_well(calling: Calling) -> None:
    caller = calling({"retries": 0}, {})
    no_stream = Response(200, content=b"no events", headers={"content-type": "text/plain"})
    caller.upstream.answers[f"a.test{CHAT_CALL}"] = no_stream
    given = await caller.make(stream=True)
    assert isinstance(given, Stream)
    async with aclosing(given.events()) as events:
        async for _ in events:
            pass
    first, second, call = (attributes(span) for span in caller.recorded.spans())
    costs = [float(str(each[schema.ATTEMPT_COST_USD])) for each in (first, second)]
    assert min(costs) > 0
    assert call[schema.COST_USD] == pytest.approx(sum(costs), abs=1e-12)
    assert float(given.cost_usd or 0) == pytest.approx(sum(costs), abs=1e-12)


async def test_an_attempt_without_a_price_hides_no_other(calling: Calling) -> None:
    caller = calling({"retries": 0}, {})
    caller.upstream.answers[f"a.test{CHAT_CALL}"] = USELESS
    unsold = {**CHAT_ANSWER, "model": "a-model-nobody-sells"}
    caller.upstream.answers[f"b.test{CHAT_CALL}"] = Response(200, json=unsold)
    given = await caller.make()
    assert isinstance(given, WholeResponse)
    assert given.cost_usd is None
    first, second, call = (attributes(span) for span in caller.recorded.spans())
    assert call[schema.COST_USD] == first[schema.ATTEMPT_COST_USD]
    assert schema.ATTEMPT_COST_USD not in second


ODD: list[dict[str, Any]] = [
    {},
    {**CHAT_ANSWER, "usage": None},
    {**CHAT_ANSWER, "usage": "many"},
    {**CHAT_ANSWER, "usage": {"prompt_tokens": -1, "completion_tokens": -1}},
    {**CHAT_ANSWER, "usage": {"prompt_tokens": 10**30}},
    {**CHAT_ANSWER, "choices": None},
    {**CHAT_ANSWER, "choices": [None]},
    {**CHAT_ANSWER, "choices": {}},
    {**CHAT_ANSWER, "model": 7},
]


@pytest.mark.parametrize("answer", ODD)
async def test_an_odd_answer_costs_telemetry_nothing_but_numbers(
    answer: dict[str, Any], proxy: Proxy
) -> None:
    proxy.upstream.answers[CHAT_CALL] = Response(200, json=answer)
    response = await proxy.chat()
    assert (response.status_code, response.json()) == (200, answer)
    span = proxy.recorded.span("chat gpt-4o-mini")
    assert span.status.status_code is StatusCode.UNSET
    if answer.get("usage") != CHAT_ANSWER["usage"]:
        assert attributes(span)[schema.USAGE_ESTIMATED] is True
    tokens = counted(proxy, schema.OPENAI_TOKENS)
    assert all(0 <= count < 10_000 for count in tokens.values())


async def test_models_are_labels_up_to_a_number(calling: Calling) -> None:
    caller = calling({"models": {"*": ""}})
    for number in range(MAX_MODELS + 5):
        await outcome(caller, model=f"model-{number}")
    labels = {labels[1] for labels in counted(caller, schema.OPENAI_API_DURATION)}
    assert OVERFLOW in labels
    assert len(labels) <= MAX_MODELS + 1
    assert len({span.name for span in caller.spans()}) == MAX_MODELS + 5


def models(caller: Caller) -> set[object]:
    return {labels[1] for labels in counted(caller, schema.OPENAI_API_DURATION)}


async def test_models_that_nobody_has_take_no_place(calling: Calling) -> None:
    limits = {"retries": 0, "breaker_failures": 1000}
    caller = calling({"models": {"alias": "weights-7b"}, "chat_model": "house", **limits})
    caller.upstream.answers[CHAT_CALL] = failing(404)
    for number in range(MAX_MODELS + 5):
        await outcome(caller, model=f"made-up-{number}")
    assert models(caller) == {OVERFLOW}
    caller.upstream.answers[CHAT_CALL] = failing(500)
    await outcome(caller, model="alias")
    await outcome(caller, model="house")
    assert models(caller) == {OVERFLOW, "weights-7b", "house"}
    del caller.upstream.answers[CHAT_CALL]
    for model in ("theirs", "gpt-4o"):
        await outcome(caller, model=model)
    assert {"theirs", "gpt-4o"} < models(caller)
    caller.upstream.answers[CHAT_CALL] = failing(500)
    await outcome(caller, model="theirs")
    points = caller.recorded.points(schema.GEN_AI_INFERENCE_DURATION.name)
    failed = {
        point.labels[schema.REQUEST_MODEL]
        for point in points
        if point.labels.get(schema.ERROR_TYPE) == "500"
    }
    assert failed == {"weights-7b", "house", "theirs"}


async def test_models_that_have_a_price_keep_their_place_beside_any_number_of_others(
    calling: Calling,
) -> None:
    caller = calling({"models": {"*": ""}})
    for number in range(MAX_MODELS + 5):
        await outcome(caller, model=f"anything-{number}")
    await outcome(caller, model="gpt-4o")
    assert "gpt-4o" in models(caller)


async def test_tenants_of_calls_that_nobody_bills_take_no_place(calling: Calling) -> None:
    caller = calling({"chat_model": "house"})
    caller.upstream.answers[CHAT_CALL] = failing(404)
    for number in range(MAX_TENANTS + 5):
        with identified("ann", None, f"made-up-{number}"):
            await outcome(caller)
    del caller.upstream.answers[CHAT_CALL]
    with identified("ann", None, "acme"):
        await outcome(caller)
    tenants = {labels[-1] for labels in counted(caller, schema.OPENAI_TOKENS)}
    assert tenants == {"acme"}


async def test_every_metric_of_a_call_is_in_the_schema(calling: Calling) -> None:
    caller = calling({"retries": 1}, {})
    caller.upstream.answers[f"a.test{CHAT_CALL}"] = failing(500)
    await caller.answer()
    await caller.answer(stream=True)
    for metric in METRICS:
        counted(caller, metric)
    assert counted(caller, schema.OPENAI_RUNNING) == {("a",): 0, ("b",): 0}
