"""The most that an attempt can cost, before anything is sent.

A token is a byte at least, in every tokenizer that providers use, and what they put around each
message is less than its JSON: a text has at most as many tokens as its request has bytes.
"""

from decimal import Decimal

from llm_proxy.provider import Provider
from llm_proxy.requests import Request
from llm_proxy.tokens import Tokens

WINDOW = 131_072
"""Tokens that fit a model of which the price list doesn't say how many do."""


def most_usd(request: Request, provider: Provider, model: str) -> Decimal | None:
    """US dollars; None where no price is known."""
    window = provider.prices.window(model) or WINDOW
    is_counted = request.is_text and not request.has_audio
    sent = min(request.text_bytes, window) if is_counted else window
    answered = 0
    if request.operation.generates:
        answer = request.max_tokens or provider.settings.max_output_tokens or min(window, WINDOW)
        answered = max(0, answer) * max(request.answers, request.candidates)
    kinds = [Tokens(sent, answered), Tokens(sent, answered, cache_write=sent)]
    if request.has_audio:
        kinds.append(Tokens(sent, answered, input_audio=sent, output_audio=answered))
    prices = [provider.prices.cost_usd(model, each, request.service_tier) for each in kinds]
    return max((usd for usd in prices if usd is not None), default=None)
