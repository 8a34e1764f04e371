"""Budgets: their periods, their way through baggage, and exact money."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from opentelemetry import context
from opentelemetry.context import Context

from accounting import budget
from accounting.budget import Budget, begins, budgets_of, resets_at, with_budgets
from accounting.money import DOLLAR, MAX, dollars, picodollars

NOW = datetime(2028, 2, 29, 23, 59, 59, tzinfo=UTC)


def test_periods_are_those_of_the_calendar() -> None:
    assert begins("day", NOW.date()) == NOW.date()
    assert str(begins("month", NOW.date())) == "2028-02-01"
    assert begins("total", NOW.date()) is None
    assert resets_at("day", NOW) == datetime(2028, 3, 1, tzinfo=UTC)
    assert resets_at("month", NOW) == datetime(2028, 3, 1, tzinfo=UTC)
    assert resets_at("month", datetime(2028, 12, 1, tzinfo=UTC)) == datetime(2029, 1, 1, tzinfo=UTC)
    assert resets_at("total", NOW) is None


def test_budgets_travel_with_a_call() -> None:
    given = budgets_of("key", "k1", {"day": Decimal("1.5"), "total": Decimal(0)})
    assert given == (Budget("key", "k1", "day", DOLLAR * 3 // 2), Budget("key", "k1", "total", 0))
    assert budgets_of("tenant", "t", None) == ()
    token = context.attach(with_budgets(Context(), given))
    try:
        assert budget.current() == given
    finally:
        context.detach(token)
    assert budget.current() == ()


@pytest.mark.parametrize("usd", ["0", "0.000000000001", "0.00000015", "1234.567891"])
def test_money_is_exact(usd: str) -> None:
    assert dollars(picodollars(Decimal(usd))) == Decimal(usd)


def test_less_than_a_picodollar_counts_as_one() -> None:
    assert picodollars(Decimal("1e-13")) == 1
    assert picodollars(Decimal("1e30")) == MAX
