"""OpenAI's own SDK against the gateway: only its base URL is changed."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from pydantic import BaseModel

from tests.support.openai_standin import Standin, Step, scripted

MODEL = "gpt-4o-mini"
EMBEDDING_MODEL = "text-embedding-3-small"
QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Where is the café?"}]
TEXT = "In 東京 — naïve, but with 🍵."
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
        },
    },
}
USES_TOOL: dict[str, Any] = {
    "model": MODEL,
    "messages": QUESTION,
    "tools": [WEATHER],
    "tool_choice": "required",
}
ARGUMENTS = '{"city": "東京", "days": 3}'


class Place(BaseModel):
    name: str
    seats: int


@pytest.fixture(scope="module")
def client(edge: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=edge, api_key="anything", max_retries=0, timeout=20) as made:
        yield made


@pytest.fixture
async def async_client(edge: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=edge, api_key="anything", max_retries=0, timeout=20
    ) as made:
        yield made


def says(text: str, request_id: str = "says", **step: Any) -> dict[str, Any]:
    return scripted(request_id, Step(text=text, **step))


def test_an_answer_with_its_usage(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=QUESTION, extra_body=says(TEXT, usage="reasoning")
    )
    assert answer.choices[0].message.content == TEXT
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens_details is not None
    assert answer.usage.completion_tokens_details.reasoning_tokens == 64


async def test_an_answer_to_the_async_client(async_client: openai.AsyncOpenAI) -> None:
    answer = await async_client.chat.completions.create(
        model=MODEL, messages=QUESTION, extra_body=says(TEXT)
    )
    assert answer.choices[0].message.content == TEXT


def test_what_the_gateway_does_not_know_reaches_the_provider(
    client: openai.OpenAI, standin: Standin
) -> None:
    body = {"kept": {"as": ["it", "is"]}, **scripted("unknown-fields")}
    client.chat.completions.create(
        model=MODEL, messages=QUESTION, seed=7, logit_bias={"50256": -100}, extra_body=body
    )
    (received,) = standin.of("unknown-fields")
    sent = {"model": MODEL, "messages": QUESTION, "seed": 7, "logit_bias": {"50256": -100}}
    assert received.body == {**sent, **body}


def test_a_stream(client: openai.OpenAI) -> None:
    with client.chat.completions.create(
        model=MODEL, messages=QUESTION, stream=True, extra_body=says(TEXT)
    ) as stream:
        chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TEXT
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert [chunk.usage for chunk in chunks if chunk.usage] == []


def test_a_stream_that_is_to_tell_its_usage(client: openai.OpenAI, standin: Standin) -> None:
    with client.chat.completions.create(
        model=MODEL,
        messages=QUESTION,
        stream=True,
        stream_options={"include_usage": True},
        extra_body=says(TEXT, "stream-usage"),
    ) as stream:
        *chunks, last = stream
    (bill,) = standin.ledger.bills(id="stream-usage")
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TEXT
    assert last.choices == []
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (
        bill.prompt_tokens,
        bill.completion_tokens,
    )


async def test_a_stream_to_the_async_client(async_client: openai.AsyncOpenAI) -> None:
    stream = await async_client.chat.completions.create(
        model=MODEL, messages=QUESTION, stream=True, extra_body=says(TEXT)
    )
    async with stream:
        texts = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(texts) == TEXT


def test_the_first_chunk_comes_before_the_last_is_written(
    client: openai.OpenAI, standin: Standin
) -> None:
    stalls = scripted("first-chunk", Step(chunks=4, hang="mid_stream", after=2))
    with client.chat.completions.create(
        model=MODEL, messages=QUESTION, stream=True, extra_body=stalls
    ) as stream:
        texts = [next(stream).choices[0].delta.content for _ in range(3)]
    assert len([text for text in texts if text]) == 2
    (received,) = standin.of("first-chunk")
    standin.wait_for(lambda: received.outcome == "hung_then_left")


def test_the_raw_response_has_its_headers(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=QUESTION, extra_body=says(TEXT)
    )
    assert raw.status_code == 200
    assert raw.headers["content-type"] == "application/json"
    assert raw.headers["x-o11y-provider"] == "openai"
    assert float(raw.headers["x-o11y-cost-usd"]) > 0
    assert len(raw.headers["x-trace-id"]) == 32
    assert raw.parse().choices[0].message.content == TEXT


def test_the_raw_response_of_a_stream(client: openai.OpenAI) -> None:
    with client.chat.completions.with_streaming_response.create(
        model=MODEL, messages=QUESTION, stream=True, extra_body=says(TEXT)
    ) as raw:
        events = [line for line in raw.iter_lines() if line]
    assert raw.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert raw.headers["x-o11y-provider"] == "openai"
    assert events[-1] == "data: [DONE]"
    assert all(line.startswith("data: ") for line in events)


def test_a_tool_is_called(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(**USES_TOOL, extra_body=says(ARGUMENTS))
    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    (call,) = choice.message.tool_calls or []
    assert call.type == "function"
    assert (call.function.name, call.function.arguments) == ("weather", ARGUMENTS)


def test_a_tool_is_called_bit_by_bit(client: openai.OpenAI) -> None:
    with client.chat.completions.create(
        **USES_TOOL, stream=True, extra_body=says(ARGUMENTS)
    ) as stream:
        parts = [part for chunk in stream for part in chunk.choices[0].delta.tool_calls or []]
    functions = [part.function for part in parts if part.function]
    assert parts[0].id
    assert functions[0].name == "weather"
    assert "".join(function.arguments or "" for function in functions) == ARGUMENTS
    assert len(parts) > 3


def test_structured_output(client: openai.OpenAI, standin: Standin) -> None:
    answer = client.chat.completions.parse(
        model=MODEL, messages=QUESTION, response_format=Place, extra_body=scripted("structured")
    )
    place = answer.choices[0].message.parsed
    assert isinstance(place, Place)
    (received,) = standin.of("structured")
    assert received.body["response_format"]["json_schema"]["name"] == "Place"


def test_structured_output_in_a_stream(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model=MODEL, messages=QUESTION, response_format=Place
    ) as stream:
        kinds = {event.type for event in stream}
        place = stream.get_final_completion().choices[0].message.parsed
    assert isinstance(place, Place)
    assert {"chunk", "content.delta", "content.done"} <= kinds


def test_a_json_object(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=QUESTION, response_format={"type": "json_object"}
    )
    assert "answer" in json.loads(answer.choices[0].message.content or "")


def test_two_choices(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=QUESTION, n=2, extra_body=says(TEXT)
    )
    assert [(one.index, one.message.content) for one in answer.choices] == [(0, TEXT), (1, TEXT)]


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_embeddings(client: openai.OpenAI, standin: Standin, encoding: Any) -> None:
    texts = ["one", "two 東京"]
    body = scripted(f"embeddings-{encoding}")
    answer = client.embeddings.create(
        model=EMBEDDING_MODEL, input=texts, encoding_format=encoding, extra_body=body
    )
    plain = client.embeddings.create(model=EMBEDDING_MODEL, input=texts)
    (received,) = standin.of(f"embeddings-{encoding}")
    assert received.body["encoding_format"] == encoding
    assert [one.index for one in answer.data] == [0, 1]
    assert answer.usage.prompt_tokens > 0
    if encoding == "float":
        for one, other in zip(answer.data, plain.data, strict=True):
            assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
    else:
        assert isinstance(answer.data[0].embedding, str)


def test_legacy_completions(client: openai.OpenAI) -> None:
    model, prompt = "gpt-3.5-turbo-instruct", "Once upon a time"
    whole = client.completions.create(model=model, prompt=prompt, extra_body=says(TEXT))
    assert whole.choices[0].text == TEXT
    with client.completions.create(
        model=model, prompt=prompt, stream=True, extra_body=says(TEXT)
    ) as stream:
        assert "".join(chunk.choices[0].text for chunk in stream) == TEXT


def test_the_models(client: openai.OpenAI) -> None:
    assert {MODEL, EMBEDDING_MODEL} <= {model.id for model in client.models.list()}


def test_one_model(client: openai.OpenAI) -> None:
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError) as raised:
        client.models.retrieve("missing-model")
    assert raised.value.code == "model_not_found"


@pytest.mark.parametrize("stream", [False, True])
def test_too_many_requests(client: openai.OpenAI, standin: Standin, stream: bool) -> None:
    request_id = f"too-many-{stream}"
    busy = scripted(request_id, Step(status=429, retry_after="20"))
    headers = {"X-Request-Timeout": "5"}
    with pytest.raises(openai.RateLimitError) as raised:
        client.chat.completions.create(
            model=MODEL, messages=QUESTION, stream=stream, extra_body=busy, extra_headers=headers
        )
    assert raised.value.response.headers["retry-after"] == "20"
    assert raised.value.code == "rate_limit_exceeded"
    assert raised.value.message.count("Rate limit reached") == 1
    assert len(standin.of(request_id)) == 1  # there is no time to wait so long


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_that_is_missing(client: openai.OpenAI, stream: bool) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        client.chat.completions.create(model="missing-model", messages=QUESTION, stream=stream)
    assert raised.value.code == "model_not_found"


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_that_is_wrong(client: openai.OpenAI, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(
            model=MODEL,
            messages=QUESTION,
            n="two",
            stream=stream,  # type: ignore[call-overload]
        )
    assert raised.value.param == "n"
    assert raised.value.code == "invalid_type"


def test_a_request_that_nobody_needs_to_be_asked(client: openai.OpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as raised:
        client.chat.completions.create(model=MODEL, messages=[])
    assert raised.value.param == "messages"
