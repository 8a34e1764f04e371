"""Money over real processes: budgets under a race, and a ledger that kills take nothing from."""

import asyncio
import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from decimal import Decimal
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import RowMapping, func, select

from accounting.budget import Budget
from accounting.database import connect
from accounting.money import DOLLAR, dollars, picodollars
from accounting.records import INTERRUPTED
from accounting.tables import grants, ledger, spend
from tests.support import openai_standin, postgres
from tests.support.accounting import headers
from tests.support.llm import Call, chat, llm_proxy, post, provider
from tests.support.openai_standin import Standin, Step
from tests.support.processes import Service
from tests.support.waiting import until

USED = {"prompt_tokens": 100, "completion_tokens": 5000, "total_tokens": 5100}
"""By OpenAI's price list for gpt-4o-mini, 0.15 USD and 0.60 USD for a million tokens."""

FEW = {"prompt_tokens": 10, "completion_tokens": 9, "total_tokens": 19}
COST = picodollars(Decimal("0.003015"))

CALLS = 400
"""Calls under way when a replica is killed."""


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("database")
    with postgres.database(request.param, folder) as found:
        yield found


@pytest.fixture
def standin() -> Iterator[Standin]:
    with openai_standin.running() as running:
        yield running


class LlmProxy:
    """Starts llm-proxy with a database; replicas share the folder of their journals."""

    def __init__(self, database: str, folder: Path, standin: Standin, **settings: str) -> None:
        self._folder = folder
        self._standin = standin
        self._settings = {
            "DATABASE_URL": database,
            "LEDGER_DIRECTORY": str(folder / "journals"),
            **settings,
        }

    def start(self, stack: ExitStack) -> Service:
        upstream = provider("p", self._standin, breaker_failures=100_000, retries=0)
        return stack.enter_context(llm_proxy(self._folder, upstream, **self._settings))


def rows(database: str) -> Sequence[RowMapping]:
    engine = connect(database)
    with closing(engine.connect()) as connection:
        found = connection.execute(select(ledger)).mappings().all()
    engine.dispose()
    return found


def total(database: str, table: str) -> int:
    column = {"spend": spend.c.amount, "grants": grants.c.amount}[table]
    engine = connect(database)
    with closing(engine.connect()) as connection:
        found = connection.execute(select(func.coalesce(func.sum(column), 0))).scalar_one()
    engine.dispose()
    return int(found)


def at_once(urls: Sequence[str], calls: Sequence[Call], **given: str) -> Counter[int]:
    """The statuses of the calls, all of them under way together and spread over the replicas."""

    async def all_of_them() -> Counter[int]:
        limits = httpx2.Limits(max_connections=len(calls))
        async with httpx2.AsyncClient(timeout=60, limits=limits) as client:

            async def one(number: int, call: Call) -> int:
                url = urls[number % len(urls)] + call.path
                try:
                    answer = await client.post(url, json=call.body, headers=given)
                except httpx2.HTTPError:
                    return 0
                return answer.status_code

            made = (one(number, call) for number, call in enumerate(calls))
            return Counter(await asyncio.gather(*made))

    return asyncio.run(all_of_them())


def test_200_calls_at_once_over_3_replicas_pass_no_budget(
    database: str, tmp_path: Path, standin: Standin
) -> None:
    standin.default = Step(pace=0.02, usage=USED)
    key = f"race{secrets.token_hex(4)}"
    limit = picodollars(Decimal("0.1"))
    budgets = [Budget("key", key, "day", limit), Budget("tenant", key, "month", DOLLAR)]
    given = headers(budgets, key, key)
    with ExitStack() as stack:
        starter = LlmProxy(database, tmp_path, standin)
        urls = [starter.start(stack).url for _ in range(3)]
        for stream in (False, True):
            calls = [chat(max_tokens=5000, stream=stream) for _ in range(100)]
            statuses = at_once(urls, calls, **given)
            assert statuses[200] + statuses[429] == 100
        for _ in range(40):  # what is left is spent, call by call
            if not at_once(urls, [chat(max_tokens=5000)], **given)[200]:
                break
        refused = post(urls[0], chat(max_tokens=5000), **given)
    mine = [row for row in rows(database) if row["key_id"] == key]
    spent = sum(row["cost"] for row in mine)
    assert spent == COST * len(mine) <= limit
    assert limit - spent < 2 * COST  # less than the most that a call may cost
    assert len(mine) == len(standin.ledger.bills())
    assert total(database, "grants") == 0

    error = refused.json()["error"]
    assert (error["code"], error["type"]) == ("insufficient_quota", "insufficient_quota")
    assert "the key's budget of a day, 0.1 USD, has" in error["message"]
    assert refused.headers["x-o11y-budget"] == "key/day"
    assert refused.headers["x-should-retry"] == "false"
    assert 0 < int(refused.headers["retry-after"]) <= 86_400


@pytest.mark.parametrize("stream", [False, True])
def test_a_kill_under_load_takes_no_cent_from_the_ledger(
    database: str, tmp_path: Path, standin: Standin, stream: bool
) -> None:
    standin.default = Step(pace=0.005, latency=0.02, usage=USED)
    tenant = f"kill{secrets.token_hex(4)}"
    given = headers([Budget("tenant", tenant, "total", 10 * DOLLAR)], tenant, tenant)
    starter = LlmProxy(database, tmp_path, standin)
    with ExitStack() as stack:
        killed = starter.start(stack)
        with ThreadPoolExecutor(1) as pool:
            calls = [chat(max_tokens=5000, stream=stream) for _ in range(CALLS)]
            load = pool.submit(at_once, [killed.url], calls, **given)
            until(lambda: len(standin.requests) > 40, 30)
            told = counted(killed)
            seen = len(standin.requests)
            until(lambda: len(standin.requests) > min(seen + 20, CALLS - 20), 30)
            killed.kill()
            statuses = load.result()
        assert statuses[200] < CALLS
        following = starter.start(stack)
        until(lambda: len(list((tmp_path / "journals").iterdir())) == 1, 30)
        assert at_once([following.url], [chat(max_tokens=5000)], **given)[200] == 1
        told += counted(following)
    mine = of(database, tenant)
    assert len(mine) >= len(standin.requests)  # some were killed on their way to the provider
    assert len({row["id"] for row in mine}) == len(mine)
    known = [row for row in mine if not row["estimated"]]
    assert all(row["cost"] == COST for row in known)
    assert len(known) >= statuses[200]  # no answer that a caller got is an estimate
    guessed = [row for row in mine if row["estimated"]]
    assert {row["status"] for row in guessed} <= {INTERRUPTED, "cancelled"}
    assert all(0 < row["cost"] <= 2 * COST for row in guessed)
    spent = sum(row["cost"] for row in mine)
    assert spends(database, tenant) == 2 * spent  # of the key and of the tenant
    assert total(database, "grants") == 0
    assert abs(told - dollars(spent)) <= dollars(2 * COST)  # calls that end while it is collected
    difference = dollars(spent) - (standin.ledger.usd() or 0)
    assert abs(difference) <= dollars(2 * COST) * len(guessed)


def counted(service: Service) -> Decimal:
    """US dollars by `openai_cost_usd_total`."""
    text = httpx2.get(f"{service.url}/metrics", headers={"accept": "text/plain"}).text
    samples = [each for each in text.splitlines() if each.startswith("openai_cost_usd_total{")]
    return sum((Decimal(each.rpartition(" ")[2]) for each in samples), Decimal(0))


def of(database: str, tenant: str) -> list[RowMapping]:
    return [row for row in rows(database) if row["tenant"] == tenant]


def spends(database: str, owner: str) -> int:
    engine = connect(database)
    with closing(engine.connect()) as connection:
        query = select(func.sum(spend.c.amount)).where(spend.c.owner == owner)
        found = connection.execute(query).scalar_one()
    engine.dispose()
    return int(found)


def test_while_the_database_is_away_answers_are_given_and_rows_wait(
    tmp_path: Path, standin: Standin
) -> None:
    """Calls without a budget: the ledger costs them a line in a file."""
    away = tmp_path / "nowhere"
    away.write_text("a file, where a folder should be")
    starter = LlmProxy(f"sqlite:///{away}/o11y.db", tmp_path, standin)
    with ExitStack() as stack:
        proxy = starter.start(stack)
        assert at_once([proxy.url], [chat() for _ in range(20)])[200] == 20
        held = [Budget("key", "k", "day", DOLLAR)]
        assert at_once([proxy.url], [chat(max_tokens=5)], **headers(held))[503] == 1
        metrics = httpx2.get(f"{proxy.url}/metrics").text
        assert "ledger_queue_rows 20.0" in metrics
        away.unlink()
        until(lambda: "ledger_queue_rows 0.0" in httpx2.get(f"{proxy.url}/metrics").text, 20)
    assert len(rows(f"sqlite:///{away}/o11y.db")) == 20


@pytest.mark.parametrize(("passes", "status"), [("refuse", 422), ("pass", 200)])
def test_a_price_that_nobody_knows_is_refused_or_passes_as_it_is_set(
    tmp_path: Path, standin: Standin, passes: str, status: int
) -> None:
    given = headers([Budget("key", "k", "day", DOLLAR)])
    database = f"sqlite:///{tmp_path}/o11y.db"
    with ExitStack() as stack:
        proxy = LlmProxy(database, tmp_path, standin, BUDGET_UNKNOWN_PRICE=passes).start(stack)
        answer = post(proxy.url, chat(model="house-model"), **given)
    assert answer.status_code == status
    if status == 422:
        assert answer.json()["error"]["code"] == "unknown_price"
    assert [row["cost"] for row in rows(database)] == ([None] if status == 200 else [])


def test_budgets_without_a_ledger_are_refused(tmp_path: Path, standin: Standin) -> None:
    with llm_proxy(tmp_path, provider("p", standin)) as proxy:
        answer = post(proxy.url, chat(), **headers([Budget("key", "k", "day", DOLLAR)]))
        assert answer.status_code == 503
        assert "DATABASE_URL" in answer.json()["error"]["message"]
