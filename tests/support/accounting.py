"""Rows and budgets for tests of the ledger."""

import time
from collections.abc import Iterable

from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context

from accounting.budget import Budget, Period, with_budgets
from accounting.caller import with_key
from accounting.money import DOLLAR
from accounting.records import Begun, Row


def row(name: str, cost: int | None = 1, key: str | None = "k", tenant: str | None = "t") -> Row:
    """A row of so many picodollars, from now."""
    return Row(
        id=name,
        time=time.time(),
        operation="chat",
        provider="p",
        model="m",
        response_model=None,
        tenant=tenant,
        key_id=key,
        user_id=None,
        trace_id=None,
        input_tokens=3,
        output_tokens=4,
        cost=cost,
    )


def begun(name: str, key: str = "k") -> Begun:
    """The beginning of a call, long ago."""
    return Begun(name, 0.0, "chat", "p", "m", 1, None, "t", key)


def budgets(key_usd: int = 1, tenant_usd: int = 2, period: Period = "day") -> list[Budget]:
    """Budgets in US dollars of the key `k` and of the tenant `t`."""
    return [
        Budget("key", "k", period, key_usd * DOLLAR),
        Budget("tenant", "t", period, tenant_usd * DOLLAR),
    ]


def headers(given: Iterable[Budget], key: str = "k", tenant: str = "t") -> dict[str, str]:
    """The headers of a call that the gateway let in with a key that has these budgets."""
    context = with_budgets(with_key(Context(), tenant, key, None), given)
    carrier: dict[str, str] = {}
    W3CBaggagePropagator().inject(carrier, context)
    return carrier
