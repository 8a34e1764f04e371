"""The money of the local model, whichever way it is asked: one row for each call, to the cent."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import RowMapping, select

from accounting.budget import Budget
from accounting.database import connect
from accounting.money import DOLLAR
from accounting.records import INTERRUPTED, OK, REMAINDER
from accounting.tables import ledger
from tests.support.accounting import headers
from tests.support.llm import NO_EXPORT, chat, llm_proxy, post, tiny_inference
from tests.support.processes import Service
from tests.support.waiting import until

DOLLAR_A_SECOND = {"LOCAL_USD_PER_HOUR": "3600"}
LOCAL: dict[str, Any] = {"name": "o11y-local", "chat_model": "tiny", "embedding_model": "tiny-e"}
EMBEDDER = "all-MiniLM-L6-v2"


@dataclass(frozen=True)
class Local:
    """inference-svc with a price and a ledger, and llm-proxy before it."""

    inference: Service
    llm: Service
    database: str
    model: str

    def generate(self, given: dict[str, str], **fields: Any) -> httpx2.Response:
        body = {"prompt": "w1 w2", "max_length": 5, **fields}
        return httpx2.post(
            f"{self.inference.url}/local-inference", json=body, headers=given, timeout=60
        )

    def chat(self, given: dict[str, str], **fields: Any) -> httpx2.Response:
        asked = chat(**{"model": self.model, "max_tokens": 5, **fields})
        return post(self.llm.url, asked, **given)

    def rows(self, tenant: str) -> list[RowMapping]:
        engine = connect(self.database)
        with closing(engine.connect()) as connection:
            query = select(ledger).where(ledger.c.tenant == tenant).order_by(ledger.c.time)
            found = list(connection.execute(query).mappings())
        engine.dispose()
        return found

    def charged(self, tenant: str) -> float:
        """The sum of the metric."""
        families = text_string_to_metric_families(
            httpx2.get(f"{self.inference.url}/metrics", headers={"accept": "text/plain"}).text
        )
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == "model_cost_usd_total" and sample.labels["tenant"] == tenant
        )

    def all_is_posted(self) -> bool:
        waiting = [
            httpx2.get(f"{each.url}/metrics").text.count("ledger_queue_rows 0.0")
            for each in (self.inference, self.llm)
        ]
        return waiting == [1, 1]


@contextmanager
def running(folder: Path, provider: dict[str, Any] = LOCAL) -> Iterator[Local]:
    money = {
        "DATABASE_URL": f"sqlite:///{folder}/o11y.db",
        "LEDGER_DIRECTORY": str(folder / "journals"),
    }
    with (
        tiny_inference(folder, **DOLLAR_A_SECOND, **NO_EXPORT, **money) as inference,
        llm_proxy(folder, provider, INFERENCE_URL=inference.url, **money) as llm,
    ):
        model = httpx2.get(f"{inference.url}/health").json()["model_name"]
        yield Local(inference, llm, money["DATABASE_URL"], model)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    with running(tmp_path_factory.mktemp("local")) as started:
        yield started


def whose(tenant: str, usd: int | None = None) -> dict[str, str]:
    """The headers of a call of this tenant, with a budget of so many dollars if any."""
    given = [] if usd is None else [Budget("tenant", tenant, "day", usd * DOLLAR)]
    return headers(given, f"key-of-{tenant}", tenant)


def leave(url: str, body: dict[str, Any], given: dict[str, str]) -> None:
    """Ask for a stream, and leave after its first bytes."""
    with httpx2.stream("POST", url, json=body, headers=given, timeout=60) as stream:
        assert stream.status_code == 200
        next(stream.iter_bytes())


def test_every_way_of_asking_is_a_row_and_together_they_cost_what_was_charged(
    local: Local,
) -> None:
    given = whose("all")
    assert local.generate(given).status_code == 200
    assert local.generate(given, stream=True).status_code == 200
    assert local.chat(given).status_code == 200
    assert local.chat(given, stream=True).status_code == 200
    texts = {"input": ["one", "two"], "model": EMBEDDER}
    assert httpx2.post(f"{local.llm.url}/v1/embeddings", json=texts, headers=given).status_code
    long = {"max_tokens": 900, "messages": [{"role": "user", "content": "w1"}], "stream": True}
    leave(f"{local.llm.url}/v1/chat/completions", {**long, "model": local.model}, given)
    own = {"prompt": "w1", "max_length": 512, "stream": True}
    leave(f"{local.inference.url}/local-inference", own, given)

    def is_settled() -> bool:
        return local.all_is_posted() and len(calls(local.rows("all"))) == 7

    until(is_settled, 30)
    rows = local.rows("all")
    assert Counter(row["operation"] for row in calls(rows)) == {
        "text_completion": 3,
        "chat": 3,
        "embeddings": 1,
    }
    assert Counter(row["status"] for row in calls(rows)) == {OK: 5, "cancelled": 2}
    for row in calls(rows):
        assert row["cost"] > 0
        assert row["input_tokens"] > 0
        assert row["trace_id"]
    assert {row["provider"] for row in rows} == {"o11y-local"}
    until(lambda: nearly(sum(r["cost"] for r in local.rows("all")), local.charged("all")), 10)


def calls(rows: list[RowMapping]) -> list[RowMapping]:
    """The rows of calls, without those for the rest of a call that was cut."""
    return [row for row in rows if row["status"] != REMAINDER]


def nearly(picodollars: int, usd: float) -> bool:
    """Each row is rounded up to a whole picodollar."""
    return abs(picodollars - usd * DOLLAR) < 100


def test_a_budget_bounds_what_the_local_model_costs_whichever_way_it_is_asked(
    local: Local,
) -> None:
    enough, little = whose("rich", 10_000), whose("poor", 10)  # a call may take 60 s and more
    for ask in (local.generate, local.chat):
        assert ask(enough).status_code == 200
        refused = ask(little)
        assert refused.status_code == 429
        assert refused.headers["x-o11y-budget"] == "tenant/day"
        streamed = ask(little, stream=True)
        assert streamed.status_code == 429
    error = local.chat(little).json()["error"]
    assert (error["type"], error["code"]) == ("insufficient_quota", "insufficient_quota")
    assert "the tenant's budget of a day, 10 USD" in error["message"]
    assert "(X-Request-Timeout bounds that)" in error["message"]
    assert local.generate({**little, "x-request-timeout": "9"}).status_code == 200
    until(local.all_is_posted, 20)
    assert len(local.rows("poor")) == 1
    assert len(local.rows("rich")) == 2


def test_prices_of_ones_own_charge_a_call_once(tmp_path: Path) -> None:
    prices = {"tiny": {"input": 1000, "output": 1000}}
    with running(tmp_path, {"name": "o11y-local", "prices": prices}) as priced:
        usage = priced.chat(whose("priced")).json()["usage"]
        until(lambda: priced.all_is_posted() and bool(priced.rows("priced")), 20)
        [row] = priced.rows("priced")
    assert row["cost"] == usage["total_tokens"] * DOLLAR // 1000
    assert priced.model == "tiny"


def test_a_call_that_dies_with_its_service_is_an_estimate(tmp_path: Path) -> None:
    given = whose("killed")
    with ExitStack() as stack:
        first = stack.enter_context(running(tmp_path))
        assert first.chat(given).status_code == 200
        until(first.all_is_posted, 20)
        [known] = first.rows("killed")
        body = {"prompt": "w1", "max_length": 512, "stream": True}
        url = f"{first.inference.url}/local-inference"
        with httpx2.stream("POST", url, json=body, headers=given, timeout=60) as stream:
            pieces = stream.iter_bytes()
            next(pieces)
            first.inference.kill()  # while its caller is there
    with running(tmp_path) as second:
        until(lambda: len(second.rows("killed")) == 2, 30)
        _, guessed = second.rows("killed")
    assert (guessed["status"], guessed["estimated"]) == (INTERRUPTED, True)
    assert guessed["cost"] > 0
    assert known["cost"] > 0
