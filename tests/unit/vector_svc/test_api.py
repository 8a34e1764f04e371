from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import chromadb
import httpx2
import pytest
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from accounting.caller import with_key
from o11y.telemetry import identity
from o11y.telemetry.bounded import OVERFLOW
from o11y.telemetry.signals import Telemetry
from vector_svc.app import build
from vector_svc.collections import tenant_collection
from vector_svc.retrieval import MAX_COLLECTIONS
from vector_svc.settings import Settings

STORE = {"documents": ["a", "b"], "embeddings": [[1, 0], [0, 1]], "embedding_model": "m"}
SEARCH = {"embedding": [1, 0], "embedding_model": "m", "n_results": 2}


class Running:
    """The service in process, with what it told telemetry."""

    def __init__(self, folder: Path) -> None:
        self.spans = InMemorySpanExporter()
        settings = Settings(chroma_persist_directory=folder)
        self.telemetry = Telemetry("vector-svc", settings, [SimpleSpanProcessor(self.spans)])
        app = build(settings, self.telemetry)
        self.http = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app), base_url="http://vector-svc"
        )

    def metrics(self) -> str:
        return generate_latest(self.telemetry.registry).decode()


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    running = Running(tmp_path)
    yield running
    await running.http.aclose()
    running.telemetry.shutdown()


async def test_a_search_is_one_retrieval_span_with_its_quality(running: Running) -> None:
    await running.http.post("/documents", json=STORE)
    running.spans.clear()
    await running.http.post("/search", json=SEARCH)
    retrieval, server = running.spans.get_finished_spans()
    assert (retrieval.name, server.name) == ("retrieval documents", "POST /search")
    assert retrieval.parent == server.context
    assert retrieval.attributes is not None
    assert retrieval.attributes["gen_ai.retrieval.top_k"] == 2
    assert retrieval.attributes["o11y.retrieval.result_count"] == 2
    assert retrieval.attributes["o11y.retrieval.top_similarity"] == pytest.approx(1)


async def test_metrics_count_operations_and_quality(running: Running) -> None:
    await running.http.post("/documents", json=STORE)
    await running.http.post("/search", json=SEARCH)
    await running.http.post("/search", json={**SEARCH, "embedding_model": "other"})
    text = running.metrics()
    prefix = "vector_operation_duration_seconds_count"
    assert f'{prefix}{{collection="documents",operation="store",status="ok"}} 1.0' in text
    assert f'{prefix}{{collection="documents",operation="search",status="error"}} 1.0' in text
    assert 'vector_search_similarity_count{collection="documents"} 2.0' in text
    assert 'vector_search_top_similarity_count{collection="documents"} 1.0' in text
    assert 'vector_search_empty_total{collection="documents",filter="none"} 0.0' in text
    assert 'vector_documents{collection="documents"} 2.0' in text


async def test_documents_that_are_the_opposite_leave_a_page_that_can_be_read(
    running: Running,
) -> None:
    await running.http.post("/documents", json=STORE)
    await running.http.post("/search", json={**SEARCH, "embedding": [-1, -1]})
    page = await running.http.get("/metrics", headers={"accept": "application/openmetrics-text"})
    families = {family.name: family for family in text_string_to_metric_families(page.text)}
    for name in ("vector_search_similarity", "vector_search_top_similarity"):
        [total] = [each for each in families[name].samples if each.name == f"{name}_sum"]
        assert total.value >= 0


async def test_a_search_that_finds_nothing_is_counted(running: Running) -> None:
    await running.http.post("/search", json=SEARCH)
    text = running.metrics()
    assert 'vector_search_empty_total{collection="documents",filter="none"} 1.0' in text
    assert "vector_search_top_similarity_count" not in text


async def test_what_a_callers_own_filter_leaves_nothing_of_is_counted_apart(
    running: Running,
) -> None:
    await running.http.post("/documents", json=STORE)
    own = {**SEARCH, "filter_metadata": {"kind": "nothing is"}, "caller_filters": True}
    answer = await running.http.post("/search", json=own)
    assert answer.json()["results"] == []
    text = running.metrics()
    assert 'vector_search_empty_total{collection="documents",filter="caller"} 1.0' in text
    assert 'filter="none"' not in text


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/documents", {**STORE, "documents": []}, "documents"),
        ("/documents", {**STORE, "embeddings": [[1, 0]]}, "body"),
        ("/documents", {**STORE, "embeddings": [[1, 0], [1]]}, "body"),
        ("/documents", {**STORE, "embedding_model": ""}, "embedding_model"),
        ("/documents", {**STORE, "metadata": [{"k": []}, {}]}, "metadata.0.k"),
        ("/documents", {**STORE, "metadata": [{}, {"": 1}]}, "metadata.1."),
        ("/documents", {**STORE, "metadata": [{"$and": 1}, {}]}, "metadata.0.$and"),
        (
            "/documents",
            {**STORE, "metadata": [{"chroma:document": "a"}, {}]},
            "metadata.0.chroma:document",
        ),
        ("/documents", {**STORE, "metadata": [{"#k": 1}, {}]}, "metadata.0.#k"),
        ("/documents", {**STORE, "embeddings": [[1e39, 0], [0, 1]]}, "embeddings.0.0"),
        ("/documents", {**STORE, "embeddings": [[], []]}, "embeddings.0"),
        ("/search", {**SEARCH, "embedding": [-1e39, 0]}, "embedding.0"),
        ("/documents", {**STORE, "metadata": [{"k": 2**63}, {}]}, "metadata.0.k"),
        ("/documents", {**STORE, "metadata": [{"k": -(2**63) - 1}, {}]}, "metadata.0.k"),
        ("/search", {**SEARCH, "embedding": []}, "embedding"),
        ("/search", {**SEARCH, "embedding": [1, None]}, "embedding.1"),
        ("/search", {**SEARCH, "n_results": 101}, "n_results"),
    ],
)
async def test_bad_input_names_its_field(
    running: Running, path: str, body: dict[str, object], field: str
) -> None:
    answer = await running.http.post(path, json=body)
    assert answer.status_code == 422
    assert field in [error["field"] for error in answer.json()["errors"]]


async def test_not_a_number_is_refused(running: Running) -> None:
    content = b'{"embedding": [NaN, 0], "embedding_model": "m"}'
    answer = await running.http.post(
        "/search", content=content, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 422


async def test_stats_name_the_model_the_collection_belongs_to(running: Running) -> None:
    empty = (await running.http.get("/stats")).json()
    await running.http.post("/documents", json=STORE)
    filled = (await running.http.get("/stats")).json()
    assert (empty["document_count"], empty["embedding_model"]) == (0, None)
    assert (filled["document_count"], filled["embedding_model"]) == (2, "m")


# Tenants


def of(tenant: str, key: str | None = "k") -> dict[str, str]:
    """The headers of a call of a tenant, by a key or without one."""
    known = identity.with_identity(Context(), tenant_id=tenant)
    if key:
        known = with_key(Context(), tenant, key, None)
    carrier: dict[str, str] = {}
    W3CBaggagePropagator().inject(carrier, known)
    return carrier


async def found(running: Running, headers: dict[str, str], **fields: Any) -> list[str]:
    answer = await running.http.post("/search", json={**SEARCH, **fields}, headers=headers)
    assert answer.status_code == 200
    return [each["document"] for each in answer.json()["results"]]


async def test_a_tenant_with_a_key_has_documents_of_its_own(running: Running) -> None:
    await running.http.post("/documents", json={**STORE, "documents": ["shared 1", "shared 2"]})
    await running.http.post(
        "/documents",
        json={**STORE, "documents": ["secret 1", "secret 2"], "metadata": [{"n": 1}, {"n": 2}]},
        headers=of("acme"),
    )
    assert await found(running, of("acme")) == ["secret 1", "secret 2"]
    assert await found(running, of("acme", "another key")) == ["secret 1", "secret 2"]
    assert await found(running, of("acme"), filter_metadata={"n": 2}) == ["secret 2"]
    for others in (of("zoo"), of("Acme"), of("acme.")):
        assert await found(running, others) == []
        assert await found(running, others, filter_metadata={"n": 2}) == []
    for none in ({}, of("acme", key=None)):  # a header names a tenant, and opens nothing
        assert await found(running, none) == ["shared 1", "shared 2"]
    stats = (await running.http.get("/stats", headers=of("acme"))).json()
    assert (stats["collection_name"], stats["document_count"]) == ("documents.tenant.acme.docs", 2)
    assert (await running.http.get("/stats", headers=of("zoo"))).json()["document_count"] == 0
    gauge = [line for line in running.metrics().splitlines() if line.startswith("vector_documents")]
    assert len(gauge) == 1
    assert 'collection="documents"' in gauge[0]


async def test_a_tenant_may_use_another_embedding_model(running: Running) -> None:
    await running.http.post("/documents", json=STORE)
    other = {**STORE, "embeddings": [[1, 0, 0], [0, 1, 0]], "embedding_model": "n"}
    answer = await running.http.post("/documents", json=other, headers=of("acme"))
    assert answer.status_code == 200


async def test_many_tenants_take_no_label_from_the_shared_collection(running: Running) -> None:
    for number in range(MAX_COLLECTIONS + 1):
        await running.http.post("/search", json=SEARCH, headers=of(f"t{number}"))
    await running.http.post("/search", json=SEARCH)
    empty = [
        line for line in running.metrics().splitlines() if line.startswith("vector_search_empty_t")
    ]
    assert len(empty) == MAX_COLLECTIONS + 2
    assert 'vector_search_empty_total{collection="documents",filter="none"} 1.0' in empty
    assert f'vector_search_empty_total{{collection="{OVERFLOW}",filter="none"}} 1.0' in empty


def test_no_two_tenants_have_one_collection() -> None:
    names = ["a", "A", "a.", "a-", "a--", "a-.", "a.-", "a..", "a-d", "a.d", "a_", "a_.", "docs"]
    collections = {tenant_collection("documents", name) for name in names}
    assert len(collections) == len(names)
    client = chromadb.EphemeralClient()
    for name in (*collections, tenant_collection("documents", "x" + ".-" * 31 + "x")):
        client.get_or_create_collection(name, embedding_function=None)
        client.delete_collection(name)
