"""Grants: what a replica may spend for a key or tenant without asking the database again.

The budgets of an owner hold over all replicas, because what was spent and what is granted never
come to more than a budget: a call is sent when a grant covers the most that it can cost. What
nothing is running for is given back within seconds. The functions here block.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from secrets import token_hex
from typing import Any, NamedTuple
from zlib import crc32

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    ScalarSelect,
    Select,
    case,
    delete,
    func,
    literal,
    select,
    text,
    update,
)

from accounting.budget import Budget, begins
from accounting.database import begin, upsert
from accounting.records import EXPIRED, Owner, Row
from accounting.tables import grants, keys, spend

TTL = timedelta(seconds=60)
"""The time for which a grant lasts without being renewed: its replica is gone then."""

_LOCK_CLASS = 0x6F31
_SHARE = 50
"""A call gets more than it needs, so that those after it needn't ask, when at least so many times
as much is left.
"""
_MORE = 10
"""So many times as much as is needed is granted then, at most."""


class Standing(NamedTuple):
    """The state of an owner's money when a grant was asked for, in picodollars."""

    wanted: int
    given: int
    left: int
    """The least that any budget has left, before it: neither spent nor granted."""
    tightest: Budget
    """The budget that has so little left."""


def ask(
    engine: Engine, replica: str, budgets: Sequence[Budget], wanted: int, now: datetime
) -> Standing:
    """Grant a replica what it wants of the budgets of one owner, or what is left of it."""
    owner: Owner = (budgets[0].scope, budgets[0].owner)
    with engine.begin() as connection:
        begin(connection)
        if connection.dialect.name == "postgresql":
            lock = text("SELECT pg_advisory_xact_lock(:class, :owner)")
            number = crc32(":".join(owner).encode()) - 2**31  # a signed number of 32 bits
            connection.execute(lock, {"class": _LOCK_CLASS, "owner": number})
        left, tightest = _left(connection, owner, budgets, now)
        given = max(0, min(left, wanted))
        if given == wanted and left >= _SHARE * wanted:
            given += min(_MORE * wanted, left // _SHARE)
        if given:
            new = upsert(connection, grants).values(
                replica=replica,
                scope=owner[0],
                owner=owner[1],
                amount=given,
                reserved=wanted,
                expires_at=now + TTL,
            )
            same = [grants.c.replica, grants.c.scope, grants.c.owner]
            added = {
                "amount": grants.c.amount + given,
                "reserved": grants.c.reserved + wanted,
                "expires_at": now + TTL,
            }
            connection.execute(new.on_conflict_do_update(index_elements=same, set_=added))
    return Standing(wanted, given, left, tightest)


def _left(
    connection: Connection, owner: Owner, budgets: Sequence[Budget], now: datetime
) -> tuple[int, Budget]:
    granted, *sums = connection.execute(standing(owner, budgets, now)).one()
    each = [
        (budget.limit - int(used) - int(granted), budget)
        for budget, used in zip(budgets, sums, strict=True)
    ]
    return min(each, key=lambda pair: pair[0])


def standing(owner: Owner, budgets: Sequence[Budget], now: datetime) -> Select[Any]:
    """A query for what is granted of an owner's money, and what was spent in the period of each
    budget: one statement, so that a row that moves from one to the other is seen once.
    """
    scope, name = owner
    granted = (
        select(func.coalesce(func.sum(grants.c.amount), 0))
        .where(grants.c.scope == scope, grants.c.owner == name)
        .scalar_subquery()
    )
    sums: list[ScalarSelect[int]] = []
    for budget in budgets:
        first = begins(budget.period, now.astimezone(UTC).date())
        spent = select(func.coalesce(func.sum(spend.c.amount), 0)).where(
            spend.c.scope == scope, spend.c.owner == name
        )
        sums.append(
            (spent if first is None else spent.where(spend.c.day >= first)).scalar_subquery()
        )
    return select(granted, *sums)


def renew(
    connection: Connection,
    replica: str,
    accounts: Mapping[Owner, tuple[int, int]],
    now: datetime,
) -> set[Owner]:
    """Give back and go on: for each owner what is returned of its grant, and what is reserved.

    Returns the owners whose grant is not there any more: it had expired.
    """
    gone = set()
    for owner, (returned, reserved) in sorted(accounts.items()):
        changed = connection.execute(
            update(grants)
            .where(_is(replica, owner))
            .values(
                amount=_less(returned),
                reserved=reserved,
                expires_at=now + TTL,
            )
        )
        if not changed.rowcount:
            gone.add(owner)
    return gone


def spent(connection: Connection, replica: str, sums: Mapping[Owner, int]) -> None:
    """Take off a replica's grants what was spent of them."""
    for owner, amount in sorted(sums.items()):
        connection.execute(update(grants).where(_is(replica, owner)).values(amount=_less(amount)))


def end(connection: Connection, replica: str) -> None:
    """Give back all that a replica was granted."""
    connection.execute(delete(grants).where(grants.c.replica == replica))


def expire(connection: Connection, now: datetime) -> dict[str, list[Row]]:
    """End the grants that nobody renews, by replica: a row for what was reserved of each, since
    calls that were running may have cost that.
    """
    ended = connection.execute(
        delete(grants)
        .where(grants.c.expires_at < now)
        .returning(grants.c.replica, grants.c.scope, grants.c.owner, grants.c.reserved)
    ).all()
    owned = connection.execute(select(keys.c.id, keys.c.tenant))
    tenants = {row.id: row.tenant for row in owned}
    rows: dict[str, list[Row]] = {}
    of_keys: dict[tuple[str, str | None], int] = {}
    for replica, scope, owner, reserved in sorted(ended, key=lambda each: str(each.scope)):
        if scope == "key":
            tenant, key_id, cost = tenants.get(owner), owner, reserved
            of_keys[replica, tenant] = of_keys.get((replica, tenant), 0) + reserved
        else:
            tenant, key_id = owner, None
            cost = reserved - of_keys.get((replica, owner), 0)
        if cost > 0:
            row = _estimate(tenant, key_id, cost, now)
            rows.setdefault(replica, []).append(row)
    return rows


def _estimate(tenant: str | None, key_id: str | None, cost: int, now: datetime) -> Row:
    return Row(
        id=token_hex(16),
        time=now.timestamp(),
        operation="unknown",
        provider="unknown",
        model="unknown",
        response_model=None,
        tenant=tenant,
        key_id=key_id,
        user_id=None,
        trace_id=None,
        cost=cost,
        estimated=True,
        status=EXPIRED,
    )


def _less(amount: int) -> ColumnElement[int]:
    """The amount of a grant without so much of it, 0 at least."""
    left = grants.c.amount - amount
    return case((left > 0, left), else_=literal(0))


def _is(replica: str, owner: Owner) -> ColumnElement[bool]:
    scope, name = owner
    return (grants.c.replica == replica) & (grants.c.scope == scope) & (grants.c.owner == name)
