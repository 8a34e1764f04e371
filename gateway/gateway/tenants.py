"""Tenants that have limits or budgets of their own. The store's methods block."""

from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import Engine, select

from accounting import tables
from accounting.database import Migrated, begin, upsert
from gateway.allowance import Budgets, Limits


class Tenant(NamedTuple):
    """A tenant's own allowance, over all of its keys."""

    name: str
    limits: Limits | None = None
    budgets: Budgets | None = None


class TenantStore:
    """Reads and writes tenants; one that nobody has written has no limits and no budgets."""

    def __init__(self, engine: Engine) -> None:
        self._database = Migrated(engine)

    def all(self) -> Mapping[str, Tenant]:
        """The tenants that were written, by name."""
        with self._database.ready().connect() as connection:
            rows = connection.execute(select(tables.tenants).order_by(tables.tenants.c.name))
            return {
                row.name: Tenant(
                    row.name,
                    row.limits and Limits(**row.limits),
                    row.budgets and Budgets(**row.budgets),
                )
                for row in rows
            }

    def get(self, name: str) -> Tenant:
        """One tenant."""
        return self.all().get(name, Tenant(name))

    def put(self, tenant: Tenant) -> None:
        """Make a tenant's allowance what is given."""
        values = {
            "limits": tenant.limits and tenant.limits.stored(),
            "budgets": tenant.budgets and tenant.budgets.stored(),
        }
        with self._database.ready().begin() as connection:
            begin(connection)
            new = upsert(connection, tables.tenants).values(name=tenant.name, **values)
            same = [tables.tenants.c.name]
            connection.execute(new.on_conflict_do_update(index_elements=same, set_=values))
