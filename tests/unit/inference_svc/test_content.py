"""Prompts and answers are told where the setting says so, whole and streamed, and else nowhere."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from inference_svc.app import build
from inference_svc.cost import Costs
from inference_svc.engine import Engine
from inference_svc.generation import Generator
from inference_svc.machine import Machine
from inference_svc.settings import Settings
from o11y.telemetry import schema
from o11y.telemetry.capture import CUT, MAX_BYTES
from o11y.web.problems import Problem
from tests.support.engines import greedy
from tests.support.recorded import Recorded, attributes, http

CONTENT = {schema.INPUT_MESSAGES, schema.OUTPUT_MESSAGES, schema.SYSTEM_INSTRUCTIONS}
CHAT = {
    "messages": [{"role": "system", "content": "w9"}, {"role": "user", "content": "w1 w2"}],
    "temperature": 0,
    "max_tokens": 5,
}
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", CHAT),
    "completion": ("/v1/completions", {"prompt": "w1 w2", "temperature": 0, "max_tokens": 5}),
    "own": ("/local-inference", {"prompt": "w1 w2", "temperature": 0, "max_length": 5}),
}
USER = [{"role": "user", "parts": [{"type": "text", "content": "w1 w2"}], "name": None}]

each_call = pytest.mark.parametrize(("path", "body"), CALLS.values(), ids=CALLS)
streamed_or_not = pytest.mark.parametrize("stream", [False, True])


class Captured:
    """The service in process, with what it recorded."""

    def __init__(self, folder: Path, mode: str) -> None:
        settings = Settings(
            local_model_name=str(folder),
            engine_max_context=64,
            otel_instrumentation_genai_capture_message_content=mode,
        )
        self.recorded = Recorded("inference-svc", settings)
        self.app = build(settings, self.recorded.telemetry)
        self.http: httpx2.AsyncClient = http(self.app)

    async def call(self, path: str, body: dict[str, Any], stream: bool) -> httpx2.Response:
        return await self.http.post(path, json={**body, "stream": stream})

    def told(self) -> dict[str, Any]:
        """What was said, on the span of the last generation."""
        spans = [s for s in self.recorded.spans() if schema.MODEL_NAME in attributes(s)]
        found = attributes(spans[-1])
        return {key: json.loads(str(found[key])) for key in CONTENT & found.keys()}


@pytest.fixture
def mode() -> str:
    return "SPAN_ONLY"


@pytest.fixture
async def captured(model_folder: Path, mode: str) -> AsyncIterator[Captured]:
    captured = Captured(model_folder, mode)
    async with captured.app.router.lifespan_context(captured.app), captured.http:
        yield captured


@pytest.mark.parametrize("mode", ["NO_CONTENT"])
@streamed_or_not
async def test_nothing_is_told_by_default(captured: Captured, stream: bool) -> None:
    for path, body in CALLS.values():
        assert (await captured.call(path, body, stream)).status_code == 200
        assert captured.told() == {}
    assert captured.recorded.events() == []


@each_call
async def test_a_call_is_told_on_its_span(
    captured: Captured, path: str, body: dict[str, Any]
) -> None:
    answer = (await captured.call(path, body, stream=False)).json()
    whole = captured.told()
    [message] = whole[schema.OUTPUT_MESSAGES]
    words = message["parts"][0]["content"].strip()
    assert words
    assert words in json.dumps(answer)
    assert (message["role"], message["finish_reason"]) == ("assistant", "length")
    assert whole[schema.INPUT_MESSAGES] == USER
    system = [{"type": "text", "content": "w9"}] if path.endswith("chat/completions") else None
    assert whole.get(schema.SYSTEM_INSTRUCTIONS) == system
    await captured.call(path, body, stream=True)
    assert captured.told() == whole
    assert captured.recorded.events() == []


@pytest.mark.parametrize("mode", ["EVENT_ONLY", "SPAN_AND_EVENT"])
@streamed_or_not
async def test_a_call_is_told_in_an_event(captured: Captured, mode: str, stream: bool) -> None:
    await captured.call("/v1/chat/completions", CHAT, stream)
    assert bool(captured.told()) is (mode == "SPAN_AND_EVENT")
    [event] = captured.recorded.events()
    assert event.event_name == schema.EVENT_INFERENCE
    found = json.loads(json.dumps(dict(event.attributes or {})))
    assert found.keys() >= CONTENT
    assert found[schema.INPUT_MESSAGES] == USER
    assert found[schema.OPERATION] == "chat"


async def test_of_a_long_prompt_that_is_refused_the_beginning_is_told(
    engine: Engine,
) -> None:
    settings = Settings(otel_instrumentation_genai_capture_message_content="SPAN_ONLY")
    recorded = Recorded("inference-svc", settings)
    generator = Generator(engine, recorded.telemetry, Costs(None, Machine(), recorded.telemetry))
    with pytest.raises(Problem):
        await generator.run("chat", [greedy([1] * 500)], turns=[("user", "x" * 1_000_000)])
    [span] = recorded.spans()
    found = attributes(span)
    [message] = json.loads(str(found[schema.INPUT_MESSAGES]))
    content = message["parts"][0]["content"]
    assert content.endswith(CUT)
    assert len(content) < MAX_BYTES * 1.1
    assert schema.OUTPUT_MESSAGES not in found
