"""The console's pages and data: who may see what, and how traces are found and shown."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from pydantic import HttpUrl

from accounting.database import connect
from deploy.local.trace_store import tempo
from deploy.local.trace_store.store import Store
from gateway.allowance import Limits
from gateway.console import traces
from gateway.console.traces import TraceReader
from gateway.keys.store import KeyStore
from o11y.telemetry import schema
from o11y.web import problems
from tests.support import trace_samples as samples
from tests.support.gateway_services import Gateway

ADMIN_KEY = "the-admin-key-0123456789"
TEMPO = "http://tempo"
TRACE = "0af7651916cd43dd8448eb211c80319c"
MARK = {"X-O11y-Console": "1"}
PAGES = ["/", "/console/traces", "/console/usage", "/console/system"]


def stored(tenant: str) -> httpx2.Response:
    """The answer of a store that has a trace with a span of a tenant, and one of somebody else."""
    spans = [
        {
            "spanId": f"AAAAAAAAAA{letter}=",
            "name": name,
            "startTimeUnixNano": "1790000000000000000",
            "endTimeUnixNano": "1790000000250000000",
            "attributes": [{"key": schema.TENANT_ID, "value": {"stringValue": owner}}],
        }
        for letter, name, owner in (("E", "own", tenant), ("I", "other", "somebody-else"))
    ]
    return httpx2.Response(200, json={"batches": [{"scopeSpans": [{"spans": spans}]}]})


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'o11y.db'}"


@asynccontextmanager
async def running(url: str, **given: Any) -> AsyncIterator[Gateway]:
    gateway = Gateway(database_url=url, tempo_url=HttpUrl(TEMPO), **given)
    async with gateway.app.router.lifespan_context(gateway.app):
        yield gateway
    await gateway.client.aclose()


@pytest.fixture
async def open_to_all(url: str) -> AsyncIterator[Gateway]:
    async with running(url) as gateway:
        yield gateway


@pytest.fixture
async def keyed(url: str) -> AsyncIterator[tuple[Gateway, str]]:
    """A gateway that asks for keys, and a key of tenant `acme`."""
    with closing(KeyStore(connect(url))) as store:
        _, text = store.create("web", "acme")
    async with running(url, admin_key=ADMIN_KEY) as gateway:
        yield gateway, text


async def ask(gateway: Gateway, path: str, key: str | None = None) -> httpx2.Response:
    headers = {"X-API-Key": key} if key else {}
    return await gateway.client.get(path, headers=headers)


# Pages


@pytest.mark.parametrize("path", PAGES)
async def test_pages_are_there_for_everybody_and_run_nothing_but_their_own_files(
    path: str, keyed: tuple[Gateway, str]
) -> None:
    gateway, _ = keyed
    page = await ask(gateway, path)
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in policy
    assert not re.search(r"<script(?![^>]*\ssrc=)|\sstyle=|\son\w+=|https?://", page.text)
    for file in re.findall(r'(?:src|href)="(/console/files/[^"]+)"', page.text):
        found = await ask(gateway, file)
        assert found.status_code == 200, file
        assert found.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", ["nothing.js", "..%2fpages.py", "%2e%2e%2f__init__.py"])
async def test_files_are_those_of_the_folder(name: str, open_to_all: Gateway) -> None:
    assert (await ask(open_to_all, f"/console/files/{name}")).status_code == 404


async def test_what_the_console_asks_for_itself_makes_no_spans(open_to_all: Gateway) -> None:
    open_to_all.services.answers["tempo"] = stored("acme")
    for path in (*PAGES, "/console/files/page.js", f"/console/data/traces/{TRACE}"):
        assert (await ask(open_to_all, path)).status_code == 200, path
    assert open_to_all.recorded.spans() == []


async def test_a_library_of_others_is_named_with_version_and_licence(open_to_all: Gateway) -> None:
    told = (await ask(open_to_all, "/console/files/VENDORED.txt")).text
    version = re.search(r"npm package uplot (\S+), unchanged", told)
    assert version
    assert "MIT License" in told
    library = (await ask(open_to_all, "/console/files/uPlot.iife.min.js")).text
    assert f"v{version[1]}" in library[:300]


async def test_traces_lead_to_grafana_where_there_is_one(url: str) -> None:
    async with running(url, grafana_url=HttpUrl("http://grafana:3000/")) as gateway:
        page = await ask(gateway, "/console/traces")
        assert 'data-grafana="http://grafana:3000"' in page.text


# A key that the console keeps


async def test_a_key_is_kept_where_no_script_and_no_other_site_gets_at_it(
    keyed: tuple[Gateway, str],
) -> None:
    gateway, key = keyed
    kept = await gateway.client.put("/session", json={"key": key})
    assert kept.status_code == 204
    cookie = kept.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    body = {"message": "hi"}
    assert (await gateway.client.post("/chat", json=body)).status_code == 401
    assert (await gateway.client.post("/chat", json=body, headers=MARK)).status_code == 200
    other = {**MARK, "X-API-Key": "another"}
    assert (await gateway.client.post("/chat", json=body, headers=other)).status_code == 401
    assert (await gateway.client.delete("/session")).status_code == 204
    assert (await gateway.client.post("/chat", json=body, headers=MARK)).status_code == 401


async def test_the_admin_key_administers_from_the_console(keyed: tuple[Gateway, str]) -> None:
    gateway, _ = keyed
    await gateway.client.put("/session", json={"key": ADMIN_KEY})
    assert (await gateway.client.get("/admin/keys")).status_code == 401
    assert (await gateway.client.get("/admin/keys", headers=MARK)).status_code == 200
    caller = await gateway.client.get("/console/data/caller", headers=MARK)
    assert caller.json() == {"admin": True}


@pytest.mark.parametrize("key", ["", "a b", "a;b\n", "k" * 600])
async def test_what_cannot_be_a_key_is_not_kept(key: str, open_to_all: Gateway) -> None:
    refused = await open_to_all.client.put("/session", json={"key": key})
    assert refused.status_code == 422
    assert "set-cookie" not in refused.headers


# Traces


async def test_a_key_sees_the_spans_of_its_tenant_and_no_others(keyed: tuple[Gateway, str]) -> None:
    gateway, key = keyed
    gateway.services.answers["tempo"] = stored("acme")
    path = f"/console/data/traces/{TRACE}"
    assert (await ask(gateway, path)).status_code == 401
    own = (await ask(gateway, path, key)).json()["spans"]
    assert [span["name"] for span in own] == ["own"]
    every = (await ask(gateway, path, ADMIN_KEY)).json()["spans"]
    assert [span["name"] for span in every] == ["own", "other"]


async def test_a_key_searches_its_tenant_alone(keyed: tuple[Gateway, str]) -> None:
    gateway, key = keyed
    gateway.services.answers["tempo"] = httpx2.Response(200, json={"traces": []})
    found = await ask(gateway, "/console/data/traces?tenant=somebody-else&model=m", key)
    assert 'span."tenant.id" = "acme"' in found.json()["query"]
    assert "somebody-else" not in found.json()["query"]
    refused = await ask(gateway, "/console/data/traces?q={}", key)
    assert (refused.status_code, refused.json()["code"]) == (403, "admin_key_needed")
    assert (await ask(gateway, "/console/data/traces?q={}", ADMIN_KEY)).status_code == 200


async def test_looking_on_uses_up_no_limit(url: str) -> None:
    with closing(KeyStore(connect(url))) as store:
        _, key = store.create("web", "acme", limits=Limits(requests_per_minute=1))
    async with running(url) as gateway:
        gateway.services.answers["tempo"] = stored("acme")
        for _ in range(3):
            looked = await ask(gateway, f"/console/data/traces/{TRACE}", key)
            assert looked.status_code == 200
        headers = {"X-API-Key": key}
        assert (await gateway.post("/chat", {"message": "hi"}, headers)).status_code == 200


async def test_without_a_store_there_are_no_traces(url: str) -> None:
    gateway = Gateway(database_url=url)
    missing = await ask(gateway, f"/console/data/traces/{TRACE}")
    assert (missing.status_code, missing.json()["code"]) == (404, "no_traces")
    assert "TEMPO_URL" in missing.json()["detail"]
    await gateway.close()


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (httpx2.ConnectError("nobody there"), 503),
        (httpx2.Response(500), 503),
        (httpx2.Response(200, content=b"no json"), 502),
        (httpx2.Response(200, content=b"x" * (traces.MAX_BYTES + 1)), 502),
        (httpx2.Response(404), 200),
    ],
)
async def test_a_store_that_fails_is_told(
    answer: httpx2.Response | Exception, status: int, open_to_all: Gateway
) -> None:
    open_to_all.services.answers["tempo"] = answer
    response = await ask(open_to_all, f"/console/data/traces/{TRACE}")
    assert response.status_code == status
    if status == 200:
        assert response.json() == {"id": TRACE, "spans": []}


async def test_what_is_no_trace_id_is_refused(open_to_all: Gateway) -> None:
    refused = await ask(open_to_all, "/console/data/traces/..%2fready")
    assert refused.status_code == 404
    refused = await ask(open_to_all, "/console/data/traces/abc")
    assert refused.status_code == 422
    assert refused.json()["detail"].startswith("trace_id: ")


# Searches, in the embedded store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(tmp_path / "traces", max_bytes=64 * 2**20)) as store:
        yield store


@pytest.fixture
async def searching(store: Store) -> AsyncIterator[httpx2.AsyncClient]:
    """The console's routes before the embedded store."""
    reader = TraceReader(HttpUrl(TEMPO), httpx2.ASGITransport(tempo.create_app(store)))
    app = FastAPI()
    problems.install(app)
    app.include_router(traces.router(reader))
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app), base_url="http://gateway"
    ) as client:
        yield client
    await reader.aclose()


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, {"cheap", "dear"}),
        ({"service": "llm-proxy"}, {"dear"}),
        ({"route": "cheap"}, {"cheap"}),
        ({"status": "error"}, {"dear"}),
        ({"model": "gpt-4o"}, {"dear"}),
        ({"user": 'ada "the" first'}, {"dear"}),
        ({"min_usd": "0.01"}, {"dear"}),
        ({"min_ms": "1500"}, {"dear"}),
        ({"model": "gpt-4o", "user": "nobody"}, set()),
        ({"q": '{ name = "cheap" }'}, {"cheap"}),
        ({"limit": "1"}, {"cheap"}),
    ],
)
async def test_traces_are_found_by_what_their_spans_have(
    asked: dict[str, str], found: set[str], store: Store, searching: httpx2.AsyncClient
) -> None:
    attributes = {
        schema.REQUEST_MODEL: "gpt-4o",
        schema.COST_USD: 0.02,
        schema.USER_ID: 'ada "the" first',
    }
    failed = Status.STATUS_CODE_ERROR
    dear = samples.span("dear", seconds=2, status=failed, attributes=attributes)
    cheap = samples.span("cheap", start=samples.START + 1, attributes={schema.COST_USD: 0.001})
    store.add(samples.export(dear, service="llm-proxy"))
    store.add(samples.export(cheap))
    response = await searching.get("/console/data/traces", params={"days": "3660", **asked})
    assert response.status_code == 200, response.text
    assert {trace["name"] for trace in response.json()["traces"]} == found


async def test_a_bad_search_names_its_field(searching: httpx2.AsyncClient) -> None:
    refused = await searching.get("/console/data/traces", params={"q": "nonsense"})
    assert refused.status_code == 422
    assert refused.json()["detail"].startswith("q: ")
    refused = await searching.get("/console/data/traces", params={"days": "0"})
    assert refused.status_code == 422


async def test_a_trace_is_shown_as_its_spans_were_sent(
    store: Store, searching: httpx2.AsyncClient
) -> None:
    trace = samples.new_id(16)
    attributes = {"text": "<b>", "whole": 3, "part": 0.5, "yes": True, "many": ["a", 1]}
    root = samples.span("root", trace=trace, attributes=attributes)
    child = samples.span(
        "child",
        trace=trace,
        parent=root.span_id,
        start=samples.START + samples.SECOND // 4,
        seconds=0.5,
        status=Status.STATUS_CODE_ERROR,
        message="it broke",
    )
    store.add(samples.export(child, root))
    answer = await searching.get(f"/console/data/traces/{trace.hex()}")
    first, second = answer.json()["spans"]
    assert (first["name"], first["parent"], first["begin"], first["duration"]) == (
        "root",
        None,
        0,
        1000,
    )
    assert (first["attributes"], first["error"]) == (attributes, None)
    assert (second["parent"], second["begin"]) == (first["id"], 250)
    assert (second["error"], second["service"]) == ("it broke", "gateway")


async def test_ten_thousand_traces_are_searched_in_time(
    store: Store, searching: httpx2.AsyncClient
) -> None:
    spans = [samples.span(start=samples.START + number) for number in range(10_000)]
    await asyncio.to_thread(store.add, samples.export(*spans))
    response = await searching.get("/console/data/traces", params={"days": "3660"})
    assert len(response.json()["traces"]) == 100
