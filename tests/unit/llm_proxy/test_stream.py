"""A streamed answer: its events as they came, its end whoever ends it, and what it is billed."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from opentelemetry.trace import StatusCode

from llm_proxy.calls import Calls
from llm_proxy.routing import Routing
from llm_proxy.stream import Stream
from o11y.http import deadline, sse
from o11y.telemetry import schema
from o11y.web.events import Last
from tests.support.near import Streamed
from tests.support.recorded import attributes
from tests.support.upstream import (
    CHAT_ANSWER,
    CHAT_CALL,
    DONE,
    STREAM,
    USAGE,
    USAGE_EVENT,
    Caller,
    event,
    said,
)

Calling = Callable[..., Caller]
PATIENCE_SECONDS = 5

ERROR = b'data: {"error":{"message":'
"""How the proxy's own error event begins."""


def streaming(calling: Calling, *pieces: bytes | Exception | asyncio.Event) -> Caller:
    caller = calling({"retries": 0})
    caller.upstream.answers[CHAT_CALL] = lambda: Streamed(*pieces)
    return caller


async def sent(caller: Caller, **fields: object) -> bytes:
    return await caller.answer(stream=True, **fields)


def told(caller: Caller) -> dict[str, object]:
    [span] = caller.spans()
    return attributes(span)


@pytest.mark.parametrize(
    ("options", "shown"),
    [(None, False), ({"include_usage": False}, False), ({"include_usage": True}, True)],
)
async def test_the_caller_gets_every_byte_but_the_usage_it_did_not_ask_for(
    options: dict[str, bool] | None, shown: bool, calling: Calling
) -> None:
    events = [
        b": keep-alive\n\n",
        said("\u00e9", nobody_knows=[1.5]),
        b"event: e\r\nid: 7\r\ndata: {}\r\n\r\n",
        said(finish="stop"),
        USAGE_EVENT,
        DONE,
    ]
    caller = streaming(calling, *events)
    kept = [each for each in events if shown or each is not USAGE_EVENT]
    assert await sent(caller, stream_options=options) == b"".join(kept)
    assert told(caller)[schema.INPUT_TOKENS] == 1000


@pytest.mark.parametrize("size", [1, 7, 50, 100_000])
async def test_how_the_network_cuts_a_stream_makes_no_difference(
    size: int, calling: Calling
) -> None:
    whole = b"".join(STREAM)
    caller = streaming(calling, *(whole[at : at + size] for at in range(0, len(whole), size)))
    assert await sent(caller) == b"".join(each for each in STREAM if each is not USAGE_EVENT)
    assert told(caller)[schema.OUTPUT_TOKENS] == 100


@pytest.mark.parametrize(
    "events",
    [
        (said("a"), said(finish="stop"), USAGE_EVENT, DONE),
        (said("a"), said(finish="stop", usage=USAGE), DONE),
        (said("a", usage=USAGE), said(finish="stop"), DONE),
        (said("a"), said(finish="stop"), DONE, USAGE_EVENT),
        (said("a"), said(finish="stop"), event({"usage": USAGE})),
    ],
)
async def test_the_usage_may_come_in_any_chunk(events: tuple[bytes, ...], calling: Calling) -> None:
    caller = streaming(calling, *events)
    await sent(caller)
    found = told(caller)
    assert (found[schema.INPUT_TOKENS], found[schema.OUTPUT_TOKENS]) == (1000, 100)
    assert found[schema.COST_USD] == pytest.approx(0.00018)
    assert schema.USAGE_ESTIMATED not in found
    assert schema.ERROR_TYPE not in found


async def test_a_last_event_may_lack_its_blank_line(calling: Calling) -> None:
    caller = streaming(calling, said("a"), said(finish="stop"), b"data: [DONE]\n")
    assert (await sent(caller)).endswith(DONE)
    assert schema.ERROR_TYPE not in told(caller)


BROKEN: list[tuple[bytes | Exception, str]] = [
    (httpx2.ReadError("reset"), schema.ERROR_CONNECTION_LOST),
    (b"", schema.ERROR_CONNECTION_LOST),
    (b'data: {"choices": [{"del', "invalid_answer"),
    (httpx2.RemoteProtocolError("no HTTP"), "invalid_answer"),
    (TimeoutError(), schema.ERROR_TIMEOUT),
    (b"data: nonsense\n\n", "invalid_answer"),
    (b"x" * (sse.MAX_EVENT + 1), "invalid_answer"),
]


@pytest.mark.parametrize(("piece", "kind"), BROKEN, ids=lambda value: repr(value)[:40])
async def test_a_stream_that_breaks_ends_with_an_error_event_and_an_estimate(
    piece: bytes | Exception, kind: str, calling: Calling
) -> None:
    caller = streaming(calling, said("a" * 40), piece)
    whole = await sent(caller)
    assert whole.startswith(said("a" * 40))
    last = whole.removeprefix(said("a" * 40))
    assert last.startswith(ERROR)
    assert last.endswith(b"\n\n")
    assert last.count(b"data:") == 1
    found = told(caller)
    assert found[schema.ERROR_TYPE] == kind
    assert found[schema.USAGE_ESTIMATED] is True
    assert found[schema.OUTPUT_TOKENS] == 10
    assert float(str(found[schema.COST_USD])) > 0
    for span in caller.recorded.spans():
        assert span.status.status_code is StatusCode.ERROR
    assert caller.is_idle()


async def test_nothing_is_repeated_after_the_first_byte(calling: Calling) -> None:
    caller = calling({"retries": 5}, {})
    caller.upstream.answers[f"a.test{CHAT_CALL}"] = lambda: Streamed(
        said("a"), httpx2.ReadError("reset")
    )
    await sent(caller)
    assert caller.upstream.hosts == ["a.test"]


async def test_an_error_of_the_provider_is_in_its_own_words(calling: Calling) -> None:
    words = event({"error": {"message": "overloaded", "code": 529}})
    caller = streaming(calling, said("a"), words, said("b"))
    assert await sent(caller) == said("a") + words
    assert told(caller)[schema.ERROR_TYPE] == "invalid_answer"


async def test_an_odd_event_is_the_callers_to_read(calling: Calling) -> None:
    odd = event({"choices": [{"delta": {"content": [{"type": "thinking"}]}}]})
    caller = streaming(calling, odd, said(finish="stop"), USAGE_EVENT, DONE)
    assert await sent(caller) == odd + said(finish="stop") + DONE
    assert told(caller)[schema.INPUT_TOKENS] == 1000


async def reader(caller: Caller, got: asyncio.Queue[bytes]) -> None:
    stream = await caller.make(stream=True)
    assert isinstance(stream, Stream)
    try:
        async for events in stream.events():
            got.put_nowait(events)
    finally:
        await stream.aclose(schema.ERROR_CANCELLED)


@pytest.mark.parametrize("first", [True, False], ids=["in mid-stream", "before the first byte"])
async def test_a_caller_that_leaves_cancels_the_provider(first: bool, calling: Calling) -> None:
    answer = Streamed(*([said("a" * 40)] if first else []), asyncio.Event())
    caller = calling({})
    caller.upstream.answers[CHAT_CALL] = answer
    got: asyncio.Queue[bytes] = asyncio.Queue()
    task = asyncio.create_task(reader(caller, got))
    async with asyncio.timeout(PATIENCE_SECONDS):
        await answer.reached.wait()
    assert got.qsize() == first
    task.cancel()
    await asyncio.wait([task])
    assert answer.closed
    found = told(caller)
    assert found[schema.ERROR_TYPE] == schema.ERROR_CANCELLED
    assert found[schema.OUTPUT_TOKENS] == (10 if first else 0)  # it began: its prompt is billed
    [duration] = caller.recorded.points(schema.OPENAI_API_DURATION.name)
    assert duration.labels["status"] == "cancelled"
    assert caller.is_idle()


@pytest.mark.parametrize(
    "end",
    [httpx2.ReadError("reset"), b"data: nonsense\n\n", asyncio.Event()],
    ids=["a reset", "nonsense", "silence"],
)
async def test_what_comes_after_done_breaks_nothing(
    end: bytes | Exception | asyncio.Event, calling: Calling
) -> None:
    caller = streaming(calling, said("a"), said(finish="stop"), USAGE_EVENT, DONE, end)
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await sent(caller) == said("a") + said(finish="stop") + DONE
    assert schema.ERROR_TYPE not in told(caller)
    assert schema.USAGE_ESTIMATED not in told(caller)


async def test_an_error_after_done_stays_after_it(calling: Calling) -> None:
    failed = event({"error": {"message": "too late"}})
    caller = streaming(calling, said("a"), said(finish="stop"), DONE + failed)
    assert await sent(caller) == said("a") + said(finish="stop") + DONE + failed
    assert schema.ERROR_TYPE not in told(caller)


async def test_the_attempt_has_ended_before_its_last_event_goes(calling: Calling) -> None:
    caller = streaming(calling, said("a"), DONE)
    stream = await caller.make(stream=True)
    assert isinstance(stream, Stream)
    async for events in stream.events():
        assert (caller.recorded.spans() != []) == isinstance(events, Last)


@pytest.mark.parametrize("finish", ["stop", None])
async def test_usage_of_a_stream_that_breaks_is_exact_once_its_answer_has_ended(
    finish: str | None, calling: Calling
) -> None:
    caller = streaming(calling, said("a", finish=finish, usage=USAGE), httpx2.ReadError("reset"))
    await sent(caller)
    found = told(caller)
    assert found[schema.INPUT_TOKENS] == 1000
    assert found.get(schema.USAGE_ESTIMATED) == (None if finish else True)


@pytest.mark.parametrize(("idle", "left"), [(0.01, 60), (60, 0.02)], ids=["silent", "out of time"])
async def test_a_provider_that_falls_silent_is_not_waited_for(
    idle: float, left: float, calling: Calling
) -> None:
    caller = calling({"retries": 0, "idle_seconds": idle})
    caller.upstream.answers[CHAT_CALL] = Streamed(said("a"), asyncio.Event())
    with deadline.within(left):
        async with asyncio.timeout(PATIENCE_SECONDS):
            whole = await sent(caller)
    assert ERROR in whole
    assert told(caller)[schema.ERROR_TYPE] == schema.ERROR_TIMEOUT


async def test_a_provider_that_never_begins_is_handed_on_in_time(calling: Calling) -> None:
    caller = calling({"first_byte_seconds": 0.01}, {})
    silent = Streamed(b": wait\n\n", asyncio.Event())
    caller.upstream.answers[f"a.test{CHAT_CALL}"] = silent
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert (await sent(caller)).endswith(DONE)
    assert caller.upstream.hosts == ["a.test", "b.test"]
    assert silent.closed


@pytest.mark.parametrize("kind", ["application/json", "text/html", ""])
async def test_a_provider_that_does_not_stream_is_not_readable(kind: str, calling: Calling) -> None:
    caller = calling({"retries": 0}, {})
    plain = Streamed(b"{}", headers={"content-type": kind})
    caller.upstream.answers[f"a.test{CHAT_CALL}"] = plain
    assert (await sent(caller)).endswith(DONE)
    assert plain.closed


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8"])
async def test_a_whole_answer_to_who_asked_for_a_stream_is_passed_on(
    kind: str, calling: Calling
) -> None:
    caller = calling({"retries": 0}, {})
    body = json.dumps(CHAT_ANSWER).encode()
    plain = Streamed(body, headers={"content-type": kind})
    caller.upstream.answers[f"a.test{CHAT_CALL}"] = plain
    assert await sent(caller) == body
    assert caller.upstream.hosts == ["a.test"]
    assert schema.ERROR_TYPE not in told(caller)


@pytest.mark.parametrize(
    "body", [b'{"error": {"message": "no", "code": "429"}}', b'{"message": "no", "status": 429}']
)
async def test_a_limit_in_an_answers_place_is_tried_again(body: bytes, calling: Calling) -> None:
    caller = calling({"retries": 1})
    limited = Streamed(body, headers={"content-type": "application/json", "retry-after-ms": "1"})
    answers = iter([limited, Streamed(*STREAM)])
    caller.upstream.answers[CHAT_CALL] = lambda: next(answers)
    assert (await sent(caller)).endswith(DONE)
    assert told(caller)[schema.LLM_ATTEMPTS] == 2


async def test_a_provider_that_sends_comments_while_it_works_is_waited_for(
    calling: Calling,
) -> None:
    comments: list[bytes | float] = [b": PROCESSING\n\n", 0.3] * 5
    works = Streamed(*comments, *STREAM)
    caller = calling({"first_byte_seconds": 1.2}, {})
    caller.upstream.answers[f"a.test{CHAT_CALL}"] = works
    whole = await sent(caller)
    assert whole.count(b": PROCESSING\n\n") == 5
    assert whole.endswith(DONE)
    assert caller.upstream.hosts == ["a.test"]


async def test_times_of_chunks_are_measured(calling: Calling) -> None:
    caller = streaming(calling, *STREAM)
    await sent(caller)
    found = told(caller)
    assert found[schema.REQUEST_STREAM] is True
    assert float(str(found[schema.FIRST_CHUNK_SECONDS])) >= 0
    [first] = caller.recorded.points(schema.GEN_AI_FIRST_CHUNK.name)
    assert first.value == 1
    assert caller.recorded.points(schema.GEN_AI_CHUNK.name) == []


async def test_every_chunk_is_timed_where_that_is_asked_for(calling: Calling) -> None:
    caller = streaming(calling, *STREAM)
    routing, telemetry = Routing(caller.providers), caller.recorded.telemetry
    caller.calls = Calls(routing, telemetry, caller.spending, times_chunks=True)
    await sent(caller)
    [later] = caller.recorded.points(schema.GEN_AI_CHUNK.name)
    assert later.value == len(STREAM) - 1


@pytest.mark.parametrize("stream_usage", [True, False])
async def test_a_provider_that_refuses_stream_options_gets_none(
    stream_usage: bool, calling: Calling
) -> None:
    caller = calling({"stream_usage": stream_usage})
    await sent(caller)
    body: dict[str, Any] = caller.upstream.body
    assert body.get("stream_options") == ({"include_usage": True} if stream_usage else None)
