"""What a call cost: as the price list says, and never 0 for a price that isn't known."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from genai_prices import Usage, calc_price
from httpx2 import Response

from llm_proxy.pricing import cost_usd
from o11y import schema
from tests.unit.llm_proxy.upstream import (
    CHAT_ANSWER,
    EMBEDDING,
    EMBEDDING_ANSWER,
    EMBEDDING_PATH,
    KEY,
    Proxy,
)
from tests.unit.o11y.recorded import attributes

COST = "x-o11y-cost-usd"
OPENAI = "https://api.openai.com/v1"


def price(model: str, **usage: int) -> str:
    """The price list's own sum, with the digits of the header."""
    return f"{calc_price(Usage(**usage), model, provider_id='openai').total_price:.12f}"


async def test_cached_tokens_are_priced_as_such(proxy: Proxy) -> None:
    cost = (await proxy.chat()).headers[COST]
    assert cost == price("gpt-4o-mini", input_tokens=1000, cache_read_tokens=400, output_tokens=100)
    assert Decimal(cost) < Decimal(price("gpt-4o-mini", input_tokens=1000, output_tokens=100))


async def test_a_cost_of_a_few_tokens_is_not_rounded_away(proxy: Proxy) -> None:
    response = await proxy.client.post(EMBEDDING_PATH, json=EMBEDDING)
    cost = response.headers[COST]
    assert cost == price("text-embedding-3-small", input_tokens=8)
    assert Decimal(cost) > 0


async def test_what_an_answer_cost_is_on_its_span_and_in_the_sum(proxy: Proxy) -> None:
    cost = float((await proxy.chat()).headers[COST])
    await proxy.chat()
    spans = [span for span in proxy.recorded.spans() if span.name == "chat gpt-4o-mini"]
    assert [attributes(span)[schema.COST_USD] for span in spans] == [pytest.approx(cost)] * 2
    [point] = proxy.recorded.points(schema.OPENAI_COST.name)
    assert point.labels == {"provider": "openai", "model": "gpt-4o-mini", "operation": "chat"}
    assert point.value == pytest.approx(2 * cost)
    assert proxy.recorded.points(schema.OPENAI_UNPRICED.name) == []


async def test_an_unknown_price_is_no_price_and_is_counted(proxy: Proxy) -> None:
    answer = {**CHAT_ANSWER, "model": "a-model-nobody-sells"}
    proxy.upstream.answers["/chat/completions"] = Response(200, json=answer)
    response = await proxy.chat()
    assert response.status_code == 200
    assert COST not in response.headers
    assert schema.COST_USD not in attributes(proxy.recorded.span("chat gpt-4o-mini"))
    assert [point.value for point in proxy.recorded.points(schema.OPENAI_UNPRICED.name)] == [1]
    assert proxy.recorded.points(schema.OPENAI_COST.name) == []


async def test_the_local_model_costs_nothing(local: Proxy) -> None:
    assert float((await local.chat()).headers[COST]) == 0
    assert attributes(local.recorded.span("chat tiny-chat"))[schema.COST_USD] == 0
    assert local.recorded.points(schema.OPENAI_UNPRICED.name) == []


@pytest.mark.parametrize(("pricing", "known"), [(None, False), ("openai", True)])
async def test_a_base_url_of_its_own_needs_a_price_list(
    pricing: str | None, known: bool, start: Callable[..., Proxy]
) -> None:
    url = "http://llm.test/v1"
    proxy = start(openai_api_key=KEY, openai_base_url=url, openai_pricing=pricing)
    assert (COST in (await proxy.chat()).headers) is known


def answer(**changed: Any) -> dict[str, Any]:
    return {**CHAT_ANSWER, **changed}


@pytest.mark.parametrize(
    "body",
    [
        answer(usage=None),
        answer(usage={}),
        answer(usage="many"),
        answer(usage={"prompt_tokens": "ten", "completion_tokens": 1}),
        answer(usage={"prompt_tokens": -1, "completion_tokens": 1}),
        answer(model=None),
        answer(model="a-model-nobody-sells"),
        {"usage": CHAT_ANSWER["usage"]},
        {},
    ],
)
def test_a_price_that_cannot_be_told_is_not_known(body: dict[str, Any]) -> None:
    assert cost_usd(body, "chat", None, OPENAI) is None


def test_a_price_list_nobody_knows_has_no_prices() -> None:
    assert cost_usd(CHAT_ANSWER, "chat", "no-such-list", OPENAI) is None
    assert cost_usd(EMBEDDING_ANSWER, "embeddings", None, "http://llm.test/v1") is None
