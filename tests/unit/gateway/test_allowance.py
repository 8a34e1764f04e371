"""Limits and budgets of keys and tenants: administered, sent with calls, warned of; and usage."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx2
import pytest
from msgspec.structs import replace
from opentelemetry import baggage
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context

from accounting import posting
from accounting.database import connect, upgrade
from accounting.money import DOLLAR, picodollars
from accounting.records import Row
from gateway.keys.__main__ import main
from gateway.keys.directory import KeyDirectory
from gateway.keys.key import parse
from o11y.telemetry import schema
from tests.support.accounting import row
from tests.support.gateway_services import CHAT, EMBED, Gateway
from tests.support.waiting import eventually

ADMIN = {"authorization": "Bearer the-admin-key-0123456789"}


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/o11y.db"


@asynccontextmanager
async def running(url: str, **given: Any) -> AsyncIterator[Gateway]:
    gateway = Gateway(database_url=url, admin_key="the-admin-key-0123456789", **given)
    async with gateway.app.router.lifespan_context(gateway.app):
        yield gateway
    await gateway.client.aclose()


async def made(gateway: Gateway, **fields: Any) -> tuple[str, dict[str, str]]:
    """A key's id, and the headers of its calls."""
    body = {"name": "web", "tenant": "acme", **fields}
    answer = await gateway.client.post("/admin/keys", json=body, headers=ADMIN)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"], {"authorization": f"Bearer {answer.json()['key']}"}


def book(url: str, *rows: Row) -> None:
    engine = connect(url)
    upgrade(engine)
    posting.post(engine, "r", rows, {}, datetime.now(UTC))
    engine.dispose()


# Administration


async def test_a_keys_and_a_tenants_allowance_are_set_and_shown(url: str) -> None:
    limits, budgets = {"requests_per_minute": 60, "concurrent": 3}, {"day": "5.5", "total": "100"}
    async with running(url) as gateway:
        key_id, _ = await made(gateway, limits=limits, budgets=budgets)
        shown = (await gateway.client.get(f"/admin/keys/{key_id}", headers=ADMIN)).json()
        assert shown["limits"] == {**limits, "tokens_per_minute": None}
        assert shown["budgets"] == {**budgets, "month": None}
        path = "/admin/tenants/acme"
        empty = {"name": "acme", "limits": None, "budgets": None}
        assert (await gateway.client.get(path, headers=ADMIN)).json() == empty
        put = await gateway.client.put(path, json={"budgets": {"month": 20}}, headers=ADMIN)
        assert put.json()["budgets"] == {"day": None, "month": "20", "total": None}
        listed = (await gateway.client.get("/admin/tenants", headers=ADMIN)).json()
        assert listed == {"tenants": [put.json()]}


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("POST", "keys", {"limits": {"requests_per_minute": 0}}, "limits.requests_per_minute"),
        ("POST", "keys", {"limits": {"per_hour": 1}}, "limits.per_hour"),
        ("POST", "keys", {"budgets": {"day": -1}}, "budgets.day"),
        ("POST", "keys", {"budgets": {"day": "0.0000001"}}, "budgets.day"),
        ("POST", "keys", {"budgets": {"week": 1}}, "budgets.week"),
        ("PUT", "tenants/acme", {"budgets": {"month": "much"}}, "budgets.month"),
        ("PUT", "tenants/a b", {}, "name"),
    ],
)
async def test_mistakes_are_named(
    url: str, method: str, path: str, body: dict[str, Any], field: str
) -> None:
    given = {"name": "web", "tenant": "acme", **body} if method == "POST" else body
    async with running(url) as gateway:
        answer = await gateway.client.request(method, f"/admin/{path}", json=given, headers=ADMIN)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == field


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("DATABASE_URL", url)

    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(arguments)
        output = capsys.readouterr()
        return status, output.out, output.err

    return run


def test_allowances_on_the_command_line(run: Run) -> None:
    given = ("--limit", "requests_per_minute=60", "--budget", "day=5", "--budget", "month=50.25")
    parsed = parse(run("create", "--name", "web", "--tenant", "acme", *given)[1].strip())
    assert parsed
    shown = run("show", parsed[0])[1]
    assert "limits: requests_per_minute=60\n" in shown
    assert "budgets: day=5, month=50.25\n" in shown
    changed = run("update", parsed[0], "--budget", "day=none", "--budget", "total=9")[1]
    assert "budgets: month=50.25, total=9\n" in changed
    assert "limits: requests_per_minute=60\n" in changed
    assert run("tenant", "acme")[1] == "acme\n  limits: none\n  budgets: none\n"
    assert "budgets: day=7\n" in run("tenant", "acme", "--budget", "day=7")[1]
    assert "limits: concurrent=2\n" in run("tenant", "acme", "--limit", "concurrent=2")[1]
    assert "budgets: day=7\n" in run("tenant", "acme")[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tenant", "a b"], "tenant: "),
        (["tenant", "a", "--budget", "week=5"], "budgets.week: "),
        (["tenant", "a", "--budget", "day=much"], "budgets.day: "),
        (["create", "--name", "w", "--tenant", "a", "--limit", "concurrent=0"], "limits.conc"),
    ],
)
def test_a_mistake_on_the_command_line_is_a_line(
    run: Run, arguments: list[str], words: str
) -> None:
    status, output, errors = run(*arguments)
    assert (status, output) == (1, "")
    assert errors.startswith(words)


async def test_a_file_of_keys_may_have_allowances(url: str, tmp_path: Path) -> None:
    entry = {
        "key": f"o11y-sk-0123456789ab-{'x' * 32}",
        "name": "web",
        "tenant": "acme",
        "limits": {"concurrent": 2},
        "budgets": {"day": "1"},
    }
    (tmp_path / "keys.json").write_text(json.dumps([entry]))
    async with running(url, keys_file=tmp_path / "keys.json") as gateway:
        shown = await gateway.client.get("/admin/keys/0123456789ab", headers=ADMIN)
        assert shown.json()["budgets"]["day"] == "1"


@pytest.mark.parametrize("names", [["m" * 200] * 19, list("abc") * 133, ["é" * 80] * 9])
async def test_models_travel_whole_or_are_refused(url: str, names: list[str]) -> None:
    async with running(url) as gateway:
        form = {"name": "web", "tenant": "acme", "models": names}
        answer = await gateway.client.post("/admin/keys", json=form, headers=ADMIN)
        if answer.status_code == 422:
            assert answer.json()["errors"][0]["field"] == "models"
            return
        key = {"authorization": f"Bearer {answer.json()['key']}"}
        await gateway.post("/chat", {"message": "a"}, key)
        sent = gateway.services.asked(CHAT).headers["baggage"]
    carried = W3CBaggagePropagator().extract({"baggage": sent}, Context())
    assert json.loads(str(baggage.get_baggage("o11y.key.models", carried))) == names


# On the way


async def test_the_budgets_of_key_and_tenant_travel_to_who_knows_what_calls_cost(url: str) -> None:
    async with running(url) as gateway:
        key_id, key = await made(gateway, budgets={"day": 1})
        await gateway.client.put(
            "/admin/tenants/acme", json={"budgets": {"month": 2}}, headers=ADMIN
        )
        await gateway.post("/chat", {"message": "a"}, key)
        sent = unquote(gateway.services.asked(CHAT).headers["baggage"])
        _, free = await made(gateway, tenant="other")
        await gateway.post("/search", {"query": "a"}, free)
        assert "o11y.budgets" not in gateway.services.asked(EMBED).headers["baggage"]
    given = json.dumps(
        [["key", key_id, "day", DOLLAR], ["tenant", "acme", "month", 2 * DOLLAR]],
        separators=(",", ":"),
    )
    assert f"o11y.budgets={given}" in sent


async def test_baggage_from_outside_brings_no_budget(url: str) -> None:
    async with running(url) as gateway:
        await gateway.post("/chat", {"message": "a"}, {"baggage": "o11y.budgets=%5B%5D"})
        assert "o11y.budgets" not in gateway.services.asked(CHAT).headers.get("baggage", "")


async def test_a_budget_that_is_used_up_is_402(url: str) -> None:
    envelope = {"error": {"message": "the key's budget …", "code": "insufficient_quota"}}
    headers = {"x-o11y-budget": "key/day", "retry-after": "60", "x-should-retry": "false"}
    refused = httpx2.Response(429, json=envelope, headers=headers)
    async with running(url) as gateway:
        gateway.services.answers[CHAT] = refused
        own = await gateway.post("/chat", {"message": "a"})
        body = {"messages": [{"role": "user", "content": "a"}]}
        openai = await gateway.post("/v1/chat/completions", body)
    assert (own.status_code, own.json()["code"]) == (402, "budget_exceeded")
    assert own.json()["detail"] == "the key's budget …"
    assert own.headers["x-o11y-budget"] == "key/day"
    assert own.headers["retry-after"] == "60"
    assert (openai.status_code, openai.json()) == (429, envelope)
    assert openai.headers["x-should-retry"] == "false"
    assert openai.headers["x-o11y-budget"] == "key/day"


async def test_answers_warn_of_a_budget_that_is_nearly_used_up(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gateway.spending.REFRESH_SECONDS", 0.05)
    async with running(url) as gateway:
        key_id, key = await made(gateway, budgets={"day": 1, "total": 1000})
        _, other = await made(gateway, tenant="other", budgets={"day": 1})
        answer = await gateway.post("/chat", {"message": "a"}, key)
        assert "x-o11y-budget-warning" not in answer.headers
        book(url, row("a", DOLLAR * 83 // 100, key=key_id, tenant="acme"))
        points = gateway.recorded.points
        await eventually(lambda: any(each.value == 0.83 for each in points(schema.SPEND.name)), 10)
        answer = await gateway.post("/chat", {"message": "a"}, key)
        assert answer.headers["x-o11y-budget-warning"] == "key/day;used=83"
        answer = await gateway.post("/chat", {"message": "a"}, other)
        assert "x-o11y-budget-warning" not in answer.headers
        left = {
            (point.labels["tenant"], point.labels["key"], point.labels["period"]): point.value
            for point in points(schema.BUDGET_REMAINING.name)
        }
    assert left == {
        ("acme", "web", "day"): pytest.approx(0.17),
        ("acme", "web", "total"): pytest.approx(999.17),
        ("other", "web", "day"): 1,
    }
    warned = [each for each in caplog.messages if "is used up to 83 %" in each]
    assert len(warned) == 1


# Usage


async def test_usage_is_everybodys_for_the_admin_and_its_own_for_a_key(url: str) -> None:
    async with running(url) as gateway:
        first, key = await made(gateway)
        second, _ = await made(gateway, tenant="other")
        cent = picodollars(Decimal("0.01"))
        book(
            url,
            row("a", cent, key=first, tenant="acme"),
            row("b", cent, key=second, tenant="other"),
            replace(row("c", cent, key=first), user_id="=cmd()"),
        )

        async def usage(headers: dict[str, str], query: str = "") -> httpx2.Response:
            return await gateway.client.get(f"/usage{query}", headers=headers)

        assert (await usage({})).status_code == 401
        everybody = (await usage(ADMIN, "?group_by=tenant")).json()["usage"]
        assert {each["tenant"]: each["calls"] for each in everybody} == {
            "acme": 1,
            "other": 1,
            "t": 1,
        }
        own = (await usage(key, "?group_by=key&group_by=day")).json()["usage"]
        assert [(each["key"], each["calls"], each["cost_usd"]) for each in own] == [
            (first, 2, 0.02)
        ]
        csv = await usage(key, "?group_by=user&format=csv")
        assert csv.headers["content-type"].startswith("text/csv")
        lines = csv.text.splitlines()
        assert lines[0].startswith("user,calls,failed,estimated,unpriced,input_tokens")
        assert lines[1].split(",")[0] in ("", "'=cmd()")
        assert sum(line.startswith("'=cmd()") for line in lines) == 1
        today = datetime.now(UTC).date()
        past = today - timedelta(days=40)
        assert (await usage(ADMIN, f"?from={past}&to={past}")).json()["usage"] == []
        for query, field in (
            (f"?from={today}&to={past}", "from"),
            ("?from=yesterday", "from"),
            ("?group_by=colour", "group_by.0"),
            ("?format=xml", "format"),
        ):
            answer = await usage(ADMIN, query)
            assert answer.status_code == 422
            assert answer.json()["errors"][0]["field"] == field


async def test_usage_without_a_database_is_none_and_makes_none(url: str, tmp_path: Path) -> None:
    async with running(url) as gateway:
        answer = await gateway.client.get("/usage", headers=ADMIN)
        assert (answer.status_code, answer.json()["usage"]) == (200, [])
        # who has an admin key has something to hide, be there keys or not
        assert (await gateway.client.get("/usage")).status_code == 401
    assert not (tmp_path / "o11y.db").exists()


# A database that goes


async def test_a_file_that_disappears_does_not_open_the_gateway(url: str, tmp_path: Path) -> None:
    directory = KeyDirectory("auto", url)
    key, text = await asyncio.to_thread(directory.store.create, "web", "acme")
    await directory.refresh()
    directory.engine.dispose()
    for file in tmp_path.iterdir():  # noqa: ASYNC240 - nobody else runs
        file.unlink()
    await directory.refresh()
    assert directory.required
    assert directory.authenticate({"x-api-key": [text]}) == key
