from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from inference_svc.app import build
from inference_svc.settings import Settings
from o11y.telemetry import Telemetry


class Running:
    """The service in process with the tiny model, and the spans it ended."""

    def __init__(self, folder: Path) -> None:
        self.spans = InMemorySpanExporter()
        settings = Settings(local_model_name=str(folder), engine_max_context=64)
        self.telemetry = Telemetry("inference-svc", settings, [SimpleSpanProcessor(self.spans)])
        self.app = build(settings, self.telemetry)
        transport = httpx2.ASGITransport(self.app)
        self.http = httpx2.AsyncClient(transport=transport, base_url="http://inference-svc")


@pytest.fixture
async def running(model_folder: Path) -> AsyncIterator[Running]:
    running = Running(model_folder)
    async with running.app.router.lifespan_context(running.app), running.http:
        yield running


@pytest.fixture
def client(running: Running) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url="http://inference-svc/v1", api_key="none", http_client=running.http, max_retries=0
    )


async def test_the_openai_sdk_gets_an_answer_with_usage(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "w1 w2"}], max_tokens=4, n=2
    )
    assert len(answer.choices) == 2
    assert answer.usage is not None
    assert answer.usage.completion_tokens <= 8
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


async def test_the_openai_sdk_gets_embeddings_in_both_encodings(
    client: openai.AsyncOpenAI,
) -> None:
    name = "all-MiniLM-L6-v2"
    packed = await client.embeddings.create(model=name, input="a span")
    plain = await client.embeddings.create(model=name, input=["a span"], encoding_format="float")
    assert packed.data[0].embedding == pytest.approx(plain.data[0].embedding, rel=1e-5)
    assert len(plain.data[0].embedding) == 384
    assert plain.usage.total_tokens == 4


async def test_models_are_listed_with_their_kind(client: openai.AsyncOpenAI) -> None:
    listed = await client.models.list()
    assert {model.id for model in listed.data} == {"tiny", "all-MiniLM-L6-v2"}


CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "w1"}], "max_tokens": 2}


@pytest.mark.parametrize(
    ("extra", "status", "param"),
    [
        ({"model": "other"}, 404, "model"),
        ({"model": "all-MiniLM-L6-v2"}, 404, "model"),
        ({"messages": []}, 422, "messages"),
        ({"stream": True}, 422, "stream"),
        ({"top_p": 0.5}, 422, "top_p"),
        ({"tools": [{"type": "function"}]}, 422, "tools"),
        ({"response_format": {"type": "json_object"}}, 422, "response_format"),
        ({"temperature": 3}, 422, "temperature"),
        ({"max_tokens": 500}, 422, "prompt"),
    ],
)
async def test_what_the_engine_cannot_do_is_refused_by_name(
    running: Running, extra: dict[str, Any], status: int, param: str
) -> None:
    answer = await running.http.post("/v1/chat/completions", json={**CHAT, **extra})
    assert answer.status_code == status
    assert answer.json()["error"]["param"] == param


async def test_parameters_that_change_nothing_are_taken(running: Running) -> None:
    neutral = {"top_p": 1, "presence_penalty": 0, "stream": False, "tools": [], "user": "ada"}
    answer = await running.http.post("/v1/chat/completions", json={**CHAT, **neutral})
    assert answer.status_code == 200


async def test_a_generation_is_a_span_with_its_work(running: Running) -> None:
    body = {"prompt": "w1 w2 w3", "max_length": 4, "num_sequences": 2, "temperature": 0}
    answer = (await running.http.post("/local-inference", json=body)).json()
    generation, server = running.spans.get_finished_spans()
    assert generation.name == "text_completion tiny"
    assert generation.parent == server.context
    assert generation.attributes is not None
    usage = answer["metadata"]["usage"]
    assert generation.attributes["gen_ai.usage.input_tokens"] == usage["prompt_tokens"] == 3
    assert generation.attributes["gen_ai.usage.output_tokens"] == usage["completion_tokens"]
    assert generation.attributes["gen_ai.request.choice.count"] == 2
    assert generation.attributes["model.name"] == "tiny"


async def test_a_refused_generation_is_an_error_span(running: Running) -> None:
    await running.http.post("/local-inference", json={"prompt": "w1", "max_length": 100})
    generation, server = running.spans.get_finished_spans()
    assert not generation.status.is_ok
    assert generation.attributes is not None
    assert generation.attributes["error.type"] == "Problem"
    assert server.status.is_ok


async def test_health_names_model_and_device(running: Running) -> None:
    health = (await running.http.get("/health")).json()
    assert (health["status"], health["model_name"]) == ("available", "tiny")
    assert (await running.http.get("/stats")).json()["context_window"] == 64
