"""Budgets over several replicas: none is passed, and no call is refused that there is money for."""

import asyncio
import random
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Column, Engine, func, select
from sqlalchemy.exc import OperationalError

from accounting import accounts, grants, posting
from accounting.accounts import BudgetExceeded, StoreUnavailable
from accounting.budget import Budget
from accounting.ledger import Ledger
from accounting.money import DOLLAR
from accounting.records import EXPIRED, INTERRUPTED, RECOVERED, Void
from accounting.tables import grants as granted
from accounting.tables import ledger, spend
from tests.support.accounting import begun, budgets, row
from tests.support.waiting import eventually

CENT = DOLLAR // 100
Replica = Callable[..., Ledger]


def total(engine: Engine, column: Column[Any]) -> int:
    with engine.connect() as connection:
        return int(connection.execute(select(func.coalesce(func.sum(column), 0))).scalar_one())


async def test_calls_at_once_over_three_replicas_spend_the_budget_and_no_more(
    replica: Replica, engine: Engine
) -> None:
    dice = random.Random(5)
    refused: list[BudgetExceeded] = []
    async with AsyncExitStack() as stack:
        replicas = [replica() for _ in range(3)]
        for each in replicas:
            await stack.enter_async_context(each.running())

        async def call(number: int) -> None:
            one = replicas[number % 3]
            try:
                reserved = await one.accounts.reserve(budgets(key_usd=1), CENT)
            except BudgetExceeded as exceeded:
                refused.append(exceeded)
                return
            one.begin(begun(f"{number:032}"))
            await asyncio.sleep(dice.random() / 50)
            reserved.settle(CENT)
            one.end(row(f"{number:032}", CENT))

        await asyncio.gather(*map(call, range(200)))
    assert total(engine, ledger.c.cost) == DOLLAR
    assert total(engine, spend.c.amount) == 2 * DOLLAR  # the key's and the tenant's
    assert total(engine, granted.c.amount) == 0
    assert len(refused) == 100
    assert {each.budget.scope for each in refused} == {"key"}


async def test_a_tenants_budget_holds_over_its_keys_and_takes_nothing_of_theirs(
    replica: Replica,
) -> None:
    one = replica()
    async with one.running():
        tenant = Budget("tenant", "t", "month", 3 * CENT)
        for name in "abc":
            await one.accounts.reserve([Budget("key", name, "total", 2 * CENT), tenant], CENT)
        for name in "abc":  # each has a cent left, and the tenant has none
            with pytest.raises(BudgetExceeded) as caught:
                await one.accounts.reserve([Budget("key", name, "total", 2 * CENT), tenant], CENT)
            assert caught.value.budget == tenant
            await one.accounts.reserve([Budget("key", name, "total", 2 * CENT)], CENT)


async def test_a_grant_that_is_spent_to_the_end_is_never_charged_again(
    replica: Replica, engine: Engine
) -> None:
    one = replica()
    held = [Budget("key", "k", "day", 2 * CENT)]
    async with one.running():
        first = await one.accounts.reserve(held, CENT)
        second = await one.accounts.reserve(held, CENT)
        one.begin(begun("a"))
        one.begin(begun("b"))
        await eventually(lambda: total(engine, granted.c.reserved) == 2 * CENT, 10)
        for name, reservation in (("a", first), ("b", second)):
            reservation.settle(CENT)
            one.end(row(name, CENT, tenant=None))
        await eventually(lambda: not one.waiting, 10)
        await eventually(lambda: total(engine, granted.c.reserved) == 0, 10)
        posting.expire(engine, datetime.now(UTC) + timedelta(hours=1))
    assert total(engine, spend.c.amount) == 2 * CENT


async def test_a_row_whose_posting_nobody_heard_of_is_spent_once(
    replica: Replica, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    post, lost = posting.post, [OperationalError("", {}, OSError("the connection is lost"))]

    def posted(*given: Any) -> posting.Posted:
        done = post(*given)
        if given[2] and lost:
            raise lost.pop()
        return done

    monkeypatch.setattr(posting, "post", posted)
    one = replica()
    async with one.running():
        reservation = await one.accounts.reserve(budgets(key_usd=1), CENT)
        one.begin(begun("a"))
        reservation.settle(CENT)
        one.end(row("a", CENT))
        await eventually(lambda: not one.waiting, 10)
        await eventually(lambda: total(engine, granted.c.reserved) == 0, 10)
    assert not lost
    assert total(engine, spend.c.amount) == 2 * CENT  # the key's and the tenant's


async def test_what_a_call_did_not_cost_is_free_again(replica: Replica) -> None:
    one = replica()
    async with one.running():
        for number in range(10):
            reserved = await one.accounts.reserve(budgets(key_usd=1), DOLLAR)
            with pytest.raises(BudgetExceeded):
                await one.accounts.reserve(budgets(key_usd=1), CENT)
            reserved.settle(0)
            one.void(str(number))


@pytest.mark.parametrize("asked", [1, 5])
async def test_what_another_replica_does_not_need_is_given_back(
    replica: Replica, engine: Engine, monkeypatch: pytest.MonkeyPatch, asked: int
) -> None:
    monkeypatch.setattr(accounts, "IDLE_SECONDS", 0.0)
    one, other = replica(), replica()
    async with one.running(), other.running():
        for _ in range(asked):
            (await one.accounts.reserve(budgets(key_usd=1), CENT // 10)).settle(0)
        await eventually(lambda: total(engine, granted.c.amount) == 0)
        assert await other.accounts.reserve(budgets(key_usd=1), DOLLAR)


async def test_a_call_that_costs_more_than_was_reserved_is_charged_in_full(
    replica: Replica, engine: Engine
) -> None:
    one = replica()
    async with one.running():
        reserved = await one.accounts.reserve(budgets(key_usd=1), CENT)
        reserved.settle(DOLLAR + CENT)
        one.end(row("a", DOLLAR + CENT))
        with pytest.raises(BudgetExceeded) as caught:
            await one.accounts.reserve(budgets(key_usd=1), 1)
        assert caught.value.left == 0
    assert total(engine, ledger.c.cost) == DOLLAR + CENT


async def test_many_refusals_ask_the_database_once_in_a_while(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "REFUSED_SECONDS", 60.0)
    one = replica()
    asked: list[int] = []
    ask = grants.ask

    def counting(*given: object) -> object:
        asked.append(1)
        return ask(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(grants, "ask", counting)
    async with one.running():
        for _ in range(50):
            with pytest.raises(BudgetExceeded):
                await one.accounts.reserve(budgets(key_usd=1), 2 * DOLLAR)
        assert len(asked) == 1
        assert await one.accounts.reserve(budgets(key_usd=1), DOLLAR)  # it costs less


async def test_a_grant_that_has_expired_is_not_spent_though_the_database_answers_again(
    replica: Replica, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accounting.ledger.RENEW_SECONDS", 3600.0)
    one, other = replica(), replica()
    async with one.running(), other.running():
        (await one.accounts.reserve(budgets(key_usd=1), CENT // 10)).settle(0)  # and has more now
        late = datetime.now(UTC) + grants.TTL + timedelta(seconds=1)
        await asyncio.to_thread(posting.expire, engine, late)
        for account in one.accounts._accounts.values():  # noqa: SLF001
            account.valid_until = 0.0  # as after half a minute without an answer
        left = DOLLAR - total(engine, spend.c.amount) // 2
        assert await other.accounts.reserve(budgets(key_usd=1), left)
        with pytest.raises(BudgetExceeded):
            await one.accounts.reserve(budgets(key_usd=1), CENT // 10)


async def test_periods_are_days_months_and_all_time(engine: Engine) -> None:
    today = datetime.now(UTC)
    posting.post(engine, "r", [row("a", 3 * CENT)], {}, today)
    for later, left in ((timedelta(0), 7), (timedelta(days=1), 10), (timedelta(days=32), 10)):
        day = [Budget("key", "k", "day", 10 * CENT)]
        assert grants.ask(engine, "r", day, 0, today + later).left == left * CENT
    month = [Budget("key", "k", "month", 10 * CENT)]
    assert grants.ask(engine, "r", month, 0, today).left == 7 * CENT
    assert grants.ask(engine, "r", month, 0, today + timedelta(days=32)).left == 10 * CENT
    always = [Budget("key", "k", "total", 10 * CENT)]
    assert grants.ask(engine, "r", always, 0, today + timedelta(days=400)).left == 7 * CENT


async def test_while_the_database_is_away_calls_are_refused_or_pass_as_it_is_set(
    replica: Replica,
) -> None:
    away = "sqlite:////proc/nowhere/o11y.db"
    strict, lenient = replica(away), replica(away, passes=True)
    async with strict.running(), lenient.running():
        with pytest.raises(StoreUnavailable):
            await strict.accounts.reserve(budgets(), CENT)
        reserved = await lenient.accounts.reserve(budgets(), CENT)
        reserved.settle(CENT)


async def test_rows_wait_for_a_database_and_are_written_by_the_next_process(
    replica: Replica, engine: Engine
) -> None:
    gone = replica("sqlite:////proc/nowhere/o11y.db")
    async with gone.running():
        gone.begin(begun("a"))
        gone.end(row("a", CENT))
        assert gone.waiting == 1
    following = replica()
    async with following.running():
        await eventually(lambda: following.recovered == 1)
    assert total(engine, ledger.c.cost) == CENT


def posted(engine: Engine) -> dict[str, tuple[str, int]]:
    with engine.connect() as connection:
        rows = connection.execute(select(ledger.c.id, ledger.c.status, ledger.c.cost)).all()
    return {row_id: (status, cost) for row_id, status, cost in rows}


async def test_calls_of_a_process_that_was_killed_are_estimated_and_its_grants_end(
    replica: Replica, engine: Engine
) -> None:
    killed = replica()
    await killed.accounts.reserve(budgets(), CENT)
    for record in (begun("a"), row("a", CENT), begun("b"), begun("c"), Void("c")):
        killed._journal.write(record)  # noqa: SLF001
    for each in (killed._folder, killed._journal):  # noqa: SLF001
        each.close()  # as the system does when a process ends
    killed._database.engine.dispose()  # noqa: SLF001
    assert total(engine, granted.c.amount) > 0
    following = replica()
    async with following.running():
        await eventually(lambda: following.recovered == 2)
    assert posted(engine) == {"a": ("ok", CENT), "b": (INTERRUPTED, CENT)}
    assert total(engine, granted.c.amount) == 0
    assert total(engine, spend.c.amount) == 4 * CENT


async def test_rows_are_posted_once_however_often_they_are_tried(engine: Engine) -> None:
    now = datetime.now(UTC)
    for _ in range(3):
        posting.post(engine, "r", [row("a", CENT), row("b", CENT), row("a", CENT)], {}, now)
    assert total(engine, ledger.c.cost) == 2 * CENT
    assert total(engine, spend.c.amount) == 4 * CENT


async def test_reservations_nobody_hears_of_again_are_charged_as_an_estimate(
    engine: Engine,
) -> None:
    now = datetime.now(UTC)
    for budget in budgets():
        grants.ask(engine, "lost", [budget], CENT, now)
    grants.ask(engine, "lost", [Budget("tenant", "t", "day", 2 * DOLLAR)], CENT, now)
    assert posting.expire(engine, now) == 0
    late = now + grants.TTL + timedelta(seconds=1)
    assert posting.expire(engine, late) == 2
    assert posting.expire(engine, late) == 0
    assert sorted(posted(engine).values()) == [(EXPIRED, CENT), (EXPIRED, 2 * CENT)]
    assert total(engine, granted.c.amount) == 0

    # and are taken back when its journal turns up
    posting.recover(engine, "lost", [row("a", CENT // 2)])
    assert sorted(posted(engine).values()) == [
        ("ok", CENT // 2),
        (RECOVERED, 0),
        (RECOVERED, 0),
    ]
    assert total(engine, spend.c.amount) == CENT
