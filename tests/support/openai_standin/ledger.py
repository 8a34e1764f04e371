"""What the stand-in bills: tokens and US dollars, by prices of its own."""

import threading
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Literal

Operation = Literal["chat", "text_completion", "embeddings"]
Kind = Literal["total", "prompt", "completion", "cached", "reasoning", "audio"]


@dataclass(frozen=True)
class Price:
    """US dollars a million tokens; without one of their own, tokens cost as text does."""

    prompt: Decimal
    completion: Decimal = Decimal(0)
    cached: Decimal | None = None
    prompt_audio: Decimal | None = None
    completion_audio: Decimal | None = None


PRICES = {
    "gpt-4o-mini": Price(Decimal("0.15"), Decimal("0.60"), cached=Decimal("0.075")),
    "gpt-4o": Price(Decimal("2.5"), Decimal("10"), cached=Decimal("1.25")),
    "o4-mini": Price(Decimal("1.1"), Decimal("4.4"), cached=Decimal("0.275")),
    "gpt-audio": Price(
        Decimal("2.5"), Decimal("10"), prompt_audio=Decimal("32"), completion_audio=Decimal("64")
    ),
    "gpt-3.5-turbo-instruct": Price(Decimal("1.5"), Decimal("2")),
    "text-embedding-3-small": Price(Decimal("0.02")),
}

DATED = {
    "gpt-4o-mini": "gpt-4o-mini-2024-07-18",
    "gpt-4o": "gpt-4o-2024-08-06",
    "o4-mini": "o4-mini-2025-04-16",
    "gpt-audio": "gpt-audio-2025-08-28",
    "gpt-3.5-turbo-instruct": "gpt-3.5-turbo-instruct:20230824-v2",
}
"""The snapshot that answers to a model's name."""


@dataclass(frozen=True)
class Usage:
    """Tokens of one call, each counted once: cached and audio ones are not in `prompt_text`."""

    prompt_text: int
    cached: int = 0
    prompt_audio: int = 0
    completion_text: int = 0
    reasoning: int = 0
    completion_audio: int = 0

    @property
    def prompt(self) -> int:
        return self.prompt_text + self.cached + self.prompt_audio

    @property
    def completion(self) -> int:
        return self.completion_text + self.reasoning + self.completion_audio

    def until(self, chunk: int, chunks: int) -> "Usage":
        """As it stands when so many of its chunks are generated; reasoning comes before them."""
        share = (chunk, chunks) if chunks else (1, 1)
        return replace(
            self,
            completion_text=self.completion_text * share[0] // share[1],
            completion_audio=self.completion_audio * share[0] // share[1],
        )

    def reported(self, operation: Operation) -> dict[str, Any]:
        """As OpenAI writes it."""
        if operation == "embeddings":
            return {"prompt_tokens": self.prompt, "total_tokens": self.prompt}
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {
                "cached_tokens": self.cached,
                "audio_tokens": self.prompt_audio,
            },
            "completion_tokens_details": {
                "reasoning_tokens": self.reasoning,
                "audio_tokens": self.completion_audio,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }

    @staticmethod
    def read(raw: dict[str, Any], otherwise: "Usage") -> "Usage":
        """What a usage dictionary means; `otherwise` has the totals that it doesn't say."""
        details = raw.get("prompt_tokens_details"), raw.get("completion_tokens_details")
        prompt, completion = (part if isinstance(part, dict) else {} for part in details)
        cached, prompt_audio = _count(prompt, "cached_tokens"), _count(prompt, "audio_tokens")
        reasoning = _count(completion, "reasoning_tokens")
        completion_audio = _count(completion, "audio_tokens")
        return Usage(
            prompt_text=_count(raw, "prompt_tokens", otherwise.prompt) - cached - prompt_audio,
            cached=cached,
            prompt_audio=prompt_audio,
            completion_text=_count(raw, "completion_tokens", otherwise.completion)
            - reasoning
            - completion_audio,
            reasoning=reasoning,
            completion_audio=completion_audio,
        )


@dataclass(frozen=True)
class Bill:
    """What one call costs. Totals include the cached, reasoning and audio tokens beside them."""

    id: str | None
    model: str
    """As requested, without the date of a snapshot."""
    operation: Operation
    prompt_tokens: int
    cached_tokens: int
    prompt_audio_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    completion_audio_tokens: int
    reported: bool
    """Whether the client was sent the usage complete."""
    usd: Decimal | None
    """None for a model without a price."""

    def tokens(self, kind: Kind = "total") -> int:
        return {
            "total": self.prompt_tokens + self.completion_tokens,
            "prompt": self.prompt_tokens,
            "completion": self.completion_tokens,
            "cached": self.cached_tokens,
            "reasoning": self.reasoning_tokens,
            "audio": self.prompt_audio_tokens + self.completion_audio_tokens,
        }[kind]


class Account:
    """The growing bill of one call."""

    def __init__(
        self,
        changed: threading.Condition,
        request_id: str | None,
        model: str,
        operation: Operation,
        usage: Usage,
    ) -> None:
        self._changed = changed
        self._id = request_id
        self._model = undated(model)
        self._operation = operation
        self._usage = usage
        self._reported = False

    def used(self, usage: Usage) -> None:
        with self._changed:
            self._usage = usage
            self._changed.notify_all()

    def reported(self) -> None:
        with self._changed:
            self._reported = True
            self._changed.notify_all()

    def bill(self) -> Bill:
        usage = self._usage
        return Bill(
            id=self._id,
            model=self._model,
            operation=self._operation,
            prompt_tokens=usage.prompt,
            cached_tokens=usage.cached,
            prompt_audio_tokens=usage.prompt_audio,
            completion_tokens=usage.completion,
            reasoning_tokens=usage.reasoning,
            completion_audio_tokens=usage.completion_audio,
            reported=self._reported,
            usd=cost_usd(self._model, usage),
        )


class Ledger:
    """All bills. A call is billed from the moment its status 200 is sent.

    An answer is billed whole whether or not its body arrives; a stream for what was generated
    when it ended.
    """

    def __init__(self, changed: threading.Condition) -> None:
        self._changed = changed
        self._accounts: list[Account] = []

    def open(
        self, request_id: str | None, model: str, operation: Operation, usage: Usage
    ) -> Account:
        account = Account(self._changed, request_id, model, operation, usage)
        with self._changed:
            self._accounts.append(account)
            self._changed.notify_all()
        return account

    def bills(
        self,
        *,
        id: str | None = None,
        model: str | None = None,
        operation: Operation | None = None,
        reported: bool | None = None,
    ) -> list[Bill]:
        """Those that match all that is given, in the order of their answers' first bytes."""
        with self._changed:
            bills = [account.bill() for account in self._accounts]
        return [
            bill
            for bill in bills
            if id in (None, bill.id)
            and model in (None, bill.model)
            and operation in (None, bill.operation)
            and reported in (None, bill.reported)
        ]

    def tokens(
        self,
        kind: Kind = "total",
        *,
        id: str | None = None,
        model: str | None = None,
        operation: Operation | None = None,
        reported: bool | None = None,
    ) -> int:
        found = self.bills(id=id, model=model, operation=operation, reported=reported)
        return sum(bill.tokens(kind) for bill in found)

    def usd(
        self,
        *,
        id: str | None = None,
        model: str | None = None,
        operation: Operation | None = None,
        reported: bool | None = None,
    ) -> Decimal:
        """The sum of the bills that have a price."""
        found = self.bills(id=id, model=model, operation=operation, reported=reported)
        return sum((bill.usd for bill in found if bill.usd is not None), Decimal(0))


def undated(model: str) -> str:
    return next((name for name, dated in DATED.items() if dated == model), model)


def cost_usd(model: str, usage: Usage) -> Decimal | None:
    price = PRICES.get(undated(model))
    if price is None:
        return None
    cached, audio, spoken = (
        text if special is None else special
        for special, text in (
            (price.cached, price.prompt),
            (price.prompt_audio, price.prompt),
            (price.completion_audio, price.completion),
        )
    )
    total = (
        usage.prompt_text * price.prompt
        + usage.cached * cached
        + usage.prompt_audio * audio
        + (usage.completion_text + usage.reasoning) * price.completion
        + usage.completion_audio * spoken
    )
    return total / 1_000_000


def _count(raw: dict[str, Any], name: str, otherwise: int = 0) -> int:
    value = raw.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else otherwise
