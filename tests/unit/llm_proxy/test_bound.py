"""The most that a call can cost: no usage that such a call can have costs more."""

import json
import random
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from genai_prices.data import providers as price_lists

from llm_proxy import bound, requests
from llm_proxy.bound import most_usd
from llm_proxy.provider import Provider
from llm_proxy.settings import Settings
from llm_proxy.tokens import Tokens
from o11y.openai import operations
from tests.support.recorded import Recorded
from tests.support.upstream import INFERENCE, provider_settings

MESSAGES = [{"role": "user", "content": "Wo ist das Café? 今日は " * 5}]
PICTURE = [
    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x.test/a"}}]}
]


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    recorded = Recorded("llm-proxy", Settings())
    yield recorded
    recorded.telemetry.shutdown()


def request(operation: operations.Operation = operations.CHAT, **fields: Any) -> requests.Request:
    return requests.read(operation, json.dumps({"model": "m", **fields}).encode())


def provider(recorded: Recorded, **settings: Any) -> Provider:
    return Provider(provider_settings("a", settings), INFERENCE, recorded.telemetry)


@pytest.mark.slow
@pytest.mark.parametrize("prices", price_lists, ids=[each.id for each in price_lists])
def test_no_usage_within_a_calls_limits_costs_more(prices: Any, recorded: Recorded) -> None:
    dice = random.Random(prices.id)
    one = provider(recorded, pricing=prices.id)
    asked = request(messages=MESSAGES, max_tokens=50, n=2)
    for model in prices.models:
        most = most_usd(asked, one, model.id)
        for _ in range(3):
            sent = dice.randint(0, min(asked.text_bytes, one.prices.window(model.id) or 10**9))
            answered = dice.randint(0, 100)
            tokens = Tokens(
                sent,
                answered,
                cached=(cached := dice.randint(0, sent)),
                cache_write=dice.randint(0, sent - cached),
                reasoning=dice.randint(0, answered),
            )
            cost = one.prices.cost_usd(model.id, tokens, None)
            assert cost is None or (most is not None and cost <= most), (model.id, tokens)


PRICES = {"m": {"input": 1, "output": 10}}
MILLION = 1_000_000


def usd(sent: int, answered: int) -> Decimal:
    return Decimal(sent + 10 * answered) / MILLION


@pytest.mark.parametrize(
    ("fields", "answered"),
    [
        ({"max_tokens": 7}, 7),
        ({"max_completion_tokens": 7, "max_tokens": 9}, 7),
        ({"max_tokens": 7, "n": 3}, 21),
        ({"max_tokens": -5}, 0),
        ({}, 1000),
        ({"max_tokens": 0}, 1000),
    ],
)
def test_an_answer_is_bounded_by_its_request_or_else_by_the_provider(
    recorded: Recorded, fields: dict[str, Any], answered: int
) -> None:
    one = provider(recorded, prices=PRICES, max_output_tokens=1000)
    asked = request(messages=MESSAGES, **fields)
    assert most_usd(asked, one, "m") == usd(len(asked.body), answered)


def test_completions_are_counted_by_prompts_and_by_what_is_chosen_from(recorded: Recorded) -> None:
    one = provider(recorded, prices=PRICES)
    asked = request(operations.COMPLETION, prompt=["a", "b"], n=2, best_of=5, max_tokens=3)
    assert most_usd(asked, one, "m") == usd(len(asked.body), 2 * 5 * 3)
    embedded = request(operations.EMBEDDINGS, input=["a", "b"])
    assert most_usd(embedded, one, "m") == usd(len(embedded.body), 0)


def test_without_any_limit_a_window_full_is_reserved(recorded: Recorded) -> None:
    own = provider(recorded, prices=PRICES)
    asked = request(messages=MESSAGES)
    assert most_usd(asked, own, "m") == usd(len(asked.body), bound.WINDOW)
    listed = provider(recorded, pricing="openai")
    most = most_usd(asked, listed, "gpt-4o-mini")
    assert most == listed.prices.cost_usd("gpt-4o-mini", Tokens(asked.text_bytes, 128_000), None)


def test_what_is_no_text_may_fill_the_window(recorded: Recorded) -> None:
    listed = provider(recorded, pricing="openai")
    most = most_usd(request(messages=PICTURE, max_tokens=1), listed, "gpt-4o-mini")
    assert most == listed.prices.cost_usd("gpt-4o-mini", Tokens(128_000, 1), None)


def test_data_in_a_prompt_is_not_counted_as_text(recorded: Recorded) -> None:
    data = "data:text/plain;base64," + "A" * 1_000_000
    asked = request(messages=[{"role": "user", "content": data}], max_tokens=1)
    assert asked.text_bytes < 200


def test_a_price_that_nobody_knows_is_none(recorded: Recorded) -> None:
    asked = request(messages=MESSAGES)
    assert most_usd(asked, provider(recorded, pricing="openai"), "house-model") is None
