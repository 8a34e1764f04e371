"""Callers with keys, over all four services: whose documents, whose money, whose usage."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from tests.support import openai_standin
from tests.support.house import services
from tests.support.llm import NO_EXPORT
from tests.support.openai_standin import Standin, Step
from tests.support.waiting import until

ADMIN = {"authorization": "Bearer the-admin-key-0123456789"}
USED = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
"""0.000045 US dollars of gpt-4o-mini."""


@dataclass(frozen=True)
class House:
    url: str
    provider: Standin

    def key(self, tenant: str, **fields: Any) -> dict[str, str]:
        """The headers of a new key."""
        form = {"name": "web", "tenant": tenant, **fields}
        answer = httpx2.post(f"{self.url}/admin/keys", json=form, headers=ADMIN, timeout=30)
        assert answer.status_code == 201
        return {"authorization": f"Bearer {answer.json()['key']}"}

    def post(self, path: str, body: dict[str, Any], headers: dict[str, str]) -> httpx2.Response:
        return httpx2.post(self.url + path, json=body, headers=headers, timeout=30)

    def usage(self, headers: dict[str, str], group: str) -> dict[str | None, dict[str, Any]]:
        answer = httpx2.get(f"{self.url}/usage?group_by={group}", headers=headers, timeout=30)
        return {row[group]: row for row in answer.json()["usage"]}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("callers")
    settings = {
        "ADMIN_KEY": ADMIN["authorization"].removeprefix("Bearer "),
        "DATABASE_URL": f"sqlite:///{folder}/o11y.db",
        "INTERNAL_TOKEN": "the-internal-token-0123",
        **NO_EXPORT,
    }
    with (
        openai_standin.running() as first,
        openai_standin.running() as second,
        services(folder, first, second, settings) as gateways,
    ):
        yield House(gateways[False], first)


def test_documents_are_their_tenants_whatever_a_header_says(house: House) -> None:
    acme, also_acme, zoo = house.key("acme"), house.key("acme"), house.key("zoo")
    stored = house.post("/embed", {"texts": ["the plan of acme"]}, acme)
    assert stored.json()["vector_db_result"]["documents_added"] == 1

    def found(headers: dict[str, str], **fields: Any) -> list[str]:
        answer = house.post("/search", {"query": "plan", **fields}, headers)
        assert answer.status_code == 200
        return [each["document"] for each in answer.json()["results"]]

    for headers in (acme, also_acme, {**acme, "x-tenant-id": "zoo"}):
        assert found(headers) == ["the plan of acme"]
    for headers in (zoo, {**zoo, "x-tenant-id": "acme"}, {**zoo, "baggage": "tenant.id=acme"}):
        assert found(headers) == []
        assert found(headers, filter_metadata={"user_id": {"$ne": "x"}}) == []
    for headers, count in ((acme, 1), (zoo, 0)):
        stats = httpx2.get(f"{house.url}/stats", headers=headers, timeout=30).json()
        assert stats["vector_database"]["document_count"] == count


def test_a_budget_is_spent_to_its_end_and_told_in_the_callers_words(house: House) -> None:
    house.provider.default = Step(usage=USED)
    key = house.key("broke", budgets={"total": "0.0005"})
    body = {"message": "Hi", "max_tokens": 50}
    answers = [house.post("/chat", body, key) for _ in range(14)]
    statuses = [answer.status_code for answer in answers]
    assert statuses == sorted(statuses)
    assert set(statuses) == {200, 402}
    assert 0.0005 / 0.000045 - 3 < statuses.count(200) <= 0.0005 / 0.000045
    refused = answers[-1].json()
    assert refused["code"] == "budget_exceeded"
    assert "the key's budget in all, 0.0005 USD, has" in refused["detail"]
    assert refused["detail"].endswith("it is never filled")
    openai = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}]}
    quota = house.post("/v1/chat/completions", openai, key)
    assert (quota.status_code, quota.json()["error"]["code"]) == (429, "insufficient_quota")
    parts = house.post("/full-pipeline", {"query": "Hi", "max_tokens": 50}, key).json()
    failed = {stage["name"] for stage in parts["stages"] if stage["status"] == "error"}
    assert "chat" in failed
    assert parts["results"]["local_model_response"]["generated_texts"]


def test_usage_is_a_keys_own_and_the_admins_all(house: House) -> None:
    house.provider.default = Step(usage=USED)
    one, other = house.key("one"), house.key("other")
    for headers, calls in ((one, 3), (other, 2)):
        for _ in range(calls):
            assert house.post("/chat", {"message": "Hi", "user_id": "ann"}, headers).is_success
    until(lambda: house.usage(other, "user").get("ann", {}).get("calls") == 2, 20)
    mine = house.usage(one, "tenant")
    assert list(mine) == ["one"]
    assert (mine["one"]["calls"], mine["one"]["cost_usd"]) == (3, 0.000135)
    everybody = house.usage(ADMIN, "tenant")
    assert everybody["one"]["calls"] == 3
    assert everybody["other"]["calls"] == 2
