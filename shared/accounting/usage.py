"""Usage: sums of the ledger over days (UTC), by who used what, and how budgets stand. The queries
block.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal

from sqlalchemy import ColumnElement, Engine, case, func, select

from accounting.money import dollars
from accounting.records import OK, REMAINDER, Owner
from accounting.tables import grants, ledger, spend

Group = Literal["day", "tenant", "key", "user", "model", "provider"]

MAX_ROWS = 10_000
"""Most rows of an answer: users may be many."""

TOKENS = (
    *("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens"),
    *("reasoning_tokens", "input_audio_tokens", "output_audio_tokens"),
)


@dataclass(frozen=True)
class Usage:
    """The sums of one group."""

    group: dict[str, str | None]
    """The values that its rows share, by what was asked for."""
    calls: int
    """Billed attempts."""
    failed: int
    estimated: int
    """Calls whose tokens nobody counted."""
    unpriced: int
    """Calls whose price isn't known; they are not in the cost."""
    tokens: dict[str, int]
    cost_usd: Decimal


def usage(
    engine: Engine,
    first: date,
    last: date,
    groups: Sequence[Group],
    *,
    key_id: str | None = None,
) -> list[Usage]:
    """The usage from the first day to the last, in the order of the groups; of one key alone, or
    all. One row more than MAX_ROWS at most. Raises SQLAlchemyError.
    """
    day = func.date(ledger.c.time)
    if engine.dialect.name == "postgresql":
        day = func.date(func.timezone("UTC", ledger.c.time))
    columns: dict[str, ColumnElement[Any]] = {
        "day": day,
        "tenant": ledger.c.tenant,
        "key": ledger.c.key_id,
        "user": ledger.c.user_id,
        "model": func.coalesce(ledger.c.response_model, ledger.c.model),
        "provider": ledger.c.provider,
    }
    by = [columns[group] for group in groups]
    counts = [func.sum(ledger.c[name]) for name in TOKENS]
    query = select(
        *by,
        func.sum(case((ledger.c.status != REMAINDER, 1), else_=0)),
        func.sum(case((ledger.c.status.not_in((OK, REMAINDER)), 1), else_=0)),
        func.sum(case((ledger.c.estimated, 1), else_=0)),
        func.sum(case((ledger.c.cost.is_(None), 1), else_=0)),
        func.sum(func.coalesce(ledger.c.cost, 0)),
        *counts,
    )
    query = query.where(ledger.c.time >= _start(first))
    query = query.where(ledger.c.time < _start(last + timedelta(days=1)))
    if key_id is not None:
        query = query.where(ledger.c.key_id == key_id)
    query = query.group_by(*by).order_by(*by).limit(MAX_ROWS + 1)
    with engine.connect() as connection:
        rows = connection.execute(query).all()
    return [_usage(groups, tuple(row)) for row in rows if row[len(by)]]


def _start(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _usage(groups: Sequence[Group], row: tuple[Any, ...]) -> Usage:
    values, (calls, failed, estimated, unpriced, cost, *counts) = (
        row[: len(groups)],
        row[len(groups) :],
    )
    names = (None if value is None else str(value) for value in values)
    return Usage(
        group=dict(zip(groups, names, strict=True)),
        calls=calls,
        failed=failed,
        estimated=estimated,
        unpriced=unpriced,
        tokens={name: int(count) for name, count in zip(TOKENS, counts, strict=True)},
        cost_usd=dollars(int(cost)),
    )


@dataclass(frozen=True)
class Sums:
    """The picodollars that a key or tenant has spent, and those that its running calls may cost."""

    day: int = 0
    month: int = 0
    total: int = 0
    reserved: int = 0


def sums(engine: Engine, now: datetime) -> dict[Owner, Sums]:
    """The sums of all who have spent anything. Raises SQLAlchemyError."""
    today = now.astimezone(UTC).date()
    month = today.replace(day=1)
    amount = spend.c.amount
    spent = select(
        spend.c.scope,
        spend.c.owner,
        func.sum(case((spend.c.day == today, amount), else_=0)),
        func.sum(case((spend.c.day >= month, amount), else_=0)),
        func.sum(amount),
    ).group_by(spend.c.scope, spend.c.owner)
    kept = select(grants.c.scope, grants.c.owner, func.sum(grants.c.reserved)).group_by(
        grants.c.scope, grants.c.owner
    )
    with engine.connect() as connection:
        reserved = {(row[0], row[1]): int(row[2]) for row in connection.execute(kept)}
        rows = connection.execute(spent).all()
    found: dict[Owner, Sums] = {owner: Sums(reserved=each) for owner, each in reserved.items()}
    for scope, name, day, this_month, total in rows:
        kept_now = reserved.get((scope, name), 0)
        found[scope, name] = Sums(int(day), int(this_month), int(total), kept_now)
    return found
