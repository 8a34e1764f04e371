"""Budgets that the console shows: a key's and its tenant's; for the admin key all."""

from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel

from accounting.money import dollars
from gateway.console.pages import DATA
from gateway.keys.directory import KeyDirectory
from gateway.spending import Spending
from o11y.telemetry import identity, schema


class BudgetLine(BaseModel):
    """A budget in US dollars, and how much of it is spent; the ledger is read every few seconds."""

    scope: Literal["key", "tenant"]
    tenant: str
    key: str | None
    """The key's name."""
    period: str
    limit_usd: float
    spent_usd: float


class BudgetsAnswer(BaseModel):
    budgets: list[BudgetLine]


class Caller(BaseModel):
    """`admin`: the caller has the admin key."""

    admin: bool


def router(directory: KeyDirectory, spending: Spending) -> APIRouter:
    api = APIRouter(prefix=DATA.rstrip("/"), include_in_schema=False)

    @api.get("/caller")
    async def read_caller(request: Request) -> Caller:
        """The caller."""
        return Caller(admin=getattr(request.state, "is_admin", False))

    @api.get("/budgets")
    async def read_budgets() -> BudgetsAnswer:
        """The budgets that the caller may see."""
        key_id = identity.attributes().get(schema.KEY_ID)
        key = next((each for each in directory.keys if each.id == key_id), None)
        if key_id is not None and key is None:
            return BudgetsAnswer(budgets=[])  # deleted a moment ago
        return BudgetsAnswer(
            budgets=[
                BudgetLine(
                    scope=budget.scope,
                    tenant=account.tenant,
                    key=account.key if budget.scope == "key" else None,
                    period=budget.period,
                    limit_usd=float(dollars(budget.limit)),
                    spent_usd=float(dollars(spent)),
                )
                for account, budget, spent in spending.budgets(key)
            ]
        )

    return api
