"""Spending of the gateway's callers, as the ledger has it: read again every few seconds.

Budgets hold by what llm-proxy reserves; this is what people are told of it.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from opentelemetry.metrics import Observation
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from accounting.budget import Budget
from accounting.database import Migrated
from accounting.money import dollars
from accounting.records import Owner
from accounting.usage import Sums, sums
from gateway.allowance import Budgets, budgets_for
from gateway.keys.key import Key
from o11y.telemetry import schema
from o11y.telemetry.signals import Telemetry

logger = logging.getLogger(__name__)

REFRESH_SECONDS = 10.0

MAX_OWNERS = 300
"""Keys and tenants that are metric labels: those that have spent most this month."""

ALL = "_all"
"""The label `key` of what is a tenant's."""


class Account(NamedTuple):
    """A key or a tenant, with its labels and budgets."""

    owner: Owner
    tenant: str
    key: str
    budgets: tuple[Budget, ...]


class Spending:
    """Knows what keys and tenants have spent, and which of their budgets are nearly used up.

    `keys` and `tenants` are functions that return those there are. `warn_ratio` is the part of a
    budget from which a warning is given.
    """

    def __init__(
        self,
        engine: Engine,
        keys: Callable[[], Iterable[Key]],
        tenants: Callable[[], Mapping[str, Budgets | None]],
        telemetry: Telemetry,
        warn_ratio: float,
    ) -> None:
        self._database = Migrated(engine)
        self._keys = keys
        self._tenants = tenants
        self._warn_ratio = warn_ratio
        self._sums: Mapping[Owner, Sums] = {}
        self._accounts: list[Account] = []
        self._warned: set[tuple[Budget, str]] = set()
        self._warnings: dict[Owner, str] = {}
        self._reported = False
        telemetry.observable_gauge(schema.SPEND, self._observe_spend)
        telemetry.observable_gauge(schema.BUDGET_LIMIT, self._observe_limits)
        telemetry.observable_gauge(schema.BUDGET_REMAINING, self._observe_remaining)
        telemetry.observable_gauge(schema.BUDGET_RESERVED, self._observe_reserved)

    def warning(self, key: Key) -> str | None:
        """The budgets of a key and its tenant that are nearly used up, such as `key/day;used=83`
        (percent), with a comma between two; None where there are none.
        """
        if not self._warnings:
            return None
        owners: tuple[Owner, Owner] = (("key", key.id), ("tenant", key.tenant))
        return ", ".join(self._warnings[each] for each in owners if each in self._warnings) or None

    def budgets(self, key: Key | None) -> list[tuple[Account, Budget, int]]:
        """The budgets of a key and its tenant, or all, each with the picodollars spent of it."""
        own = {("key", key.id), ("tenant", key.tenant)} if key else None
        return [
            (account, budget, self._spent(budget))
            for account in self._all()
            if own is None or account.owner in own
            for budget in account.budgets
        ]

    async def watch(self) -> None:
        """Read the sums again and again."""
        while True:
            await self.refresh()
            await asyncio.sleep(REFRESH_SECONDS)

    async def refresh(self) -> None:
        """Read the sums once; what was known stays where that fails."""
        accounts = list(self._all())
        if not accounts:
            return
        try:
            found = await asyncio.to_thread(_read, self._database, datetime.now(UTC))
        except (SQLAlchemyError, OSError) as error:
            if not self._reported:
                logger.warning("the ledger can't be read: %s", type(error).__name__)
                self._reported = True
            return
        self._reported = False
        self._sums = found
        accounts.sort(key=lambda each: found.get(each.owner, Sums()).month, reverse=True)
        self._accounts = accounts[:MAX_OWNERS]
        self._warn(accounts)

    def _all(self) -> Iterator[Account]:
        keys = list(self._keys())
        names = Counter((key.tenant, key.name) for key in keys)
        tenants = dict(self._tenants())
        for key in keys:
            tenants.setdefault(key.tenant, None)
            is_only = names[key.tenant, key.name] == 1
            label = key.name if is_only else f"{key.name} ({key.id})"
            budgets = budgets_for("key", key.id, key.budgets)
            yield Account(("key", key.id), key.tenant, label, budgets)
        for name, given in tenants.items():
            yield Account(("tenant", name), name, ALL, budgets_for("tenant", name, given))

    def _warn(self, accounts: Iterable[Account]) -> None:
        warnings: dict[Owner, str] = {}
        for account in accounts:
            near = [
                (budget, used)
                for budget in account.budgets
                if (used := self._used(budget)) >= self._warn_ratio
            ]
            if near:
                warnings[account.owner] = ", ".join(
                    f"{budget.scope}/{budget.period};used={used:.0%}".rstrip("%")
                    for budget, used in near
                )
            for budget, used in near:
                self._say(budget, used)
        self._warnings = warnings

    def _say(self, budget: Budget, used: float) -> None:
        """Log once a period that a budget is nearly used up."""
        now = datetime.now(UTC)
        period = {"day": f"{now:%Y-%m-%d}", "month": f"{now:%Y-%m}", "total": ""}[budget.period]
        if (budget, period) in self._warned:
            return
        if len(self._warned) >= 10_000:
            self._warned.clear()
        self._warned.add((budget, period))
        words = "the budget of %s %s for a period (%s) is used up to %.0f %%"
        logger.warning(words, budget.scope, budget.owner, budget.period, 100 * used)

    def _used(self, budget: Budget) -> float:
        return self._spent(budget) / budget.limit if budget.limit else 1.0

    def _spent(self, budget: Budget) -> int:
        spent: int = getattr(self._sums.get((budget.scope, budget.owner), Sums()), budget.period)
        return spent

    def _observe_spend(self) -> Iterable[Observation]:
        for account in self._accounts:
            spent = self._sums.get(account.owner, Sums())
            for period in ("day", "month", "total"):
                yield _observed(getattr(spent, period), account, period)

    def _observe_limits(self) -> Iterable[Observation]:
        for account, budget in self._budgets():
            yield _observed(budget.limit, account, budget.period)

    def _observe_remaining(self) -> Iterable[Observation]:
        for account, budget in self._budgets():
            yield _observed(budget.limit - self._spent(budget), account, budget.period)

    def _observe_reserved(self) -> Iterable[Observation]:
        for account in self._accounts:
            if account.budgets:
                yield _observed(self._sums.get(account.owner, Sums()).reserved, account)

    def _budgets(self) -> Iterator[tuple[Account, Budget]]:
        return ((account, budget) for account in self._accounts for budget in account.budgets)


def _read(database: Migrated, now: datetime) -> Mapping[Owner, Sums]:
    return sums(database.ready(), now)


def _observed(amount: int, account: Account, period: str | None = None) -> Observation:
    labels = {schema.LABEL_TENANT: account.tenant, schema.LABEL_KEY: account.key}
    return Observation(
        float(dollars(amount)), labels | ({schema.LABEL_PERIOD: period} if period else {})
    )
