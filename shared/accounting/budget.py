"""Budgets: how much a key or a tenant may spend, by day, by month (both calendar, UTC), in all.

They travel with a call as W3C baggage from the gateway, which knows who calls, to llm-proxy, which
knows what it costs.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Literal, NamedTuple

import msgspec
from opentelemetry import baggage
from opentelemetry.context import Context

from accounting.money import picodollars

Scope = Literal["key", "tenant"]
Period = Literal["day", "month", "total"]

_BAGGAGE = "o11y.budgets"


class Budget(NamedTuple):
    """The most that an owner, a key's id or a tenant's name, may spend in a period."""

    scope: Scope
    owner: str
    period: Period
    limit: int
    """Picodollars."""


_written = msgspec.json.Decoder(list[Budget])


def budgets_of(scope: Scope, owner: str, usd: Mapping[str, Decimal] | None) -> tuple[Budget, ...]:
    """The budgets of an owner, given as US dollars by period."""
    periods: tuple[Period, ...] = ("day", "month", "total")
    return tuple(
        Budget(scope, owner, period, picodollars(usd[period]))
        for period in periods
        if usd and period in usd
    )


def with_budgets(parent: Context, budgets: Iterable[Budget]) -> Context:
    """The context of a call that these budgets hold for."""
    return baggage.set_baggage(_BAGGAGE, msgspec.json.encode(list(budgets)).decode(), parent)


def current() -> tuple[Budget, ...]:
    """The budgets of the current call."""
    given = baggage.get_baggage(_BAGGAGE)
    return _read(given) if isinstance(given, str) else ()


@lru_cache(maxsize=1024)
def _read(text: str) -> tuple[Budget, ...]:
    return tuple(_written.decode(text))


def begins(period: Period, today: date) -> date | None:
    """The first day of the period; None for one without a beginning."""
    if period == "total":
        return None
    return today if period == "day" else today.replace(day=1)


def resets_at(period: Period, now: datetime) -> datetime | None:
    """The time at which the next period begins; None for a budget that is never filled again."""
    if period == "total":
        return None
    today = datetime(now.year, now.month, now.day, tzinfo=UTC)
    following = today.replace(day=1) + timedelta(days=32)
    return today + timedelta(days=1) if period == "day" else following.replace(day=1)
