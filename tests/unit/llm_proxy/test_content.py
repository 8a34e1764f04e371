"""Prompts and answers are told where the setting says so, whole and streamed, and else nowhere."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from httpx2 import Response

from llm_proxy.content import MAX_DATA_URL, MessageAccumulator, input_messages
from o11y.telemetry import schema
from o11y.telemetry.capture import CUT, MAX_BYTES
from tests.support.near import Streamed
from tests.support.recorded import attributes
from tests.support.upstream import (
    CHAT,
    CHAT_CALL,
    COMPLETION_PATH,
    DONE,
    EMBEDDING,
    EMBEDDING_PATH,
    KEY,
    Proxy,
    event,
    failing,
    said,
)

CONTENT = {schema.INPUT_MESSAGES, schema.OUTPUT_MESSAGES, schema.SYSTEM_INSTRUCTIONS}
SYSTEM = {"role": "system", "content": "Be kind."}
Start = Callable[..., Proxy]


def text(content: str) -> dict[str, str]:
    return {"type": "text", "content": content}


def message(role: str, *parts: object, **more: object) -> dict[str, object]:
    return {"role": role, "parts": list(parts), "name": None, **more}


USER = [message("user", text("hi"))]
HELLO = [message("assistant", text("hello"), finish_reason="stop")]


@pytest.fixture
def capturing(start: Start) -> Start:
    def begin(mode: str = "SPAN_ONLY") -> Proxy:
        return start(openai_api_key=KEY, otel_instrumentation_genai_capture_message_content=mode)

    return begin


def told(proxy: Proxy) -> dict[str, Any]:
    """What was said, on the span of the last attempt."""
    span = [each for each in proxy.recorded.spans() if schema.PROVIDER in attributes(each)][-1]
    found = attributes(span)
    return {key: json.loads(str(found[key])) for key in CONTENT & found.keys()}


@pytest.mark.parametrize("stream", [False, True])
async def test_by_default_nothing_is_told(stream: bool, proxy: Proxy) -> None:
    await proxy.chat({**CHAT, "stream": stream})
    assert not told(proxy)
    assert proxy.recorded.events() == []


@pytest.mark.parametrize("stream", [False, True])
async def test_a_chat_is_told_on_its_span(stream: bool, capturing: Start) -> None:
    proxy = capturing()
    await proxy.chat({"messages": [SYSTEM, *CHAT["messages"]], "stream": stream})
    assert told(proxy) == {
        schema.SYSTEM_INSTRUCTIONS: [text("Be kind.")],
        schema.INPUT_MESSAGES: USER,
        schema.OUTPUT_MESSAGES: HELLO,
    }
    assert proxy.recorded.events() == []


@pytest.mark.parametrize(("mode", "on_span"), [("EVENT_ONLY", False), ("SPAN_AND_EVENT", True)])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_chat_is_told_in_an_event(
    mode: str, on_span: bool, stream: bool, capturing: Start
) -> None:
    proxy = capturing(mode)
    await proxy.chat({**CHAT, "stream": stream})
    assert bool(told(proxy)) is on_span
    [found] = proxy.recorded.events()
    assert found.event_name == schema.EVENT_INFERENCE
    values = json.loads(json.dumps(dict(found.attributes or {})))
    assert values[schema.INPUT_MESSAGES] == USER
    assert values[schema.OUTPUT_MESSAGES] == HELLO
    assert values[schema.OPERATION] == "chat"
    assert KEY not in json.dumps(values)


async def test_a_completion_is_told(capturing: Start) -> None:
    proxy = capturing()
    await proxy.client.post(COMPLETION_PATH, json={"prompt": ["hi", "ho"]})
    assert told(proxy) == {
        schema.INPUT_MESSAGES: [*USER, message("user", text("ho"))],
        schema.OUTPUT_MESSAGES: [message("assistant", text("hello"), finish_reason="length")],
    }


async def test_of_embeddings_nothing_is_told(capturing: Start) -> None:
    proxy = capturing("SPAN_AND_EVENT")
    await proxy.client.post(EMBEDDING_PATH, json=EMBEDDING)
    assert not told(proxy)
    assert proxy.recorded.events() == []


async def test_of_a_failure_the_question_is_told(capturing: Start) -> None:
    proxy = capturing()
    proxy.upstream.answers[CHAT_CALL] = failing(400)
    await proxy.chat()
    assert told(proxy) == {schema.INPUT_MESSAGES: USER}


async def test_of_a_stream_that_breaks_what_came_is_told(capturing: Start) -> None:
    proxy = capturing()
    proxy.upstream.answers[CHAT_CALL] = Streamed(said("hel"), said("lo"))
    await proxy.chat({**CHAT, "stream": True})
    [answer] = told(proxy)[schema.OUTPUT_MESSAGES]
    assert answer == message("assistant", text("hello"), finish_reason=None)


async def test_an_answer_without_choices_is_passed_on(capturing: Start) -> None:
    proxy = capturing()
    proxy.upstream.answers[CHAT_CALL] = Response(200, json={"choices": "none"})
    assert (await proxy.chat()).status_code == 200
    assert told(proxy) == {schema.INPUT_MESSAGES: USER}


def test_messages_have_the_parts_the_conventions_name() -> None:
    call = {"id": "7", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    image = "data:image/png;base64," + "A" * 1000
    content = [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": "http://i.test/a.png"}},
        {"type": "image_url", "image_url": {"url": image}},
        {"type": "file", "file": {"file_id": "f-1"}},
        {"type": "new"},
    ]
    messages = [
        {"role": "user", "content": content, "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "done", "tool_call_id": "7"},
        {"role": 5, "content": 5, "tool_calls": 5},
    ]
    user, assistant, tool, odd = input_messages(json.dumps({"messages": messages}).encode())
    assert user.name == "ann"
    assert [part.type for part in user.parts] == ["text", "uri", "uri", "file"]
    assert vars(user.parts[2])["uri"] == image[:MAX_DATA_URL] + CUT
    assert vars(assistant.parts[0]) == {
        "type": "tool_call",
        "id": "7",
        "name": "f",
        "arguments": {"a": 1},
    }
    assert vars(tool.parts[0]) == {"type": "tool_call_response", "id": "7", "response": "done"}
    assert (odd.role, odd.parts) == ("", [])


@pytest.mark.parametrize(
    "body", [b'{"messages": [1]}', b'{"messages": 1}', b'{"prompt": [1, 2]}', b"["]
)
def test_what_is_no_conversation_is_not_told(body: bytes) -> None:
    assert input_messages(body) == []


def test_calls_of_tools_are_put_together() -> None:
    answer = MessageAccumulator()
    for index, name, arguments in ((0, "f", '{"a"'), (1, "g", "no JSON"), (0, None, ": 1}")):
        call = {"index": index, "id": name, "function": {"name": name, "arguments": arguments}}
        choice: dict[str, Any] = {"index": 0, "delta": {"tool_calls": [call]}}
        answer.add(json.dumps({"choices": [choice]}).encode())
    answer.add(b'{"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}')
    answer.add(b"[DONE]")
    [found] = answer.messages()
    assert found.finish_reason == "tool_call"
    assert [vars(part)["arguments"] for part in found.parts] == [{"a": 1}, "no JSON"]


@pytest.mark.parametrize("arguments", ["[" * 100_000, '{"a":' * 900 + "1" + "}" * 900])
def test_deep_arguments_do_no_harm(arguments: str) -> None:
    call = {"id": "7", "function": {"name": "f", "arguments": arguments}}
    body = json.dumps({"messages": [{"role": "assistant", "tool_calls": [call]}]})
    [found] = input_messages(body.encode())
    json.dumps(vars(found.parts[0]))


async def test_of_an_endless_stream_little_is_kept(capturing: Start) -> None:
    proxy = capturing()
    many = [said("x" * 1000, more=1) for _ in range(100)]
    choices = [{"index": at, "delta": {"content": "y"}} for at in range(5000)]
    proxy.upstream.answers[CHAT_CALL] = Streamed(
        *many, event({"choices": choices}), said(finish="stop"), DONE
    )
    await proxy.chat({**CHAT, "stream": True})
    [answer] = told(proxy)[schema.OUTPUT_MESSAGES]
    content = answer["parts"][0]["content"]
    assert content.endswith(CUT)
    assert MAX_BYTES * 0.9 < len(content) < MAX_BYTES * 1.1
    assert answer["finish_reason"] == "stop"
