"""The local model's streams: the same words as in one piece, and an end whoever ends them."""

import asyncio
import json
from functools import partial
from typing import Any

import openai
import pytest

from inference_svc.cost import Costs
from inference_svc.engine import Engine, GenerationRequest
from inference_svc.generation import Generator
from inference_svc.machine import Machine
from inference_svc.running import Running
from o11y.web.problems import Problem
from tests.support.recorded import Recorded, attributes
from tests.unit.inference_svc.conftest import Service

MESSAGES: list[Any] = [{"role": "user", "content": "w1 w2 w3"}]


@pytest.mark.parametrize("n", [1, 3])
async def test_a_streamed_chat_says_what_a_whole_one_says(
    n: int, client: openai.AsyncOpenAI
) -> None:
    asked: dict[str, Any] = {"model": "tiny", "messages": MESSAGES, "temperature": 0, "n": n}
    whole = await client.chat.completions.create(**asked, max_tokens=12)
    said = [""] * n
    ends: list[str | None] = [None] * n
    async for chunk in await client.chat.completions.create(**asked, max_tokens=12, stream=True):
        for choice in chunk.choices:
            said[choice.index] += choice.delta.content or ""
            ends[choice.index] = choice.finish_reason or ends[choice.index]
    assert [text.strip() for text in said] == [each.message.content for each in whole.choices]
    assert ends == [each.finish_reason for each in whole.choices]


async def test_a_streamed_completion_says_what_a_whole_one_says(
    client: openai.AsyncOpenAI,
) -> None:
    asked: dict[str, Any] = {"model": "tiny", "prompt": "w1 w2", "temperature": 0, "max_tokens": 9}
    whole = await client.completions.create(**asked)
    stream = await client.completions.create(**asked, stream=True)
    assert "".join([chunk.choices[0].text async for chunk in stream]) == whole.choices[0].text


@pytest.mark.parametrize("wanted", [True, False])
async def test_usage_comes_last_to_those_who_want_it(
    wanted: bool, client: openai.AsyncOpenAI
) -> None:
    stream = await client.chat.completions.create(
        model="tiny",
        messages=MESSAGES,
        max_tokens=5,
        stream=True,
        stream_options={"include_usage": wanted},
    )
    usages = [chunk.usage async for chunk in stream]
    assert usages[:-1] == [None] * (len(usages) - 1)
    if wanted:
        assert usages[-1] is not None
        assert 1 <= usages[-1].completion_tokens <= 5
    else:
        assert usages[-1] is None


async def test_a_stream_that_cannot_begin_has_a_status(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match="takes 64 together"):
        await client.chat.completions.create(
            model="tiny", messages=MESSAGES, max_tokens=500, stream=True
        )


async def test_local_inference_streams_with_its_metadata_last(service: Service) -> None:
    body = {"prompt": "w1 w2", "max_length": 6, "num_sequences": 2, "temperature": 0}
    whole = (await service.http.post("/local-inference", json=body)).json()
    answer = await service.http.post("/local-inference", json={**body, "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    blocks = [block.splitlines() for block in answer.text.split("\n\n") if block]
    texts = ["", ""]
    for (data,) in blocks[:-1]:
        piece = json.loads(data.removeprefix("data: "))
        texts[piece["index"]] += piece["text"]
    assert texts == whole["generated_texts"]
    assert blocks[-1][0] == "event: metadata"
    metadata = json.loads(blocks[-1][1].removeprefix("data: "))
    assert metadata["usage"] == whole["metadata"]["usage"]
    assert len(metadata["finish_reasons"]) == 2


async def test_a_stream_is_one_span_that_ends_with_it(service: Service) -> None:
    body = {"prompt": "w1 w2", "max_length": 6, "stream": True}
    await service.http.post("/local-inference", json=body)
    generation, server = service.spans.get_finished_spans()
    assert generation.parent == server.context
    assert generation.attributes is not None
    assert generation.attributes["gen_ai.request.stream"] is True
    assert generation.attributes["gen_ai.usage.output_tokens"]


async def test_who_closes_a_stream_ends_the_work(engine: Engine, recorded: Recorded) -> None:
    generator = Generator(engine, recorded.telemetry, Costs(None, Machine(), recorded.telemetry))
    running = Running(partial(generator.run, "chat", [GenerationRequest([1, 2], 60, 0.0)]))
    await running.begin()
    running.close()
    async with asyncio.timeout(5):
        with pytest.raises(asyncio.CancelledError):
            [_ async for _ in running.pieces()]
    assert engine.admission.inside == 0
    [generation] = recorded.spans()
    assert attributes(generation)["error.type"] == "cancelled"


async def test_a_call_that_fails_before_its_first_word_says_why_at_once(
    engine: Engine, recorded: Recorded
) -> None:
    generator = Generator(engine, recorded.telemetry, Costs(None, Machine(), recorded.telemetry))
    running = Running(partial(generator.run, "chat", [GenerationRequest([1], 500, 1.0)]))
    with pytest.raises(Problem, match="takes 64 together"):
        await running.begin()
