"""What a call cost: exactly as the price list says, and never 0 for a price that isn't known."""

import random
from collections.abc import Callable
from decimal import Decimal

import pytest
from genai_prices import Usage, calc_price
from genai_prices.data import providers as price_lists
from genai_prices.types import Provider as Prices
from pydantic import ValidationError

from llm_proxy.pricing import PriceList
from llm_proxy.settings import LOCAL, ModelPrices, ProviderSettings
from llm_proxy.tokens import Tokens

TIERS = (None, "default", "auto", "flex", "priority", "batch", "nobody-knows")
ROUNDS = 4
CENT_OF_NOTHING = Decimal("1e-12")
MILLION = Tokens(1_000_000, 1_000_000)
GATEWAY = "http://llm.acme.test/v1"
"""An address that no list knows."""

names = [prices.id for prices in price_lists]


def usage_of(dice: random.Random) -> Tokens:
    """Any usage a provider may tell; in one of ten parts are more than their whole."""

    def part(whole: int) -> int:
        return dice.choice((0, 0, dice.randint(0, whole)))

    size = dice.choice((10, 1_000, 300_000, 2_000_000))
    given, written = dice.randint(0, size), part(size)
    if dice.random() < 0.1:
        return Tokens(given, written, cached=given + 1, reasoning=dice.choice((0, written + 1)))
    cached = part(given)
    audio = part(given - cached)
    reasoning = part(written)
    return Tokens(
        given,
        written,
        cached=cached,
        cache_write=part(given - cached - audio),
        input_audio=audio,
        output_audio=part(written - reasoning),
        reasoning=reasoning,
    )


def listed(prices: Prices, model: str, tokens: Tokens, tier: str | None) -> Decimal | None:
    """The price list's own sum."""
    usage = Usage(
        input_tokens=tokens.input or None,
        output_tokens=tokens.output or None,
        cache_read_tokens=tokens.cached or None,
        cache_write_tokens=tokens.cache_write or None,
        input_audio_tokens=tokens.input_audio or None,
        output_audio_tokens=tokens.output_audio or None,
        output_reasoning_tokens=tokens.reasoning or None,
    )
    context = {"service_tier": tier} if tier else None
    try:
        return calc_price(usage, model, provider_id=prices.id, price_context=context).total_price
    except (LookupError, ValueError):
        return None


@pytest.mark.slow
@pytest.mark.parametrize("prices", price_lists, ids=names)
def test_every_price_is_that_of_the_list_to_the_last_digit(prices: Prices) -> None:
    dice = random.Random(prices.id)
    ours = PriceList(prices.id, "")
    for model in prices.models:
        for _ in range(ROUNDS):
            tokens, tier = usage_of(dice), dice.choice(TIERS)
            expected = listed(prices, model.id, tokens, tier)
            found = ours.cost_usd(model.id, tokens, tier)
            assert (found is None) is (expected is None), (model.id, tokens, tier)
            if found is not None and expected is not None:
                assert abs(found - expected) < CENT_OF_NOTHING, (model.id, tokens, tier)


def test_cached_tokens_are_priced_as_such() -> None:
    ours = PriceList("openai", "")
    full = ours.cost_usd("gpt-4o-mini", Tokens(1000, 100), None)
    cached = ours.cost_usd("gpt-4o-mini", Tokens(1000, 100, cached=400), None)
    assert full == Decimal("0.00021")
    assert cached == Decimal("0.00018")


@pytest.mark.parametrize(
    ("pricing", "model"),
    [
        ("openai", "a-model-nobody-sells"),
        ("openai", ""),
        ("no-such-list", "gpt-4o-mini"),
        ("none", "gpt-4o-mini"),
        (None, "a-model-nobody-sells"),
        (None, "gpt-99"),
        (None, ""),
    ],
)
def test_a_price_nobody_knows_is_none_and_not_0(pricing: str | None, model: str) -> None:
    ours = PriceList(pricing, GATEWAY)
    for _ in range(2):  # the second time it is remembered
        assert ours.cost_usd(model, Tokens(10, 10), None) is None
        assert ours.cost_usd(model, Tokens(), None) is None


@pytest.mark.parametrize(
    ("url", "pricing", "model"),
    [
        ("https://api.openai.com/v1", "openai", "gpt-4o-mini"),
        ("https://api.groq.com/openai/v1", "groq", "llama-3.1-8b-instant"),
        ("https://acme.openai.azure.com/openai/v1", "azure", "gpt-4o"),
        ("https://openrouter.ai/api/v1", "openrouter", "openai/gpt-4o-mini"),
    ],
)
def test_a_base_url_a_list_knows_needs_no_name(url: str, pricing: str, model: str) -> None:
    ours = PriceList(None, url)
    price = ours.cost_usd(model, MILLION, None)
    assert price
    assert price == PriceList(pricing, "").cost_usd(model, MILLION, None)
    assert ours.source(model) == "price_list"


# An address that no list knows


@pytest.mark.parametrize(
    ("model", "maker"),
    [
        ("gpt-4o-mini", "openai"),
        ("gpt-4o-mini-2024-07-18", "openai"),
        ("o3-mini", "openai"),
        ("text-embedding-3-small", "openai"),
        ("claude-sonnet-4-5", "anthropic"),
        ("gemini-2.5-pro", "google"),
    ],
)
def test_a_model_known_by_its_name_costs_what_its_maker_takes(model: str, maker: str) -> None:
    ours = PriceList(None, GATEWAY)
    price = ours.cost_usd(model, MILLION, None)
    assert price
    assert price == PriceList(maker, "").cost_usd(model, MILLION, None)
    assert ours.source(model) == "model_name"


@pytest.mark.parametrize(
    "model", ["deepseek-r1:7b", "deepseek-ai/DeepSeek-R1", "openai/gpt-oss-20b", "qwen3-8b"]
)
def test_weights_that_somebody_runs_are_not_priced_by_their_name(model: str) -> None:
    assert PriceList(None, GATEWAY).cost_usd(model, MILLION, None) is None


def test_a_provider_whose_list_lacks_a_model_is_not_taken_for_another() -> None:
    ours = PriceList(None, "https://api.groq.com/openai/v1")
    assert not ours.guesses
    assert ours.cost_usd("gpt-4o-mini", MILLION, None) is None


def test_prices_of_ones_own_are_no_guess_where_others_are() -> None:
    own = {"gpt-4o-mini": ModelPrices(input=Decimal(1)).listed}
    ours = PriceList(None, GATEWAY, own)
    assert ours.cost_usd("gpt-4o-mini", MILLION, None) == 1
    assert (ours.source("gpt-4o-mini"), ours.source("gpt-4o")) == ("configured", "model_name")


def test_without_a_list_ones_own_prices_hold() -> None:
    ours = PriceList("none", GATEWAY, {"gpt-4o-mini": ModelPrices(input=Decimal(1)).listed})
    assert ours.cost_usd("gpt-4o-mini", MILLION, None) == 1
    assert ours.cost_usd("gpt-4o", MILLION, None) is None
    assert PriceList("none", "https://api.openai.com/v1").cost_usd("gpt-4o", MILLION, None) is None


# What is remembered


def test_the_first_answer_for_a_model_says_nothing_about_the_next() -> None:
    """Tiers begin at a number of tokens: what one call's tokens cost isn't the next one's rate."""
    [prices] = [each for each in price_lists if each.id == "google"]
    ours = PriceList("google", "")
    model = "gemini-2.5-pro"
    for count in (100, 1_000_000, 200_000, 200_001, 100):
        tokens = Tokens(count, count)
        assert ours.cost_usd(model, tokens, None) == listed(prices, model, tokens, None)


@pytest.mark.parametrize("later", [59.0, 61.0, 100_000.0])
def test_a_price_that_is_remembered_is_asked_for_again(
    later: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    now = [1000.0]

    def counting(calculate: Callable[..., object]) -> Callable[..., object]:
        def counted(*given: object, **named: object) -> object:
            asked.append("")
            return calculate(*given, **named)

        return counted

    monkeypatch.setattr("llm_proxy.pricing.calc_price", counting(calc_price))
    monkeypatch.setattr("llm_proxy.pricing.time.monotonic", lambda: now[0])
    ours = PriceList("openai", "")
    first = ours.cost_usd("gpt-4o-mini", Tokens(10, 10), None)
    asked.clear()
    now[0] += later
    assert ours.cost_usd("gpt-4o-mini", Tokens(10, 10), None) == first
    assert bool(asked) is (later > 60)


def test_prices_of_ones_own_hold_before_the_list() -> None:
    own = {
        "gpt-4o-mini": ModelPrices(input=Decimal(1), output=Decimal(2)).listed,
        "tiny": ModelPrices(input=Decimal(4), output=Decimal(8), cached=Decimal(1)).listed,
    }
    ours = PriceList("openai", "", own)
    for _ in range(2):  # the second time it is remembered
        assert ours.cost_usd("gpt-4o-mini", Tokens(10, 5), None) == Decimal("0.00002")
        assert ours.cost_usd("gpt-4o-mini", Tokens(10, 5, cached=5), None) == Decimal("0.00002")
        assert ours.cost_usd("tiny", Tokens(10, 5, cached=4), None) == Decimal("0.000068")
        assert ours.cost_usd("gpt-4o", Tokens(10, 5), None) == PriceList("openai", "").cost_usd(
            "gpt-4o", Tokens(10, 5), None
        )


@pytest.mark.parametrize(
    ("prices", "said"),
    [({"input": -1}, "prices.tiny.input"), ({}, "prices.tiny.input"), ({"in": 1}, "prices.tiny")],
)
def test_a_price_that_is_none_is_refused_by_its_name(prices: dict[str, int], said: str) -> None:
    with pytest.raises(ValidationError) as refused:
        ProviderSettings.model_validate({"name": LOCAL, "prices": {"tiny": prices}})
    assert said in str(refused.value)
