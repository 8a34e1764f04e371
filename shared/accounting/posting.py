"""Posting: rows of a journal become rows of the ledger, and count in the sums. All of it blocks.

A row is posted once, however often it is tried: what is in the ledger already counts no more.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    Connection,
    Engine,
    Text,
    bindparam,
    cast,
    column,
    delete,
    func,
    select,
    update,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.sql.dml import ReturningInsert

from accounting import grants
from accounting.database import begin, upsert, utc
from accounting.records import EXPIRED, RECOVERED, REMAINDER, Begun, Owner, Row, encode, owners
from accounting.tables import ledger, spend

ROWS = 500
"""Rows that are posted in one transaction."""


@dataclass(frozen=True)
class Posted:
    """The outcome of a transaction."""

    sums: Mapping[Owner, int]
    """Picodollars that the rows cost, by who pays."""
    gone: frozenset[Owner] = frozenset()
    """Owners whose grant had expired."""


def post(
    engine: Engine,
    replica: str,
    rows: Sequence[Row],
    accounts: Mapping[Owner, tuple[int, int]],
    now: datetime,
) -> Posted:
    """Post a replica's rows, and renew its grants (see `grants.renew`)."""
    with engine.begin() as connection:
        begin(connection)
        _post(connection, replica, rows)
        gone = grants.renew(connection, replica, accounts, now)
        if gone:
            _take_back(connection, replica)
    # also those that were posted before, by a transaction whose end nobody heard of
    return Posted(_sums(rows), frozenset(gone))


def recover(engine: Engine, replica: str, rows: Sequence[Row]) -> None:
    """Post the last rows of a replica that has ended, and end its grants."""
    with engine.begin() as connection:
        begin(connection)
        _post(connection, replica, rows)
        _take_back(connection, replica)
        grants.end(connection, replica)


def expire(engine: Engine, now: datetime) -> int:
    """End the grants of replicas that are gone with their journals; how many calls that were."""
    with engine.begin() as connection:
        begin(connection)
        ended = grants.expire(connection, now)
        for replica, rows in ended.items():
            _post(connection, replica, rows)
    return sum(len(rows) for rows in ended.values())


class Typical(NamedTuple):
    """The output tokens and picodollars of a model's last answers, on average; None where there are
    none.
    """

    output_tokens: int | None = None
    cost: int | None = None


def typical(engine: Engine, begun: Begun) -> Typical:
    """The averages for the model of a call that has begun."""
    known = (
        select(ledger.c.output_tokens, ledger.c.cost)
        .where(
            ledger.c.provider == begun.provider,
            ledger.c.model == begun.model,
            ledger.c.operation == begun.operation,
            ledger.c.estimated.is_(False),
            ledger.c.status != REMAINDER,
        )
        .order_by(ledger.c.time.desc())
        .limit(1000)
        .subquery()
    )
    with engine.connect() as connection:
        means = select(func.avg(known.c.output_tokens), func.avg(known.c.cost))
        found = connection.execute(means).one()
    return Typical(*(None if mean is None else round(mean) for mean in found))


def forget(engine: Engine, before: datetime) -> int:
    """Remove the ledger's rows from before a time; the sums stay. Returns how many went."""
    with engine.begin() as connection:
        begin(connection)
        return connection.execute(delete(ledger).where(ledger.c.time < before)).rowcount


def _post(connection: Connection, replica: str, rows: Sequence[Row]) -> None:
    added: list[Row] = []
    for start in range(0, len(rows), ROWS):
        part = {row.id: row for row in rows[start : start + ROWS]}
        added += [part[row_id] for row_id in _insert(connection, replica, part.values())]
    days: Counter[tuple[Owner, date]] = Counter()
    for owner, day, cost in _paid(added):
        days[owner, day] += cost
    _add_up(connection, days)
    grants.spent(connection, replica, _sums(added))


def _insert(connection: Connection, replica: str, rows: Iterable[Row]) -> Iterable[str]:
    """Add rows to the ledger, but for those that are there. Returns the ids of what was added."""
    found = [row.columns(replica) for row in rows]
    if connection.dialect.name == "postgresql":
        return connection.execute(_FROM_JSON, {"rows": encode(found).decode()}).scalars()
    new = upsert(connection, ledger).on_conflict_do_nothing().returning(ledger.c.id)
    return connection.execute(new, found).scalars()


def _from_json() -> ReturningInsert[Any]:
    """The statement that adds all rows by one parameter: a parameter for each of their values costs
    several times as much.
    """
    columns = [column(each.name, each.type) for each in ledger.c]
    rows = func.json_to_recordset(cast(bindparam("rows", type_=Text), postgresql.JSON))
    table = rows.table_valued(*columns).render_derived(name="given", with_types=True)
    new = postgresql.insert(ledger).from_select([each.name for each in columns], select(table))
    return new.on_conflict_do_nothing().returning(ledger.c.id)


_FROM_JSON = _from_json()


def _sums(rows: Iterable[Row]) -> Counter[Owner]:
    sums: Counter[Owner] = Counter()
    for owner, _, cost in _paid(rows):
        sums[owner] += cost
    return sums


def _paid(rows: Iterable[Row]) -> Iterator[tuple[Owner, date, int]]:
    """The payments for rows: by whom, on which day, and how much."""
    for row in rows:
        if row.cost:
            for owner in owners(row.key_id, row.tenant):
                yield owner, row.day, row.cost


def _take_back(connection: Connection, replica: str) -> None:
    """Take back what was put down for a replica while nobody heard of it: its journal tells."""
    expired = (ledger.c.replica == replica) & (ledger.c.status == EXPIRED)
    columns = (ledger.c.id, ledger.c.time, ledger.c.key_id, ledger.c.tenant, ledger.c.cost)
    found = connection.execute(select(*columns).where(expired).with_for_update()).all()
    days: Counter[tuple[Owner, date]] = Counter()
    for _, time, key_id, tenant, cost in found:
        for owner in owners(key_id, tenant):
            days[owner, utc(time).date()] -= cost
    ids = ledger.c.id.in_([row[0] for row in found])
    connection.execute(update(ledger).where(ids).values(cost=0, status=RECOVERED))
    _add_up(connection, days)


def _add_up(connection: Connection, days: Mapping[tuple[Owner, date], int]) -> None:
    for ((scope, name), day), amount in sorted(days.items()):
        new = upsert(connection, spend).values(scope=scope, owner=name, day=day, amount=amount)
        same = [spend.c.scope, spend.c.owner, spend.c.day]
        more = {"amount": spend.c.amount + amount}
        connection.execute(new.on_conflict_do_update(index_elements=same, set_=more))
