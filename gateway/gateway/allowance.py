"""The allowance of a key or a tenant: limits of a minute, and budgets in US dollars."""

from decimal import Decimal
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from accounting.budget import Budget, Scope, budgets_of

Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Usd = Annotated[Decimal, Field(ge=0, le=1_000_000, decimal_places=6)]


class _Allowance(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    def stored(self) -> dict[str, Any]:
        """The allowance as the database has it."""
        return self.model_dump(mode="json", exclude_none=True)


class Limits(_Allowance):
    """Limits of calls and of tokens, each None where there is none."""

    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    concurrent: Count | None = None
    """Calls at once."""


class Budgets(_Allowance):
    """Budgets in US dollars, each None where there is none: by calendar day and month (UTC), and
    in all.
    """

    day: Usd | None = None
    month: Usd | None = None
    total: Usd | None = None

    def usd(self) -> dict[str, Decimal]:
        """The budgets that there are, by period."""
        return {period: usd for period, usd in self if usd is not None}


def budgets_for(scope: Scope, owner: str, budgets: Budgets | None) -> tuple[Budget, ...]:
    """The budgets of an owner as they travel with its calls."""
    return budgets_of(scope, owner, budgets.usd() if budgets else None)
