"""Streams through the gateway: OpenAI's byte for byte, /chat's as events of its own."""

import asyncio
import json
from typing import Any

import httpx2
import pytest
from httpx2 import Response
from opentelemetry.trace import SpanKind, StatusCode

from o11y.contracts import SUMMARY_FIELD
from o11y.telemetry import schema
from tests.support.gateway_services import CHAT, LLM, Gateway, Services, problem, usage
from tests.support.near import SSE, Streamed
from tests.support.recorded import attributes

PATIENCE_SECONDS = 5
BODY = b'{"messages": [{"role": "user", "content": "hi"}], "stream" : true}'
PATH = "/v1/chat/completions"


def event(body: object) -> bytes:
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def delta(text: object) -> bytes:
    return event({"choices": [{"index": 0, "delta": {"content": text}}]})


DONE = b"data: [DONE]\n\n"
FAILED = event({"error": {"message": "the provider broke", "code": "stream_broken"}})


def summary(**changed: Any) -> bytes:
    told = {
        "model": "gpt",
        "provider": "openai",
        "usage": usage(20, 5),
        "usage_estimated": False,
        "cost_usd": 0.25,
        "finish_reason": "stop",
    }
    return event({"choices": [], SUMMARY_FIELD: {**told, **changed}})


async def v1(gateway: Gateway) -> Response:
    return await gateway.client.post(PATH, content=BODY)


async def chat(gateway: Gateway, **fields: object) -> Response:
    return await gateway.post("/chat", {"message": "sky", "stream": True, **fields})


def told(gateway: Gateway) -> dict[str, object]:
    [span] = gateway.recorded.spans(SpanKind.CLIENT)
    return attributes(span)


def events(response: Response) -> list[tuple[str, Any]]:
    """The names and data of server-sent events."""
    found = []
    for each in response.text.split("\n\n")[:-1]:
        *names, data = each.split("\n")
        name = names[0].removeprefix("event: ") if names else "message"
        found.append((name, json.loads(data.removeprefix("data: "))))
    return found


# /v1


@pytest.mark.parametrize("path", [PATH, "/v1/completions"])
async def test_a_stream_passes_byte_for_byte(
    path: str, gateway: Gateway, services: Services
) -> None:
    pieces = [
        b": wait\r\n\r\n",
        b'data: {"a": ',
        b"1.50}\n",
        b"\n",
        "data: é".encode()[:-1],
        b"\xff",
    ]
    services.answers[f"{LLM}{path}"] = Streamed(
        *pieces, headers={**SSE, "x-o11y-provider": "openai", "server": "x"}
    )
    response = await gateway.client.post(path, content=BODY)
    assert response.content == b"".join(pieces)
    assert services.asked(f"{LLM}{path}").content == BODY
    assert response.headers["content-type"] == "text/event-stream"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-o11y-provider"] == "openai"
    assert "server" not in response.headers
    assert schema.ERROR_TYPE not in told(gateway)


async def test_a_stream_is_passed_on_as_it_comes(gateway: Gateway, services: Services) -> None:
    more = asyncio.Event()
    answer = Streamed(delta("a"), more, DONE)
    services.answers[CHAT] = answer
    sent: asyncio.Queue[Any] = asyncio.Queue()
    task = asyncio.ensure_future(gateway.app(scope(), asking(asyncio.Event()), sent.put))
    async with asyncio.timeout(PATIENCE_SECONDS):
        await answer.reached.wait()
        start, first = await sent.get(), await sent.get()
        assert (start["status"], first["body"]) == (200, delta("a"))
        more.set()
        await task
    assert (await sent.get())["body"] == DONE


def scope(path: str = PATH) -> dict[str, Any]:
    return {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }


def asking(leaves: asyncio.Event, body: bytes = BODY) -> Any:
    """Receives the body, and that the client has left when it has."""
    messages = iter([{"type": "http.request", "body": body}])

    async def receive() -> dict[str, Any]:
        message = next(messages, None)
        if message is None:
            await leaves.wait()
            return {"type": "http.disconnect"}
        return message

    return receive


each_stream = pytest.mark.parametrize(
    ("path", "body"),
    [(PATH, BODY), ("/chat", b'{"message": "hi", "stream": true}')],
    ids=["v1", "chat"],
)


@each_stream
@pytest.mark.parametrize("first", [b"", delta("a")], ids=["before", "within"])
async def test_a_client_that_leaves_ends_the_call_behind(
    first: bytes, path: str, body: bytes, gateway: Gateway, services: Services
) -> None:
    answer = Streamed(*([first] if first else []), asyncio.Event())
    services.answers[CHAT] = answer
    leaves = asyncio.Event()

    async def send(message: Any) -> None:
        await asyncio.sleep(0)

    task = asyncio.ensure_future(gateway.app(scope(path), asking(leaves, body), send))
    async with asyncio.timeout(PATIENCE_SECONDS):
        await answer.reached.wait()
        leaves.set()
        await task
    assert answer.closed
    assert told(gateway)[schema.ERROR_TYPE] == schema.ERROR_CANCELLED
    [server] = gateway.recorded.spans(SpanKind.SERVER)
    assert attributes(server)[schema.ERROR_TYPE] == schema.ERROR_CLIENT_GONE


@each_stream
async def test_a_caller_gone_before_the_first_byte_could_go_ends_the_call_too(
    path: str, body: bytes, gateway: Gateway, services: Services
) -> None:
    answer = Streamed(delta("a"), DONE)
    services.answers[CHAT] = answer
    blocked = asyncio.Event()

    async def send(message: Any) -> None:
        blocked.set()
        await asyncio.Event().wait()

    task = asyncio.ensure_future(gateway.app(scope(path), asking(asyncio.Event(), body), send))
    async with asyncio.timeout(PATIENCE_SECONDS):
        await blocked.wait()
        task.cancel()
        await asyncio.wait([task])
    assert answer.closed
    assert len(gateway.recorded.spans(SpanKind.CLIENT)) == 1


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx2.ReadError("reset"), schema.ERROR_CONNECTION_LOST),
        (httpx2.RemoteProtocolError("no HTTP"), "unreadable_answer"),
        (TimeoutError(), schema.ERROR_TIMEOUT),
    ],
    ids=repr,
)
async def test_a_proxy_that_breaks_off_is_an_error_event(
    error: Exception, kind: str, gateway: Gateway, services: Services
) -> None:
    services.answers[CHAT] = Streamed(delta("a"), error)
    response = await v1(gateway)
    assert response.status_code == 200
    assert response.content.startswith(delta("a"))
    [_, (_, last)] = events(response)
    assert last["error"]["type"] == "server_error"
    assert told(gateway)[schema.ERROR_TYPE] == kind
    [server] = gateway.recorded.spans(SpanKind.SERVER)
    assert attributes(server)[schema.ERROR_TYPE] == schema.ERROR_STREAM_BROKEN
    assert server.status.status_code is StatusCode.ERROR


async def test_a_proxy_that_dies_within_an_event_leaves_whole_events_only(
    gateway: Gateway, services: Services
) -> None:
    services.answers[CHAT] = Streamed(
        delta("a") + b'data: {"choi', b'ces": [', httpx2.ReadError("reset")
    )
    response = await v1(gateway)
    [(_, first), (_, last)] = events(response)
    assert first == {"choices": [{"index": 0, "delta": {"content": "a"}}]}
    assert last["error"]["code"] == "unavailable"


@pytest.mark.parametrize("last", [DONE, FAILED], ids=["done", "failed"])
async def test_who_leaves_with_the_last_event_has_all_of_the_stream(
    last: bytes, gateway: Gateway, services: Services
) -> None:
    services.answers[CHAT] = Streamed(delta("a"), last, b": more", asyncio.Event())
    leaves = asyncio.Event()

    async def send(message: Any) -> None:
        if last in message.get("body", b""):
            leaves.set()
        await asyncio.sleep(0.01)

    async with asyncio.timeout(PATIENCE_SECONDS):
        await gateway.app(scope(), asking(leaves), send)
    assert leaves.is_set()
    assert schema.ERROR_TYPE not in told(gateway)
    [server] = gateway.recorded.spans(SpanKind.SERVER)
    error = attributes(server).get(schema.ERROR_TYPE)
    assert error == (schema.ERROR_STREAM_BROKEN if last is FAILED else None)


@pytest.mark.parametrize("status", [400, 404, 429, 502, 503])
async def test_a_stream_that_is_refused_is_a_whole_answer(
    status: int, gateway: Gateway, services: Services
) -> None:
    refusal = {"error": {"message": "no"}}
    services.answers[CHAT] = Response(status, json=refusal, headers={"Retry-After": "7"})
    response = await v1(gateway)
    assert (response.status_code, response.json()) == (status, refusal)
    assert response.headers["retry-after"] == "7"
    assert response.headers["content-length"] == str(len(response.content))


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        (BODY, 600),
        (b'{"messages": [{}], "stream":\n true}', 600),
        (b'{"messages": [{}], "stream": false}', 60),
        (b'{"messages": [{"content": "\\"stream\\": true"}]}', 60),
    ],
)
async def test_a_stream_is_given_its_time(
    body: bytes, seconds: float, gateway: Gateway, services: Services
) -> None:
    assert (await gateway.client.post(PATH, content=body)).status_code == 200
    left = float(services.asked(CHAT).headers["x-request-timeout"])
    assert left == pytest.approx(seconds, abs=1)


# /chat


async def test_a_chat_may_come_as_it_is_written(gateway: Gateway, services: Services) -> None:
    services.answers[CHAT] = Streamed(
        b": wait\n\n", delta(""), delta("Hel"), delta("lo \u00e9"), delta(None), summary(), DONE
    )
    response = await chat(gateway, model="m", max_tokens=7, user_id="ann")
    asked = services.asked(CHAT)
    assert asked.body == {
        "model": "m",
        "messages": [{"role": "user", "content": "sky"}],
        "temperature": 0.7,
        "max_tokens": 7,
        "stream": True,
    }
    assert asked.headers["x-o11y-stream-summary"] == "1"
    assert asked.who == {"user.id": "ann"}
    assert response.headers["content-type"].startswith("text/event-stream")
    *texts, (name, metadata) = events(response)
    assert texts == [("message", {"content": "Hel"}), ("message", {"content": "lo é"})]
    assert name == "metadata"
    assert metadata.pop("duration_seconds") >= 0
    assert metadata == {
        "model": "gpt",
        "provider": "openai",
        "usage": usage(20, 5),
        "cost_usd": 0.25,
        "finish_reason": "stop",
    }


@pytest.mark.parametrize("last", [summary() + DONE, FAILED], ids=["done", "failed"])
async def test_all_of_a_chat_has_ended_before_its_last_event_goes(
    last: bytes, gateway: Gateway, services: Services
) -> None:
    services.answers[CHAT] = Streamed(delta("a"), last, b": more", asyncio.Event())
    ended: list[bool] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body"):
            ended.append(schema.ERROR_TYPE not in told(gateway))
            leaves.set()

    leaves = asyncio.Event()
    asks = asking(leaves, b'{"message": "hi", "stream": true}')
    async with asyncio.timeout(PATIENCE_SECONDS):
        await gateway.app(scope("/chat"), asks, send)
    assert ended == [True]
    [server] = gateway.recorded.spans(SpanKind.SERVER)
    error = attributes(server).get(schema.ERROR_TYPE)
    assert error == (schema.ERROR_STREAM_BROKEN if last is FAILED else None)


async def test_an_unknown_price_is_null(gateway: Gateway, services: Services) -> None:
    services.answers[CHAT] = Streamed(delta("a"), summary(cost_usd=None), DONE)
    [*_, (_, metadata)] = events(await chat(gateway))
    assert metadata["cost_usd"] is None


@pytest.mark.parametrize(
    "lacking",
    [
        {"delta": {"content": [{"type": "text", "text": "b"}, {"type": "thinking"}]}},
        {"delta": {"content": "b"}, "finish_reason": None, "index": None},
        {"index": "0", "delta": {"content": "b", "role": None}},
    ],
)
async def test_chunks_that_lack_what_nobody_needs_are_read(
    lacking: dict[str, Any], gateway: Gateway, services: Services
) -> None:
    odd = [event({"choices": each}) for each in (None, [], [{"delta": None}], [lacking])]
    services.answers[CHAT] = Streamed(delta("a"), *odd, summary(), DONE)
    *pieces, (name, _) = events(await chat(gateway))
    assert [piece["content"] for _, piece in pieces] == ["a", "b"]
    assert name == "metadata"


@pytest.mark.parametrize(
    ("pieces", "code", "status"),
    [
        ((FAILED + summary(),), "stream_broken", 502),
        ((httpx2.ReadError("reset"),), "unavailable", 503),
        ((TimeoutError(),), "out_of_time", 504),
        ((b"data: nonsense\n\n",), "bad_upstream", 502),
        ((event({"choices": "none"}),), "bad_upstream", 502),
        ((delta(["parts"]),), "bad_upstream", 502),
        ((event({"choices": [], SUMMARY_FIELD: {}}),), "bad_upstream", 502),
        ((DONE,), "bad_upstream", 502),
    ],
    ids=repr,
)
async def test_what_goes_wrong_in_the_middle_is_the_last_event(
    pieces: tuple[bytes | Exception, ...],
    code: str,
    status: int,
    gateway: Gateway,
    services: Services,
) -> None:
    answer = Streamed(delta("a"), *pieces)
    services.answers[CHAT] = answer
    response = await chat(gateway)
    assert response.status_code == 200
    first, (name, error) = events(response)
    assert (first, name) == (("message", {"content": "a"}), "error")
    assert (error["status"], error["code"]) == (status, code)
    assert error["trace_id"] == response.headers["x-trace-id"]
    assert answer.closed


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (problem(404, "no such model"), 404),
        (problem(429, "busy", **{"Retry-After": "3"}), 429),
        (problem(500, "oh"), 502),
        (httpx2.ConnectError("refused"), 503),
        (httpx2.ReadTimeout("slow"), 504),
        (Response(200, json={"choices": []}), 502),
    ],
    ids=repr,
)
async def test_what_goes_wrong_before_is_an_answer_like_any_other(
    answer: Response | Exception, status: int, gateway: Gateway, services: Services
) -> None:
    services.answers[CHAT] = answer
    response = await chat(gateway)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
