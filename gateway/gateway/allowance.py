"""The allowance of a key or a tenant: limits of a minute, and budgets in US dollars."""

from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Usd = Annotated[Decimal, Field(ge=0, le=1_000_000, decimal_places=6)]


class _Allowance(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


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
