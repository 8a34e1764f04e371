"""The tokens that a call is billed by: as a provider tells them, or worked out where it doesn't."""

from decimal import Decimal
from typing import Any

import msgspec

TEXT_BYTES_PER_TOKEN = 4
"""Bytes of English text that make a token, roughly: for estimates where nobody counted."""


MAX_TOKENS = 10**9
"""A larger number is no number of tokens, and would spoil every sum it went into."""


class _PromptDetails(msgspec.Struct):
    cached_tokens: Any = None
    cache_write_tokens: Any = None
    audio_tokens: Any = None


class _CompletionDetails(msgspec.Struct):
    audio_tokens: Any = None
    reasoning_tokens: Any = None


class Usage(msgspec.Struct):
    prompt_tokens: Any = None
    completion_tokens: Any = None
    total_tokens: Any = None
    cost: Any = None
    """US dollars, as the local inference service tells them."""
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None
    prompt_cache_hit_tokens: Any = None
    """The cached tokens, as DeepSeek tells them."""
    cached_tokens: Any = None
    """The cached tokens, as Moonshot AI tells them."""


class Tokens(msgspec.Struct, frozen=True):
    """The tokens that a call is billed by.

    `cached`, `cache_write` and `input_audio` are part of `input`, `reasoning` and `output_audio` of
    `output`.
    """

    input: int = 0
    output: int = 0
    cached: int = 0
    cache_write: int = 0
    input_audio: int = 0
    output_audio: int = 0
    reasoning: int = 0
    estimated: bool = False
    """Nobody counted: worked out from the text that went and came."""

    def by_type(self) -> tuple[int, ...]:
        """The tokens of each of `meters.TOKEN_TYPES`."""
        spoken, answered = min(self.input_audio, self.input), min(self.output_audio, self.output)
        return (
            *(self.input - spoken, spoken, self.output - answered, answered),
            *(self.cached, self.cache_write, self.reasoning, self.input_audio, self.output_audio),
        )

    def __add__(self, other: "Tokens") -> "Tokens":
        """The tokens of both; an estimate if one of them is."""
        return Tokens(
            self.input + other.input,
            self.output + other.output,
            self.cached + other.cached,
            self.cache_write + other.cache_write,
            self.input_audio + other.input_audio,
            self.output_audio + other.output_audio,
            self.reasoning + other.reasoning,
            self.estimated or other.estimated,
        )


def guess(input_bytes: int, output_bytes: int) -> Tokens:
    """The tokens of so much text, sent and received."""
    return Tokens(
        input=-(-input_bytes // TEXT_BYTES_PER_TOKEN),
        output=-(-output_bytes // TEXT_BYTES_PER_TOKEN),
        estimated=True,
    )


def expected_output(typical: int | None, asked: int | None) -> int:
    """The output tokens of an answer that nobody saw: as many as the model's answers have on
    average, `asked` at most; `asked` where there is no average.
    """
    if typical is None:
        return asked or 0
    return typical if asked is None else min(typical, asked)


def tokens_of(usage: Usage | None) -> Tokens | None:
    """The tokens that a usage tells; None where it does not say how many were sent."""
    input_tokens = None if usage is None else count_of(usage.prompt_tokens)
    if usage is None or input_tokens is None:
        return None
    prompt = usage.prompt_tokens_details or _PromptDetails()
    completion = usage.completion_tokens_details or _CompletionDetails()
    output, total = count_of(usage.completion_tokens) or 0, count_of(usage.total_tokens) or 0
    cached = (prompt.cached_tokens, usage.prompt_cache_hit_tokens, usage.cached_tokens)
    return Tokens(
        input=input_tokens,
        # some tell reasoning beside the completion, and count it in the total alone
        output=max(output, total - input_tokens),
        cached=min(input_tokens, next((count for each in cached if (count := count_of(each))), 0)),
        cache_write=count_of(prompt.cache_write_tokens) or 0,
        input_audio=count_of(prompt.audio_tokens) or 0,
        output_audio=count_of(completion.audio_tokens) or 0,
        reasoning=count_of(completion.reasoning_tokens) or 0,
    )


def usd_of(usage: Usage | None) -> Decimal | None:
    """The US dollars that a usage tells; None where it tells none."""
    cost = None if usage is None else usage.cost
    if isinstance(cost, bool) or not isinstance(cost, int | float) or not 0 <= cost < MAX_TOKENS:
        return None
    return Decimal(str(cost))


def count_of(value: object) -> int | None:
    """A number of tokens; some providers send it as a float or as text."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 10:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 <= value <= MAX_TOKENS and value == int(value) else None
