"""What a call cost, from the usage the provider reported and the price list of genai-prices."""

from typing import Any, Literal

from genai_prices import calc_price, extract_usage

Flavor = Literal["chat", "embeddings"]


def cost_usd(
    answer: dict[str, Any], flavor: Flavor, pricing: str | None, api_url: str
) -> float | None:
    """US dollars, or None when the price isn't known: an unknown price is never 0.

    `answer` is the provider's answer with `model` and `usage`; cached, reasoning and audio tokens
    are priced as such. `pricing` names the price list; without it the list is found by `api_url`.
    """
    try:
        extracted = extract_usage(answer, provider_id="openai", api_flavor=flavor)
        model = str(answer["model"])
        price = (
            calc_price(extracted.usage, model, provider_id=pricing)
            if pricing
            else calc_price(extracted.usage, model, provider_api_url=api_url)
        )
    except (LookupError, ValueError):
        return None
    return float(price.total_price)
