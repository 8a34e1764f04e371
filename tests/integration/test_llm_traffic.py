"""Bodies on their way through gateway and llm-proxy, and callers that leave in the middle."""

import json
import socket
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from tests.support.llm import Call, chat, embed, post
from tests.support.openai_standin import Standin, Step
from tests.support.processes import Service
from tests.support.waiting import until

MIB = 1 << 20


# Callers that leave


def leave(url: str, call: Call, when: Callable[[], bool], standin: Standin) -> None:
    """Send the call and close the connection as soon as `when` is true."""
    parsed = httpx2.URL(url)
    body = json.dumps(call.body).encode()
    head = (
        f"POST {call.path} HTTP/1.1\r\nhost: {parsed.host}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((parsed.host, parsed.port or 80)) as connection:
        connection.sendall(head.encode() + body)
        standin.wait_for(when)


@pytest.mark.parametrize("where", ["llm-proxy", "gateway"])
@pytest.mark.parametrize("stream", [False, True])
def test_who_leaves_before_the_first_byte_ends_the_providers_work(
    urls: dict[str, str], standins: tuple[Standin, Standin], where: str, stream: bool
) -> None:
    first, second = standins
    call = chat(Step(hang="before_first_byte"), stream=stream)
    leave(urls[where], call, lambda: bool(first.of(call.id)), first)
    (received,) = first.of(call.id)
    first.wait_for(lambda: received.outcome == "hung_then_left", 1)
    assert second.of(call.id) == []


@pytest.mark.parametrize("where", ["llm-proxy", "gateway"])
@pytest.mark.parametrize(
    "step",
    [
        pytest.param(Step(hang="mid_stream"), id="silent"),
        pytest.param(Step(chunks=2000, pace=0.01), id="writing"),
    ],
)
def test_who_leaves_a_stream_ends_the_providers_work(
    urls: dict[str, str], standins: tuple[Standin, Standin], where: str, step: Step
) -> None:
    first, second = standins
    call = chat(step, stream=True)
    leave(urls[where], call, lambda: any(one.chunks > 2 for one in first.of(call.id)), first)
    (received,) = first.of(call.id)
    first.wait_for(lambda: received.outcome in ("client_left", "hung_then_left"), 1)
    assert second.of(call.id) == []


def test_who_leaves_while_a_retry_is_waited_for_ends_the_call(
    urls: dict[str, str], standins: tuple[Standin, Standin], patient: Service
) -> None:
    first, _ = standins
    call = embed(Step(status=429, retry_after="20"), Step())

    def refused() -> bool:
        return any(one.outcome == "answered" for one in first.of(call.id))

    def left() -> int:
        return patient.log.read_text().count("/v1/embeddings 499")

    before = left()
    leave(urls["llm-proxy"], call, refused, first)
    until(lambda: left() > before, 1)
    assert len(first.of(call.id)) == 1


# Large and uneven bodies


def contents(answer: httpx2.Response) -> Any:
    """What was said, without what differs between two answers."""
    if "event-stream" not in answer.headers["content-type"]:
        return answer.json()["choices"]
    events = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    return [json.loads(event)["choices"] for event in events if event != "[DONE]"]


@pytest.mark.parametrize("where", ["llm-proxy", "gateway"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "step",
    [
        pytest.param(Step(size=MIB + 7), id="1 MiB"),
        pytest.param(Step(size=9 * MIB), id="9 MiB"),
        pytest.param(Step(size=9 * MIB, chunks=1), id="9 MiB at once"),
        pytest.param(Step(split=1), id="byte by byte"),
        pytest.param(Step(size=40_000, split=4093), id="cut within characters"),
    ],
)
def test_an_answer_arrives_as_it_was_sent(
    urls: dict[str, str], standins: tuple[Standin, Standin], where: str, stream: bool, step: Step
) -> None:
    call = chat(step, stream=stream)
    headers = {"authorization": "Bearer any"}
    direct = post(standins[0].url.removesuffix("/v1"), call, **headers)
    answer = post(urls[where], call)
    assert answer.headers["x-o11y-provider"] == "first"
    assert contents(answer) == contents(direct)


@pytest.mark.parametrize("where", ["llm-proxy", "gateway"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("size", [MIB + 7, 9 * MIB])
def test_a_large_question_reaches_the_provider_as_it_was_sent(
    urls: dict[str, str], standins: tuple[Standin, Standin], where: str, stream: bool, size: int
) -> None:
    text = "東京 — " * (size // len("東京 — ".encode()) + 1)
    call = chat(messages=[{"role": "user", "content": text}], stream=stream)
    assert post(urls[where], call).status_code == 200
    (received,) = standins[0].of(call.id)
    assert received.body["messages"] == call.body["messages"]


@pytest.mark.parametrize("where", ["llm-proxy", "gateway"])
def test_a_question_that_is_too_large_is_refused(urls: dict[str, str], where: str) -> None:
    answer = post(urls[where], chat(messages=[{"role": "user", "content": "a" * (65 * MIB)}]))
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "too_large"
