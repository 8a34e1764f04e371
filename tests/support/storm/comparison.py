"""The comparison of all accounts when a storm is over and all is quiet."""

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from decimal import Decimal
from typing import Any

import httpx2
from sqlalchemy import select

from accounting.database import connect
from accounting.money import DOLLAR, dollars
from accounting.records import EXPIRED, RECOVERED, REMAINDER
from accounting.tables import ledger, spend
from tests.support.llm import chat
from tests.support.storm.outcome import Outcome
from tests.support.storm.stack import BUDGETS, KEYS, TENANT_BUDGET, Stack, told

CALL_SECONDS = 30.0


def compare(stack: Stack, outcome: Outcome) -> None:
    """Compare all accounts; what differs is a fault of the outcome."""
    engine = connect(stack.database)
    with closing(engine.connect()) as connection:
        rows = connection.execute(select(ledger)).mappings().all()
        sums = connection.execute(select(spend)).mappings().all()
    engine.dispose()
    local = [row for row in rows if row["provider"] == "o11y-local"]
    outside = [row for row in rows if row["provider"] in ("p", "q")]
    outcome.rows = len([row for row in rows if row["status"] != REMAINDER])
    outcome.estimated_rows = len([row for row in rows if row["estimated"]])
    outcome.local_usd = dollars(sum(row["cost"] for row in local))
    outcome.known_usd = dollars(sum(row["cost"] for row in outside if not row["estimated"]))
    outcome.estimated_usd = dollars(sum(row["cost"] for row in outside if row["estimated"]))
    _compare_attempts(stack, outcome, outside)
    outcome.told_usd = stack.told_usd + sum((told(each.url) for each in stack.proxies), Decimal(0))
    spent = outcome.known_usd + outcome.estimated_usd
    if abs(outcome.told_usd - spent) > Decimal("0.01"):
        outcome.faults.append(f"openai_cost_usd_total says {outcome.told_usd}, not {spent}")
    owners = Counter[tuple[str, str]]()
    for row in rows:
        owners["key", row["key_id"]] += row["cost"]
        owners["tenant", row["tenant"]] += row["cost"]
    found = Counter[tuple[str, str]]()
    for row in sums:
        found[row["scope"], row["owner"]] += row["amount"]
    if found != owners:
        outcome.faults.append(f"sums {dict(found)} are not those of the rows {dict(owners)}")
    limits = {("key", f"{name:0>12}"): usd for name, usd in BUDGETS.items()}
    for owner, limit in {**limits, ("tenant", "one"): TENANT_BUDGET}.items():
        if found[owner] > limit * DOLLAR:
            outcome.faults.append(f"{owner} spent {dollars(found[owner])} of {limit}")
    if expired := [row for row in rows if row["status"] in (EXPIRED, RECOVERED)]:
        outcome.faults.append(f"{len(expired)} reservations expired, and no journal was lost")
    if outcome.unaccounted:
        outcome.faults.append(f"{outcome.unaccounted} billed attempts are in no row")
    if outcome.differing:
        outcome.faults.append(f"{outcome.differing} calls cost other than they were billed")
    _ask_again(stack, outcome)


def _compare_attempts(stack: Stack, outcome: Outcome, rows: Sequence[Any]) -> None:
    """Compare the stand-ins' bills with the rows, trace by trace."""
    of_trace = Counter[str]()
    cost = Counter[str]()
    estimated = set()
    for row in rows:
        of_trace[row["trace_id"]] += 1
        cost[row["trace_id"]] += row["cost"]
        if row["estimated"]:
            estimated.add(row["trace_id"])
    for standin in (stack.first, stack.second):
        outcome.billed_usd += standin.ledger.usd()
    billed, usd = _billed(stack)
    outcome.attempts = sum(billed.values())
    for trace, count in billed.items():
        outcome.unaccounted += max(0, count - of_trace[trace])
        # each row is rounded up to a whole picodollar
        rounded = 0 <= cost[trace] - usd.get(trace, 0) * DOLLAR < count
        if trace in usd and trace not in estimated and not rounded:
            outcome.differing += 1


def _billed(stack: Stack) -> tuple[Counter[str], dict[str, Decimal]]:
    """The attempts that were billed by trace, and US dollars of those whose call is known."""
    billed: Counter[str] = Counter()
    usd: dict[str, Decimal] = {}
    for standin in (stack.first, stack.second):
        trace_of: dict[str, str] = {}
        for received in standin.requests:
            if received.method == "POST" and received.status == 200:
                trace = received.headers["traceparent"].split("-")[1]
                billed[trace] += 1
                if received.id:
                    trace_of[received.id] = trace
        for bill in standin.ledger.bills():
            if bill.id and bill.usd is not None:
                trace = trace_of[bill.id]
                usd[trace] = usd.get(trace, Decimal(0)) + bill.usd
    return billed, usd


def _ask_again(stack: Stack, outcome: Outcome) -> None:
    """Nobody is refused who has money, and nobody let in who has none."""
    for key, wanted in (("a", 200), ("c", 429)):
        body = chat(max_tokens=10_000, model="gpt-4o").body
        answer = httpx2.post(
            f"{stack.gateways[0].url}/v1/chat/completions",
            json=body,
            headers={"authorization": f"Bearer {KEYS[key]}"},
            timeout=CALL_SECONDS,
        )
        if answer.status_code != wanted:
            fault = f"{answer.status_code} for {key} when all is quiet: {answer.text[:200]}"
            outcome.faults.append(fault)
