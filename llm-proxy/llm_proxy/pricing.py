"""The cost of a call, from its tokens and the price lists of genai-prices."""

import time
from collections.abc import Mapping
from decimal import Decimal
from typing import NamedTuple

from genai_prices import Usage, calc_price
from genai_prices.data import providers as price_lists
from genai_prices.data_snapshot import DataSnapshot
from genai_prices.types import ModelPrice, PriceCalculation, TieredPrices

from llm_proxy.tokens import Tokens
from o11y.telemetry import schema

NO_LIST = "none"
"""Value in place of a price list's name: no list is used, and no price is guessed."""

FRESH_SECONDS = 60.0
"""Seconds for which a price is used before the library is asked again: some change by the hour."""

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

_BY_NAME = (None, "openai")
"""Lists for an address that none knows. Asked without a provider (None) the library finds one by
the name of a chat model; embedding models behind OpenAI's API have the names of OpenAI's own."""

Rates = dict[str, Decimal]
"""US dollars a token of each kind, on top of the kind it is part of."""


class _Known(NamedTuple):
    """The price of a model as the library gave it, for use until a time of `time.monotonic`."""

    until: float
    rates: Rates | None
    """None where the library must be asked each time."""
    priced: bool = True


class PriceList:
    """The prices of one provider: its `own`, by model; for other models those of the list named
    `pricing`, else of the one for its `api_url`. At an address that no list knows, as that of a
    company's gateway, a model costs what the model sold under its name does: a guess, for which
    `source` has a value of its own, and which `pricing` "none" forbids.

    Most prices are rates for each token, and the library is asked for those of a model once a
    minute. For other prices (tiers, a fee for each request, parts that may overlap) it is asked at
    each call.
    """

    def __init__(
        self, pricing: str | None, api_url: str, own: Mapping[str, ModelPrice] | None = None
    ) -> None:
        self._own = own or {}
        self.seller = _seller(api_url)
        """The price list's id of who sells at the address; None at one that no list knows."""
        self._lists = _lists(pricing, self.seller)
        self.guesses = self._lists == _BY_NAME
        """True: a model that is not in `own` is priced by its name."""
        self._listed = frozenset(
            model.id
            for each in price_lists
            if not self.guesses and each.id in self._lists
            for model in each.models
        )
        self._known: dict[tuple[str, str | None, tuple[str, ...]], _Known] = {}
        self._windows: dict[str, int | None] = {}

    def source(self, model: str) -> str:
        """The origin of the model's price, if it has one: a value of `o11y.cost.source`."""
        if model in self._own:
            return schema.COST_CONFIGURED
        return schema.COST_MODEL_NAME if self.guesses else schema.COST_PRICE_LIST

    def lists(self, model: str) -> bool:
        """True for the very name of a model in the list of this provider."""
        return model in self._own or model in self._listed

    def knows(self, model: str) -> bool:
        """True if the model has a price: some names stand for any that begin so."""
        return self.cost_usd(model, Tokens(input=1), None) is not None

    def window(self, model: str) -> int | None:
        """The tokens of prompt and answer together that fit the model, where the list says so."""
        if model in self._own:
            return None
        if model not in self._windows:
            if len(self._windows) > 1000:  # names come from callers
                self._windows.clear()
            try:
                found = self._calculate(model, None, {"input": 1}).model.context_window
            except (LookupError, ValueError):
                found = None
            self._windows[model] = found
        return self._windows[model]

    def cost_usd(self, model: str, tokens: Tokens, service_tier: str | None) -> Decimal | None:
        """The cost in US dollars; None when the price isn't known: an unknown price is never 0."""
        counts = {kind: count for kind in _KEYS if (count := getattr(tokens, kind))}
        key = (model, service_tier, tuple(counts))
        known = self._known.get(key)
        if known is None or known.until < time.monotonic():
            if len(self._known) > 1000:  # names come from callers
                self._known.clear()
            known = self._known[key] = self._learn(model, service_tier, tuple(counts))
        if not known.priced:
            return None
        if known.rates is None or _is_odd(counts):
            try:
                return self._ask(model, service_tier, counts)
            except (LookupError, ValueError):
                return None
        return sum((known.rates[kind] * count for kind, count in counts.items()), Decimal(0))

    def _learn(self, model: str, tier: str | None, kinds: tuple[str, ...]) -> _Known:
        until = time.monotonic() + FRESH_SECONDS
        try:
            return _Known(until, self._ask_rates(model, tier, kinds))
        except (LookupError, ValueError):
            return _Known(until, None, priced=False)

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
        for each in () if self.guesses and _names_weights(model) else self._lists:
            try:
                return calc_price(usage, model, provider_id=each, price_context=context)
            except LookupError:
                continue
        raise LookupError(f"no price is known for {model}")


def _lists(pricing: str | None, seller: str | None) -> tuple[str | None, ...]:
    """The names of the lists to ask, in their order; None is for any that knows the model."""
    if pricing == NO_LIST:
        return ()
    if pricing is not None:
        return (pricing,)
    return _BY_NAME if seller is None else (seller,)


def _seller(api_url: str) -> str | None:
    try:
        known = DataSnapshot(price_lists, from_auto_update=False)
        return known.find_provider(None, None, api_url).id
    except LookupError:
        return None


def _names_weights(model: str) -> bool:
    """True for a name of weights that somebody runs at a cost of their own, as engines write it:
    `deepseek-ai/DeepSeek-R1` (vLLM), `deepseek-r1:7b` (Ollama).
    """
    return "/" in model or ":" in model


def _usage(counts: Mapping[str, int]) -> Usage:
    return Usage(**{_KEYS[kind]: count for kind, count in counts.items()})


def _is_odd(counts: dict[str, int]) -> bool:
    """True when a part is more than its whole: only the library knows the price of that."""
    return any(counts[part] > counts.get(_PART_OF[part], 0) for part in counts if part in _PART_OF)
