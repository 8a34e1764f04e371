"""Usage: the ledger's sums by day and by who used what, on both databases."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from msgspec.structs import replace
from sqlalchemy import Engine

from accounting import grants, posting
from accounting.budget import Budget
from accounting.money import DOLLAR, picodollars
from accounting.records import REMAINDER, Row
from accounting.usage import Group, Sums, sums, usage
from tests.support.accounting import row

DAY = date(2026, 3, 31)
CENT = picodollars(Decimal("0.01"))


def at(name: str, hour: int, *, cost: int | None = CENT, **given: object) -> Row:
    """A row of so many hours after the day began (UTC)."""
    begin = datetime(2026, 3, 31, tzinfo=UTC) + timedelta(hours=hour)
    return replace(row(name, cost), time=begin.timestamp(), **given)


@pytest.fixture
def booked(engine: Engine) -> Engine:
    rows = [
        at("a", 0),
        at("b", 23, key_id="k2", user_id="u", response_model="m-2026"),
        at("c", 24, tenant="other", key_id="k3", cost=None, status="500"),
        at("d", -1, estimated=True, provider="q"),
    ]
    posting.post(engine, "r", rows, {}, datetime.now(UTC))
    return engine


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (["day"], {("2026-03-31",): 2}),
        (["tenant"], {("t",): 2}),
        (["key"], {("k",): 1, ("k2",): 1}),
        (["user"], {(None,): 1, ("u",): 1}),
        (["model"], {("m",): 1, ("m-2026",): 1}),
        (["provider", "day"], {("p", "2026-03-31"): 2}),
        ([], {(): 2}),
    ],
)
def test_calls_are_counted_by_what_is_asked_for(
    booked: Engine, groups: list[Group], expected: dict[tuple[str | None, ...], int]
) -> None:
    found = usage(booked, DAY, DAY, groups)
    assert {tuple(each.group.values()): each.calls for each in found} == expected


def test_days_are_those_of_utc_and_both_ends_count(booked: Engine) -> None:
    day = timedelta(days=1)
    found = usage(booked, DAY - day, DAY + day, ["day"])
    assert [each.group["day"] for each in found] == ["2026-03-30", "2026-03-31", "2026-04-01"]
    assert [each.cost_usd for each in found] == [Decimal("0.01"), Decimal("0.02"), Decimal(0)]
    assert [(each.failed, each.estimated, each.unpriced) for each in found] == [
        (0, 1, 0),
        (0, 0, 0),
        (1, 0, 1),
    ]
    assert found[1].tokens["input_tokens"] == 6
    assert usage(booked, DAY + 2 * day, DAY + 2 * day, ["day"]) == []
    assert usage(booked, DAY + 2 * day, DAY + 2 * day, []) == []


def test_the_rest_of_a_call_costs_and_is_no_call(booked: Engine) -> None:
    [before] = usage(booked, DAY, DAY, [])
    posting.post(booked, "r", [at("rest", 0, status=REMAINDER)], {}, datetime.now(UTC))
    [after] = usage(booked, DAY, DAY, [])
    assert (after.calls, after.failed) == (before.calls, before.failed)
    assert after.cost_usd == before.cost_usd + Decimal("0.01")


def test_a_key_sees_its_own_alone(booked: Engine) -> None:
    found = usage(booked, DAY, DAY, ["tenant", "user", "key"], key_id="k2")
    assert [each.group for each in found] == [{"tenant": "t", "user": "u", "key": "k2"}]
    assert usage(booked, DAY, DAY, ["day"], key_id="nobody") == []


def test_sums_are_of_the_day_the_month_and_all_time(booked: Engine) -> None:
    grants.ask(booked, "r", [Budget("key", "new", "day", DOLLAR)], CENT, datetime.now(UTC))
    found = sums(booked, datetime(2026, 3, 31, 12, tzinfo=UTC))
    assert found["key", "k"] == Sums(CENT, 2 * CENT, 2 * CENT)
    assert found["tenant", "t"] == Sums(2 * CENT, 3 * CENT, 3 * CENT)
    assert found["key", "new"].reserved >= CENT
    following = sums(booked, datetime(2026, 4, 1, tzinfo=UTC))
    assert following["tenant", "t"] == Sums(0, 0, 3 * CENT)


def test_old_rows_go_and_their_sums_stay(booked: Engine) -> None:
    assert posting.forget(booked, datetime(2026, 3, 31, 12, tzinfo=UTC)) == 2
    assert [each.calls for each in usage(booked, DAY, DAY, ["day"])] == [1]
    assert sums(booked, datetime(2026, 3, 31, 12, tzinfo=UTC))["tenant", "t"].day == 2 * CENT
