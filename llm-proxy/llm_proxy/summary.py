"""The summary of a call that has ended, for callers who ask for it."""

from decimal import Decimal

from llm_proxy.answers import ResponseInfo
from llm_proxy.attempt import Attempt
from llm_proxy.tokens import Tokens
from o11y.contracts import CallSummary, Usage


def summary(
    attempt: Attempt, info: ResponseInfo, tokens: Tokens | None, reason: str | None
) -> CallSummary:
    """The summary of a call by the attempt that answered; its cost is that of all attempts.

    `tokens` are what the attempt is billed, `reason` why its first choice ended.
    """
    counted = tokens or Tokens()
    usd: Decimal | None = attempt.inference.usd
    return CallSummary(
        model=info.model or attempt.model,
        provider=attempt.provider.name,
        usage=Usage(
            prompt_tokens=counted.input,
            completion_tokens=counted.output,
            total_tokens=counted.input + counted.output,
        ),
        usage_estimated=counted.estimated,
        cost_usd=None if usd is None else float(usd),
        finish_reason=reason,
    )
