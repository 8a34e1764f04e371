"""What one tenant stores, no key of another finds; and nobody gets around the gateway."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import chromadb
import httpx2
import pytest

from tests.support import openai_standin
from tests.support.llm import NO_EXPORT, gateway, llm_proxy, provider
from tests.support.openai_standin import Standin
from tests.support.processes import Service, environment, service

TOKEN = "the-token-of-this-test"
MODEL = "text-embedding-3-small"


@dataclass(frozen=True)
class House:
    """A gateway that asks for keys, what stands behind it, and a provider outside."""

    gateway: Service
    behind: list[Service]
    outside: Standin
    keys: Mapping[str, str]
    chroma: Path

    def call(
        self,
        key: str,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """The answer to a call with a key, which must be a good one."""
        answer = httpx2.request(
            method,
            self.gateway.url + path,
            json=body,
            headers={"x-api-key": self.keys[key], **(headers or {})},
            timeout=30,
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    def store(self, key: str, text: str) -> None:
        self.call(key, "POST", "/embed", {"texts": [text], "metadata": [{"about": "plans"}]})

    def found(self, key: str, **fields: Any) -> set[str]:
        results = self.call(key, "POST", "/search", {"query": "plans", **fields})["results"]
        return {each["document"] for each in results}

    def stats(self, key: str, headers: Mapping[str, str] | None = None) -> tuple[str, int]:
        stats = self.call(key, "GET", "/stats", headers=headers)["vector_database"]
        return stats["collection_name"], stats["document_count"]


def made_key(folder: Path, url: str, name: str, tenant: str) -> str:
    made = subprocess.run(
        [sys.executable, "-m", "gateway.keys", "create", "--name", name, "--tenant", tenant],
        cwd=folder,
        env=environment({"DATABASE_URL": url}),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return made.stdout.strip()


@contextmanager
def running(folder: Path, **settings: str) -> Iterator[House]:
    url = f"sqlite:///{folder}/o11y.db"
    owners = {"web": "acme", "batch": "acme", "other": "zoo"}
    keys = {name: made_key(folder, url, name, tenant) for name, tenant in owners.items()}
    chroma, settings = folder / "chroma", {**settings, "INTERNAL_TOKEN": TOKEN}
    with (
        openai_standin.running() as outside,
        llm_proxy(folder, provider("openai", outside, embedding_model=MODEL), **settings) as llm,
        service(
            "vector_svc", folder, CHROMA_PERSIST_DIRECTORY=str(chroma), **NO_EXPORT, **settings
        ) as vector,
        gateway(folder, llm, VECTOR_URL=vector.url, DATABASE_URL=url, **settings) as front,
    ):
        yield House(front, [llm, vector], outside, keys, chroma)


@pytest.fixture(scope="module", params=["tracecontext,baggage", "tracecontext", "none"])
def house(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    """Whose documents a key sees doesn't depend on what telemetry propagates."""
    with running(tmp_path_factory.mktemp("tenants"), OTEL_PROPAGATORS=request.param) as started:
        yield started


def test_what_a_tenant_stores_its_keys_find_and_no_other_does(house: House) -> None:
    house.store("web", "the plans of acme")
    filters = {"filter_metadata": {"about": "plans"}}
    for key in ("web", "batch"):
        assert house.found(key) == house.found(key, **filters) == {"the plans of acme"}
        assert house.stats(key) == ("documents.tenant.acme.docs", 1)
    assert house.found("other") == house.found("other", **filters) == set()
    forged = {"baggage": "tenant.id=acme", "x-internal-token": TOKEN}
    for headers in ({"x-tenant-id": "acme"}, forged):
        assert house.stats("other", headers) == ("documents.tenant.zoo.docs", 0)
    health = house.call("web", "GET", "/health")["services"]["vector_database"]
    assert health["document_count"] == 1


def test_the_provider_outside_sees_neither_token_nor_who_calls(house: House) -> None:
    house.found("web")
    for received in house.outside.requests:
        assert not {"x-internal-token", "baggage"} & set(received.headers)
        assert TOKEN not in str(received.headers)


def test_services_behind_the_gateway_answer_nobody_else(house: House) -> None:
    for each, path in zip(house.behind, ("/v1/models", "/stats"), strict=True):
        baggage = {"baggage": "tenant.id=acme,o11y.key.id=made-up"}
        for headers in (
            baggage,
            {**baggage, "x-internal-token": f"{TOKEN}x"},
        ):  # nobody believes it
            refused = httpx2.get(each.url + path, headers=headers)
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Internal")
        assert httpx2.get(f"{each.url}/livez").status_code == 200


def test_a_collection_that_somebody_removes_is_empty_until_its_tenant_stores(
    tmp_path: Path,
) -> None:
    with running(tmp_path) as house:
        house.store("web", "the plans of acme")
        house.store("other", "the plans of the zoo")
        chromadb.PersistentClient(
            str(house.chroma), chromadb.Settings(anonymized_telemetry=False)
        ).delete_collection("documents.tenant.acme.docs")
        assert house.found("web") == set()
        assert house.found("other") == {"the plans of the zoo"}
        house.store("web", "new plans")
        assert house.found("batch") == {"new plans"}
        assert house.found("other") == {"the plans of the zoo"}
