"""Who may call the gateway, and what: keys in requests, and the routes that administer them."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from opentelemetry.trace import SpanKind

from accounting.database import connect
from gateway.keys.directory import REFRESH_SECONDS
from gateway.keys.key import written
from gateway.keys.store import KeyStore
from o11y.telemetry import schema
from tests.support.gateway_services import CHAT, EMBED, SEARCH, Gateway
from tests.support.recorded import attributes

ADMIN_KEY = "the-admin-key-0123456789"
ADMIN = {"authorization": f"Bearer {ADMIN_KEY}"}
PAST = datetime.now(UTC) - timedelta(seconds=1)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The database, whose folder is made with it."""
    return tmp_path / "state" / "o11y.db"


@pytest.fixture
def url(file: Path) -> str:
    return f"sqlite:///{file}"


@pytest.fixture
def store(url: str, file: Path) -> Iterator[KeyStore]:
    file.parent.mkdir()
    with closing(KeyStore(connect(url))) as store:
        yield store


@asynccontextmanager
async def running(url: str, **given: Any) -> AsyncIterator[Gateway]:
    gateway = Gateway(database_url=url, admin_key=ADMIN_KEY, **given)
    async with gateway.app.router.lifespan_context(gateway.app):
        yield gateway
    await gateway.client.aclose()


@pytest.fixture
async def keyed(url: str, store: KeyStore) -> AsyncIterator[Gateway]:
    store.create("first", "acme")
    async with running(url) as gateway:
        yield gateway


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def chat(gateway: Gateway, headers: dict[str, str] | None = None) -> httpx2.Response:
    return await gateway.post("/chat", {"message": "hi"}, headers)


# Off, and on


async def test_nobody_needs_a_key_where_there_is_none(url: str, file: Path) -> None:
    async with running(url) as gateway:
        assert (await chat(gateway)).status_code == 200
        assert (await chat(gateway, bearer("anything"))).status_code == 200
    assert not file.exists()  # noqa: ASYNC240 - nobody else runs


async def test_the_first_key_switches_keys_on(url: str) -> None:
    async with running(url) as gateway:
        listed = await gateway.client.get("/admin/keys", headers=ADMIN)
        assert (listed.status_code, listed.json()) == (200, {"keys": []})
        made = await gateway.client.post(
            "/admin/keys", json={"name": "web", "tenant": "acme"}, headers=ADMIN
        )
        assert made.status_code == 201
        assert (await chat(gateway)).status_code == 401
        assert (await chat(gateway, bearer(made.json()["key"]))).status_code == 200


async def test_a_key_that_another_process_makes_is_known_soon(url: str, store: KeyStore) -> None:
    async with running(url) as gateway:
        _, text = store.create("web", "acme")
        async with asyncio.timeout(REFRESH_SECONDS * 5):
            while (await chat(gateway)).status_code != 401:  # noqa: ASYNC110 - it reads by itself
                await asyncio.sleep(0.1)
        assert (await chat(gateway, bearer(text))).status_code == 200


@pytest.mark.parametrize(("auth", "status"), [("off", 200), ("keys", 401), ("auto", 401)])
async def test_a_setting_says_whether_keys_are_asked_for(
    auth: str, status: int, url: str, store: KeyStore
) -> None:
    store.create("web", "acme")
    async with running(url, auth=auth) as gateway:
        assert (await chat(gateway)).status_code == status


async def test_keys_without_any_key_let_nobody_in(url: str) -> None:
    async with running(url, auth="keys") as gateway:
        assert (await chat(gateway)).status_code == 401


async def test_what_cannot_be_read_lets_nobody_in_and_is_not_ready(tmp_path: Path) -> None:
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"no database" * 100)
    async with running(f"sqlite:///{broken}") as gateway:
        refused = await chat(gateway)
        assert (refused.status_code, refused.json()["detail"]) == (503, "the keys can't be read")
        assert (await gateway.client.get("/readyz")).status_code == 503
        assert (await gateway.client.get("/livez")).status_code == 200


async def test_known_keys_open_while_the_database_is_away(
    url: str, store: KeyStore, file: Path
) -> None:
    _, text = store.create("web", "acme")
    async with running(url) as gateway:
        with sqlite3.connect(file) as database:
            database.execute("DROP TABLE keys")
        database.close()
        answer = await gateway.client.get("/admin/keys", headers=ADMIN)
        assert answer.status_code == 503
        assert (await chat(gateway, bearer(text))).status_code == 200
        assert (await chat(gateway)).status_code == 401


# Which key


@pytest.mark.parametrize(
    "path", ["/chat", "/v1/chat/completions", "/nowhere", "/docs", "/console/data/traces"]
)
async def test_every_route_needs_a_key(path: str, keyed: Gateway) -> None:
    response = await keyed.client.post(path, json={"message": "a"})
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    body = response.json()
    if path.startswith("/v1/"):
        assert body["error"]["type"] == "authentication_error"
        assert body["error"]["code"] == "no_key"
    else:
        assert (body["code"], body["status"]) == ("no_key", 401)
    assert keyed.services.calls() == []


async def test_probes_and_metrics_need_none(keyed: Gateway) -> None:
    for path in ("/livez", "/readyz", "/metrics?scope=self"):
        assert (await keyed.client.get(path)).status_code == 200


async def test_metrics_may_need_one(url: str, store: KeyStore) -> None:
    _, text = store.create("web", "acme")
    async with running(url, metrics_public=False) as gateway:
        assert (await gateway.client.get("/metrics?scope=self")).status_code == 401
        answer = await gateway.client.get("/metrics?scope=self", headers=bearer(text))
        assert answer.status_code == 200


@pytest.mark.parametrize("header", ["Authorization", "X-API-Key"])
async def test_a_key_comes_in_either_header(header: str, keyed: Gateway, store: KeyStore) -> None:
    _, text = store.create("web", "acme")
    await eventually_known(keyed)
    value = f"Bearer {text}" if header == "Authorization" else text
    assert (await chat(keyed, {header: value})).status_code == 200


async def eventually_known(gateway: Gateway) -> None:
    """Let the gateway read the keys."""
    await gateway.client.patch("/admin/keys/nobody", json={}, headers=ADMIN)
    made = {"name": "another", "tenant": "other"}
    assert (await gateway.client.post("/admin/keys", json=made, headers=ADMIN)).is_success


KEY_ID = "0123456789ab"


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([("authorization", "Bearer sk-proj-of-openai")], "invalid_key"),
        ([("authorization", f"Bearer {written(KEY_ID, 'x' * 32)}")], "invalid_key"),
        ([("authorization", "Basic YTpi")], "invalid_key"),
        ([("authorization", "Bearer ")], "invalid_key"),
        ([("authorization", "Bearer a"), ("authorization", "Bearer b")], "two_keys"),
        ([("authorization", "Bearer a"), ("x-api-key", "b")], "two_keys"),
        ([("x-api-key", "\xe9")], "invalid_key"),
    ],
)
async def test_what_is_no_key_of_ours_is_refused(
    headers: list[tuple[str, str]], code: str, keyed: Gateway
) -> None:
    sent = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    response = await keyed.client.post("/chat", json={"message": "a"}, headers=sent)
    assert (response.status_code, response.json()["code"]) == (401, code)


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"disabled": True}, "key_disabled"), ({"expires_at": PAST}, "key_expired")],
)
async def test_a_key_that_opens_nothing_any_more_is_told_so_to_its_owner_alone(
    changes: dict[str, Any], code: str, url: str, store: KeyStore
) -> None:
    key, text = store.create("web", "acme")
    store.change(key.id, **changes)
    async with running(url) as gateway:
        assert (await chat(gateway, bearer(text))).json()["code"] == code
        guessed = bearer(written(key.id, "x" * 32))
        assert (await chat(gateway, guessed)).json()["code"] == "invalid_key"


async def test_a_key_in_an_address_is_refused(keyed: Gateway, store: KeyStore) -> None:
    _, text = store.create("web", "acme")
    response = await keyed.client.post(f"/chat?api_key={text}", json={"message": "a"})
    assert (response.status_code, response.json()["code"]) == (400, "key_in_query")
    assert text not in str([attributes(span) for span in keyed.recorded.spans()])


async def test_keys_are_in_no_span_but_their_public_part(url: str, store: KeyStore) -> None:
    key, text = store.create("web", "acme")
    async with running(url) as gateway:
        await chat(gateway, bearer(text))
        for span in gateway.recorded.spans():
            assert text not in str(attributes(span))
            assert attributes(span)[schema.KEY_ID] == key.id
            assert attributes(span)[schema.TENANT_ID] == "acme"


# Whose, and what for


@pytest.mark.parametrize("named", ["zoo", "acme", "", "a b"])
async def test_the_tenant_is_the_keys_whatever_a_header_says(
    named: str, url: str, store: KeyStore
) -> None:
    _, text = store.create("web", "acme")
    async with running(url) as gateway:
        await chat(gateway, {**bearer(text), "x-tenant-id": named, "x-user-id": "ann"})
        sent = gateway.services.asked(CHAT).headers["baggage"]
    assert "tenant.id=acme" in sent
    assert "user.id=ann" in sent
    assert "zoo" not in sent


async def test_refused_calls_are_counted_by_why(keyed: Gateway) -> None:
    for headers in ({}, {}, bearer("sk-of-somebody")):
        await chat(keyed, headers)
    points = keyed.recorded.points(schema.ADMISSION_REFUSED.name)
    assert {point.labels[schema.LABEL_REASON]: point.value for point in points} == {
        "no_key": 2,
        "invalid_key": 1,
    }


async def test_a_refused_call_has_no_tenant(keyed: Gateway) -> None:
    await chat(keyed, {"x-tenant-id": "zoo"})
    [server] = keyed.recorded.spans(SpanKind.SERVER)
    assert schema.TENANT_ID not in attributes(server)
    assert attributes(server)[schema.HTTP_STATUS] == 401


async def test_a_key_calls_its_routes_alone(url: str, store: KeyStore) -> None:
    _, text = store.create("web", "acme", routes=["/v1/*"])
    async with running(url) as gateway:
        refused = await chat(gateway, bearer(text))
        assert (refused.status_code, refused.json()["code"]) == (403, "route_not_allowed")
        body = {"messages": [{"role": "user", "content": "a"}]}
        answer = await gateway.post("/v1/chat/completions", body, bearer(text))
        assert answer.status_code == 200


async def test_the_models_of_a_key_travel_to_who_knows_which_is_used(
    url: str, store: KeyStore
) -> None:
    _, text = store.create("web", "acme", models=["gpt-4o", "modèle, eins"])
    async with running(url) as gateway:
        await gateway.post("/search", {"query": "a"}, bearer(text))
        sent = [gateway.services.asked(call).headers["baggage"] for call in (EMBED, SEARCH)]
    assert all("o11y.key.models=" in baggage for baggage in sent)


# Administration


async def test_a_keys_whole_life(url: str) -> None:
    async with running(url) as gateway:
        client = gateway.client

        async def ask(method: str, path: str, **options: Any) -> httpx2.Response:
            return await client.request(method, f"/admin/keys{path}", headers=ADMIN, **options)

        made = (await ask("POST", "", json={"name": "web", "tenant": "acme"})).json()
        text, path = made.pop("key"), f"/{made['id']}"
        assert (await ask("GET", "")).json() == {"keys": [made]}
        assert (await ask("GET", path)).json() == made
        assert text not in (await ask("GET", "")).text
        changed = (await ask("PATCH", path, json={"models": ["m"], "name": "front"})).json()
        assert changed == {**made, "models": ["m"], "name": "front"}
        rotated = (await ask("POST", f"{path}/rotate", json={"grace_seconds": 60})).json()
        for each in (text, rotated["key"]):
            assert (await chat(gateway, bearer(each))).status_code == 200
        again = (await ask("POST", f"{path}/rotate", json={"grace_seconds": 0})).json()
        assert (await chat(gateway, bearer(rotated["key"]))).status_code == 401
        assert (await chat(gateway, bearer(again["key"]))).status_code == 200
        await ask("PATCH", path, json={"disabled": True})
        assert (await chat(gateway, bearer(again["key"]))).json()["code"] == "key_disabled"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field"),
    [
        ("GET", "/nobody", None, 404, None),
        ("PATCH", "/nobody", {"disabled": True}, 404, None),
        ("POST", "/nobody/rotate", None, 404, None),
        ("POST", "", {"name": "web"}, 422, "tenant"),
        ("POST", "", {"name": "web", "tenant": "a b"}, 422, "tenant"),
        ("POST", "", {"name": "web", "tenant": "a", "models": ["m" * 999]}, 422, "models.0"),
        ("POST", "", {"name": "web", "tenant": "a", "routes": ["v1"]}, 422, "routes.0"),
        ("POST", "", {"name": "web", "tenant": "a", "expires_at": "2030-01-01"}, 422, "expires_at"),
        ("PATCH", "/nobody", {"tenant": "b"}, 422, "tenant"),
    ],
)
async def test_mistakes_are_named(
    method: str, path: str, body: Any, status: int, field: str | None, keyed: Gateway
) -> None:
    answer = await keyed.client.request(method, f"/admin/keys{path}", json=body, headers=ADMIN)
    assert answer.status_code == status
    if field:
        assert answer.json()["errors"][0]["field"] == field


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("authorization", "Bearer wrong")],
        [("authorization", ADMIN_KEY)],
        [("authorization", f"Bearer {ADMIN_KEY}"), ("x-api-key", ADMIN_KEY)],
        [("x-api-key", "\xe9")],
    ],
)
async def test_administration_needs_the_admin_key(
    headers: list[tuple[str, str]], keyed: Gateway
) -> None:
    sent = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    assert (await keyed.client.get("/admin/keys", headers=sent)).status_code == 401


async def test_a_callers_key_does_not_administer(url: str, store: KeyStore) -> None:
    _, text = store.create("web", "acme")
    async with running(url) as gateway:
        answer = await gateway.client.get("/admin/keys", headers=bearer(text))
        assert answer.status_code == 401
        assert (await chat(gateway, ADMIN)).status_code == 401


async def test_without_an_admin_key_there_is_no_administration(url: str) -> None:
    gateway = Gateway(database_url=url)
    async with gateway.app.router.lifespan_context(gateway.app):
        for path in ("/admin/keys", "/admin/nowhere"):
            assert (await gateway.client.get(path, headers=ADMIN)).status_code == 404
    await gateway.client.aclose()
