"""What the documentation shows works, and what it points at is there."""

import json
import logging
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter
from httpx2 import Response
from opentelemetry.trace import SpanKind
from pydantic import BaseModel

from deploy.dashboards import panels, promql
from gateway import stage
from gateway.backends import Backends
from llm_proxy.sending import WholeResponse
from llm_proxy.settings import Settings
from o11y.openai.operations import Operation as CallOfOpenAI
from o11y.settings import ServiceSettings
from o11y.telemetry import schema
from o11y.telemetry.genai import Operation
from o11y.telemetry.schema import attributes, metrics, spans
from o11y.web.problems import Problem
from tests.support.gateway_services import Gateway
from tests.support.processes import ROOT
from tests.support.recorded import Recorded, bare_machine, http
from tests.support.small_service import application
from tests.support.upstream import Caller, failing

ADDING = (ROOT / "docs/adding.md").read_text(encoding="utf-8")


def pages() -> list[Path]:
    """Every Markdown file of the project."""
    listed = subprocess.run(
        ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [ROOT / name for name in listed.stdout.split()]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"(?m)^#+ (.+)$", page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_a_link_leads_to_something(page: Path) -> None:
    text = re.sub(r"(?ms)^```.*?^```", "", page.read_text(encoding="utf-8"))
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        found = page.parent / name if name else page
        if not found.exists() or (anchor and anchor not in anchors(found)):
            dead.append(target)
    assert dead == []


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Recorded]:
    bare_machine(monkeypatch, tmp_path)
    recorded = Recorded("vector-svc", ServiceSettings(app_port=8000))
    yield recorded
    recorded.telemetry.shutdown()


def _either(*arguments: Any, **fields: Any) -> Any:
    """The class of this name that the page means: that of spans, or of OpenAI's calls."""
    return CallOfOpenAI(**fields) if "path" in fields else Operation(*arguments, **fields)


class RerankRequest(BaseModel):
    documents: list[str]


class RerankAnswer(BaseModel):
    count: int


@pytest.fixture
def example(recorded: Recorded) -> dict[str, Any]:
    """The names that the examples make, all run in the order of the page."""
    names: dict[str, Any] = {
        **{
            key: value
            for module in (attributes, metrics, spans)
            for key, value in vars(module).items()
        },
        **{key: value for module in (panels, promql) for key, value in vars(module).items()},
        "Operation": _either,
        "Problem": Problem,
        "Backends": Backends,
        "RerankAnswer": RerankAnswer,
        "RerankRequest": RerankRequest,
        "logger": logging.getLogger("vector_svc"),
        "router": APIRouter(),
        "telemetry": recorded.telemetry,
    }
    for code in re.findall(r"(?ms)^```python\n(.*?)^```", ADDING):
        exec(compile(code, "docs/adding.md", "exec"), names)
    return names


def test_an_added_span_and_metric_arrive(example: dict[str, Any], recorded: Recorded) -> None:
    span = recorded.span("rerank small")
    assert span.attributes == {"o11y.rerank.count": 3}
    assert set(span.attributes) <= {*example["RERANK"].attributes, *schema.IDENTITY}
    [point] = recorded.points("reranked")
    assert (point.value, point.labels) == (3, {schema.LABEL_COLLECTION: "documents"})
    assert example["RERANKED"].services == ("vector-svc",)
    assert example["RERANKED"].source == "o11y"


async def test_an_added_call_goes_its_way(example: dict[str, Any]) -> None:
    caller = Caller({"retries": 1})
    answer = Response(200, json={"id": "modr-1", "model": "omni", "results": [{"flagged": True}]})
    caller.upstream.answers["/moderations"] = [failing(500), answer]
    response = await caller.make(example["MODERATION"], model="omni", input="I will")
    assert isinstance(response, WholeResponse)
    assert response.content == answer.content
    [span] = [each for each in caller.spans() if each.name == "moderation omni"]
    assert span.attributes
    assert span.attributes[schema.LLM_ATTEMPTS] == 2
    assert example["MODERATION"].described["operationId"] == "create_moderation"


async def test_an_added_call_of_a_stage_is_on_its_span(
    example: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = Gateway()
    gateway.services.answers["vector-svc/rerank"] = Response(200, json={"count": 3})
    with stage.running("rerank"):
        assert (await example["rerank"](gateway.backends, "why")).count == 3
    [call] = gateway.recorded.spans(SpanKind.CLIENT)
    assert call.attributes
    assert call.attributes[schema.PIPELINE_STAGE] == "rerank"
    await gateway.close()


def test_an_added_panel_asks_for_the_added_metric(example: dict[str, Any]) -> None:
    [target] = example["panel"].targets
    assert target["expr"] == "sum by (collection) (rate(reranked_total[$__rate_interval]))"


@pytest.mark.parametrize(("documents", "status"), [(["a", "b"], 200), ([], 422)])
async def test_an_added_endpoint_answers(
    documents: list[str], status: int, example: dict[str, Any], recorded: Recorded
) -> None:
    app = application(recorded.telemetry)
    app.include_router(example["router"])
    async with http(app) as client:
        response = await client.post("/rerank", json={"documents": documents})
    assert response.status_code == status
    if status == 200:
        assert response.json() == {"count": 2}
    else:
        assert response.json()["errors"][0]["field"] == "documents"


def test_an_added_provider_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    [shown] = re.findall(r"(?ms)^```json\n(.*?)^```", ADDING)
    monkeypatch.setenv("LLM_PROVIDERS", json.dumps(json.loads(shown)))
    first, second = Settings().providers()
    assert (first.name, first.chat_model, second.name) == ("vllm", "qwen3-8b", "o11y-local")
