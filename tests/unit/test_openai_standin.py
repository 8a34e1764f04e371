"""The stand-in for OpenAI that other tests rely on: its shapes, its faults and its ledger."""

import asyncio
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import httpx2
import pytest
from openai import OpenAI

from tests.support import openai_standin
from tests.support.openai_standin import Standin, Step, scripted

KEY = {"authorization": "Bearer sk-test"}
ASK: dict[str, Any] = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "user", "content": "What is served where?"}],
}
STREAM = ASK | {"stream": True, "stream_options": {"include_usage": True}}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "array", "items": {"enum": [7]}}},
}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}


@pytest.fixture(scope="module")
def openai() -> Iterator[Standin]:
    with openai_standin.running() as standin:
        yield standin


@pytest.fixture(scope="module")
def http(openai: Standin) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=openai.url, headers=KEY, timeout=5) as client:
        yield client


@pytest.fixture(scope="module")
def sdk(openai: Standin, http: httpx2.Client) -> OpenAI:
    return OpenAI(base_url=openai.url, api_key="sk-test", max_retries=0, http_client=http)


def chat(http: httpx2.Client, body: dict[str, Any]) -> httpx2.Response:
    return http.post("/chat/completions", json=body)


def chunks(answer: httpx2.Response) -> list[dict[str, Any]]:
    events = [event.removeprefix("data: ") for event in answer.text.split("\n\n") if event]
    assert events.pop() == "[DONE]"
    return [json.loads(event) for event in events]


def test_a_chat_answer_is_what_the_sdk_expects_and_is_billed(openai: Standin, sdk: OpenAI) -> None:
    answer = sdk.chat.completions.create(**ASK, n=2, extra_body=scripted("plain", Step(chunks=10)))
    assert answer.model == "gpt-4o-mini-2024-07-18"
    assert [choice.finish_reason for choice in answer.choices] == ["stop", "stop"]
    assert answer.choices[1].message.content
    assert answer.usage
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 20)
    (bill,) = openai.ledger.bills(id="plain")
    assert (bill.operation, bill.reported) == ("chat", True)
    assert bill.usd == (7 * Decimal("0.15") + 20 * Decimal("0.6")) / 1_000_000


def test_a_stream_survives_being_split_anywhere(openai: Standin, sdk: OpenAI) -> None:
    text = "naïve 東京 🍵" * 5
    body = scripted("split", Step(text=text, split=3, chunks=9))
    *content, end, usage = list(sdk.chat.completions.create(**STREAM, extra_body=body))
    assert content[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in content) == text
    assert end.choices[0].finish_reason == "stop"
    assert end.usage is None
    assert usage.choices == []
    assert usage.usage
    assert usage.usage.completion_tokens == 9
    assert openai.of("split")[0].outcome == "answered"
    assert openai.ledger.tokens("completion", id="split", reported=True) == 9


def test_the_other_operations_answer_too(openai: Standin, sdk: OpenAI) -> None:
    model = "text-embedding-3-small"
    plain, packed = (
        sdk.embeddings.create(model=model, input=["a", "b"], dimensions=8, encoding_format=encoding)
        for encoding in ("float", "base64")
    )
    assert [len(item.embedding) for item in plain.data] == [8, 8]
    assert packed.data[1].embedding != plain.data[1].embedding
    again = sdk.embeddings.create(model=model, input="b", dimensions=8)  # decodes base64
    assert again.data[0].embedding == pytest.approx(plain.data[1].embedding)
    done = sdk.completions.create(model="gpt-3.5-turbo-instruct", prompt=["a", "b"], max_tokens=2)
    assert [choice.finish_reason for choice in done.choices] == ["length", "length"]
    pieces = list(sdk.completions.create(model="gpt-4o", prompt="a", stream=True))
    assert "café" in "".join(piece.choices[0].text for piece in pieces)
    assert "o4-mini" in [listed.id for listed in sdk.models.list()]
    assert sdk.models.retrieve("gpt-4o").id == "gpt-4o"


def test_tools_are_called_and_schemas_are_filled(http: httpx2.Client) -> None:
    body = ASK | {"tools": [TOOL], "tool_choice": "required"}
    (choice,) = chat(http, body).json()["choices"]
    assert choice["finish_reason"] == "tool_calls"
    call = choice["message"]["tool_calls"][0]["function"]
    first, *deltas, end = [
        chunk["choices"][0]["delta"] for chunk in chunks(chat(http, body | {"stream": True}))
    ]
    assert first["tool_calls"][0]["function"] == {"name": "weather", "arguments": ""}
    arguments = [delta["tool_calls"][0]["function"]["arguments"] for delta in deltas]
    assert ("".join(arguments), end) == (call["arguments"], {})

    form = {"type": "json_schema", "json_schema": {"name": "plan", "schema": SCHEMA}}
    content = chat(http, ASK | {"response_format": form}).json()["choices"][0]["message"]["content"]
    assert json.loads(content) == json.loads(call["arguments"])
    assert json.loads(content)["days"] == [7]


@pytest.mark.parametrize(
    ("change", "headers", "status", "said"),
    [
        ({}, {"authorization": ""}, 401, "API key"),
        ({"model": "missing-model"}, {}, 404, "model_not_found"),
        ({"messages": []}, {}, 400, "messages"),
        (scripted("bad", {"latencyy": 1}), {}, 400, "standin.script.0.latencyy"),
        (scripted("bad", {"hang": "often"}), {}, 400, "standin.script.0.hang"),
    ],
)
def test_what_openai_refuses_is_refused(
    http: httpx2.Client, change: dict[str, Any], headers: dict[str, str], status: int, said: str
) -> None:
    answer = http.post("/chat/completions", json=ASK | change, headers=headers)
    assert answer.status_code == status
    assert said in json.dumps(answer.json()["error"])


def test_a_script_is_played_step_by_step_and_its_last_repeats(
    openai: Standin, http: httpx2.Client
) -> None:
    script = scripted("retried", Step(status=429, retry_after="0.2"), Step(status=503), Step())
    answers = [chat(http, ASK | script) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [429, 503, 200, 200]
    assert answers[0].headers["retry-after"] == "0.2"
    assert answers[0].json()["error"]["code"] == "rate_limit_exceeded"
    assert [received.status for received in openai.of("retried")] == [429, 503, 200, 200]
    assert len(openai.ledger.bills(id="retried")) == 2


@pytest.mark.parametrize(
    ("cut", "body", "billed"),
    [("before_first_byte", ASK, None), ("mid_body", ASK, 8), ("mid_stream", STREAM, 3)],
)
def test_a_cut_connection_is_billed_for_what_was_generated(
    openai: Standin, http: httpx2.Client, cut: Any, body: dict[str, Any], billed: int | None
) -> None:
    with pytest.raises((httpx2.ReadError, httpx2.RemoteProtocolError)):
        chat(http, body | scripted(cut, Step(cut=cut, after=3)))
    assert openai.of(cut)[0].outcome == "cut"
    bills = openai.ledger.bills(id=cut)
    assert [(bill.completion_tokens, bill.reported) for bill in bills] == (
        [] if billed is None else [(billed, False)]
    )


@pytest.mark.parametrize(
    ("step", "outcome", "read"),
    [
        (Step(latency=30), "client_left", 0),
        (Step(hang="before_first_byte"), "hung_then_left", 0),
        (Step(hang="mid_stream", after=2), "hung_then_left", 2),
        (Step(pace=30), "client_left", 1),
    ],
)
def test_a_client_that_leaves_is_noticed_at_once(
    openai: Standin, step: Step, outcome: str, read: int
) -> None:
    request_id = f"left {step}"

    async def leave() -> float:
        async with httpx2.AsyncClient(base_url=openai.url, headers=KEY) as http:
            call = http.post("/chat/completions", json=STREAM | scripted(request_id, step))
            async with asyncio.TaskGroup() as group:
                task = group.create_task(call)
                await openai.until(lambda: [one.chunks for one in openai.of(request_id)] == [read])
                task.cancel()
        return time.monotonic()

    left = asyncio.run(leave())
    (received,) = openai.of(request_id)
    openai.wait_for(lambda: received.ended_at is not None)
    assert received.ended_at
    assert (received.outcome, received.ended_at - left < 0.5) == (outcome, True)
    assert [bill.completion_tokens for bill in openai.ledger.bills(id=request_id)] in ([read], [])


@pytest.mark.parametrize(
    ("model", "usage", "seen", "usd"),
    [
        ("gpt-4o-mini", "absent", [], "5.85e-6"),
        ("gpt-4o-mini", "null", [], "5.85e-6"),
        ("gpt-4o", "in_last_chunk", [8], "9.75e-5"),
        ("gpt-4o-mini", "every_chunk", [0, *range(1, 9), 8, 8], "5.85e-6"),
        ("gpt-4o", "cached", [8], "0.0013775"),
        ("o4-mini", "reasoning", [72], "0.0003245"),
        ("gpt-audio", "audio", [58], "0.0064975"),
        ("a-model", {"prompt_tokens": 5, "completion_tokens": 6}, [6], None),
    ],
)
def test_usage_has_many_forms_and_one_price(
    openai: Standin, http: httpx2.Client, model: str, usage: Any, seen: list[int], usd: str | None
) -> None:
    request_id = f"usage {usage}"
    stream = chunks(chat(http, STREAM | {"model": model} | scripted(request_id, Step(usage=usage))))
    counts = [chunk["usage"]["completion_tokens"] for chunk in stream if chunk.get("usage")]
    assert counts == seen
    (bill,) = openai.ledger.bills(id=request_id)
    assert (bill.reported, bill.usd) == (bool(seen), usd and Decimal(usd))


def test_malformed_answers_and_streams_without_an_end(http: httpx2.Client) -> None:
    page = Step(malformed="json", content_type="text/html", status=502)
    answer = chat(http, ASK | scripted("page", page))
    assert (answer.headers["content-type"], answer.text[:6]) == ("text/html", "<html>")
    assert chat(http, ASK | scripted("list", Step(malformed="not_an_object"))).json()[0] == "not"
    for number, step in enumerate((Step(malformed="json"), Step(malformed="sse"))):
        with pytest.raises(ValueError, match="line 1 column"):
            chunks(chat(http, STREAM | scripted(f"broken {number}", step)))
    answer = chat(http, STREAM | scripted("open", Step(no_done=True, size=100_000)))
    assert len(answer.content) > 100_000
    assert "[DONE]" not in answer.text


async def test_hundreds_of_calls_at_once(openai: Standin) -> None:
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(base_url=openai.url, headers=KEY, limits=limits) as http:

        def crowd(step: Step) -> list[asyncio.Task[httpx2.Response]]:
            body = ASK | scripted(f"crowd {step.hang}", step)
            return [
                asyncio.create_task(http.post("/chat/completions", json=body)) for _ in range(100)
            ]

        waiting = crowd(Step(hang="before_first_byte"))
        await openai.until(lambda: len(openai.of("crowd before_first_byte")) == 100)
        answers = await asyncio.gather(*crowd(Step()))
        for call in waiting:
            call.cancel()
        await asyncio.wait(waiting)
    assert {answer.status_code for answer in answers} == {200}
    assert openai.ledger.tokens("completion", id="crowd None") == 100 * 8


def test_it_stops_while_a_client_waits() -> None:
    with ThreadPoolExecutor(1) as client:
        with openai_standin.running(requires_key=False) as openai:
            openai.default = Step(hang="before_first_byte")
            call = client.submit(httpx2.post, f"{openai.url}/chat/completions", json=ASK)
            openai.wait_for(lambda: len(openai.requests) == 1)
        assert isinstance(call.exception(5), httpx2.HTTPError)
    assert [one.outcome for one in openai.requests] == ["server_stopped"]
