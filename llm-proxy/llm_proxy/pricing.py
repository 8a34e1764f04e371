"""What a call cost, from its tokens and the price list of genai-prices."""

import time
from collections.abc import Mapping
from decimal import Decimal

from genai_prices import Usage, calc_price
from genai_prices.types import ModelPrice, PriceCalculation, TieredPrices

from llm_proxy.answers import Tokens

FRESH_SECONDS = 60.0
"""How long a price is taken as it is: some change with the hour."""

_KEYS = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cached": "cache_read_tokens",
    "cache_write": "cache_write_tokens",
    "input_audio": "input_audio_tokens",
    "output_audio": "output_audio_tokens",
    "reasoning": "output_reasoning_tokens",
}
_PART_OF = {"cached": "input", "cache_write": "input", "input_audio": "input"} | {
    "output_audio": "output",
    "reasoning": "output",
}
_PROBE = 1_000_000

Rates = dict[str, Decimal]
"""US dollars a token of each kind, on top of the kind it is part of."""


class PriceList:
    """The prices of one provider: its `own`, by model; for other models those of the list named
    `pricing`, else of the one for its `api_url`.

    To price a call the library takes over 100 µs. Most prices are so much a token, so it is asked
    once a minute for the rates of a model. Where there is more to them (tiers, a fee for each
    request, parts that may overlap) it is asked each time.
    """

    def __init__(
        self, pricing: str | None, api_url: str, own: Mapping[str, ModelPrice] | None = None
    ) -> None:
        self._own = own or {}
        self._pricing = pricing
        self._api_url = api_url
        self._rates: dict[tuple[str, str | None, tuple[str, ...]], tuple[float, Rates | None]] = {}

    def cost_usd(self, model: str, tokens: Tokens, service_tier: str | None) -> Decimal | None:
        """US dollars, or None when the price isn't known: an unknown price is never 0."""
        counts = {kind: count for kind in _KEYS if (count := getattr(tokens, kind))}
        key = (model, service_tier, tuple(counts))
        until, rates = self._rates.get(key, (0.0, None))
        try:
            if until < time.monotonic():
                rates = self._ask_rates(model, service_tier, tuple(counts))
                if len(self._rates) > 1000:  # names come from callers
                    self._rates.clear()
                self._rates[key] = (time.monotonic() + FRESH_SECONDS, rates)
            if rates is None or _is_odd(counts):
                return self._ask(model, service_tier, counts)
        except (LookupError, ValueError):
            return None
        return sum((rates[kind] * count for kind, count in counts.items()), Decimal(0))

    def _ask_rates(self, model: str, tier: str | None, kinds: tuple[str, ...]) -> Rates | None:
        wholes = [_PART_OF[kind] for kind in kinds if kind in _PART_OF]
        if len(set(wholes)) < len(wholes) or (
            model not in self._own and self._has_more_than_rates(model, tier)
        ):
            return None
        rates: Rates = {}
        for kind in kinds:
            whole = _PART_OF.get(kind)
            if whole is None:
                rates[kind] = self._ask(model, tier, {kind: _PROBE}) / _PROBE
            else:
                both = self._ask(model, tier, {whole: _PROBE, kind: _PROBE})
                rates[kind] = (both - self._ask(model, tier, {whole: _PROBE})) / _PROBE
        return rates

    def _has_more_than_rates(self, model: str, tier: str | None) -> bool:
        nothing = self._calculate(model, tier, {"input": 0, "output": 0})
        prices = vars(nothing.model_price).values()
        return bool(nothing.total_price) or any(isinstance(each, TieredPrices) for each in prices)

    def _ask(self, model: str, tier: str | None, counts: dict[str, int]) -> Decimal:
        own = self._own.get(model)
        if own is not None:
            return own.calc_price(_usage(counts))["total_price"]
        return self._calculate(model, tier, counts).total_price

    def _calculate(self, model: str, tier: str | None, counts: dict[str, int]) -> PriceCalculation:
        usage = _usage(counts)
        context = {"service_tier": tier} if tier else None
        if self._pricing:
            return calc_price(usage, model, provider_id=self._pricing, price_context=context)
        return calc_price(usage, model, provider_api_url=self._api_url, price_context=context)


def _usage(counts: Mapping[str, int]) -> Usage:
    return Usage(**{_KEYS[kind]: count for kind, count in counts.items()})


def _is_odd(counts: dict[str, int]) -> bool:
    """Whether a part is more than the whole: the library knows what that means for the price."""
    return any(counts[part] > counts.get(_PART_OF[part], 0) for part in counts if part in _PART_OF)
