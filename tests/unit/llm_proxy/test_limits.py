"""So many calls at once at a provider; whoever leaves, and whenever, frees its place."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from httpx2 import Response

from llm_proxy import api
from llm_proxy.failures import BUSY
from llm_proxy.settings import LOCAL
from o11y.http import deadline
from o11y.telemetry import schema
from o11y.web.exchange import Exchange
from o11y.web.problems import Problem
from tests.support.near import Streamed
from tests.support.upstream import (
    CHAT,
    CHAT_CALL,
    CHAT_PATH,
    STREAM,
    Answers,
    Caller,
    Hang,
    failing,
    outcome,
    said,
)

Calling = Callable[..., Caller]
PATIENCE_SECONDS = 5


async def busy(caller: Caller) -> asyncio.Task[Any]:
    """A call that occupies a place at "a" until it is cancelled."""
    hang = Hang()
    usual = caller.upstream.answers.get(f"a.test{CHAT_CALL}", Response(200, json={}))
    caller.upstream.answers[f"a.test{CHAT_CALL}"] = hang
    task = asyncio.create_task(caller.make())
    await hang.reached.wait()
    caller.upstream.answers[f"a.test{CHAT_CALL}"] = usual
    return task


async def left(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait([task])


async def test_more_calls_than_the_limit_are_never_at_the_provider(calling: Calling) -> None:
    caller = calling({"max_concurrency": 3, "queue_seconds": PATIENCE_SECONDS})
    at_once, most = 0, 0

    async def counted(request: httpx2.Request) -> Response:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0)
        at_once -= 1
        return Response(200, json={})

    caller.transport.handler = counted
    async with asyncio.timeout(PATIENCE_SECONDS):
        await asyncio.gather(*(caller.make() for _ in range(20)))
    assert most == 3
    assert caller.is_idle()


async def test_a_full_provider_is_passed_by_while_there_is_another(calling: Calling) -> None:
    caller = calling({"max_concurrency": 1, "queue_seconds": 60}, {})
    holder = await busy(caller)
    given = await caller.make()
    assert given.provider.name == "b"
    [point] = caller.recorded.points(schema.OPENAI_FALLBACKS.name)
    assert point.labels["reason"] == BUSY
    await left(holder)
    assert caller.is_idle()


@pytest.mark.parametrize(("queue", "seconds"), [(0, 60), (0.01, 60), (60, 0.01)])
async def test_the_last_provider_is_waited_for_a_while(
    queue: float, seconds: float, calling: Calling
) -> None:
    caller = calling({"max_concurrency": 1, "queue_seconds": queue})
    holder = await busy(caller)
    with deadline.within(seconds), pytest.raises(Problem) as raised:
        await caller.make()
    assert (raised.value.status, raised.value.code) == (429, BUSY)
    assert raised.value.headers["Retry-After"] == "1"
    assert len(caller.upstream.calls) == 1
    await left(holder)
    assert caller.is_idle()


async def test_a_call_that_waits_gets_the_place_that_is_freed(calling: Calling) -> None:
    caller = calling({"max_concurrency": 1, "queue_seconds": 60})
    holder = await busy(caller)
    waiting = asyncio.create_task(outcome(caller))
    await asyncio.sleep(0)
    holder.cancel()
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await waiting == 200
    assert caller.is_idle()


async def test_an_unread_stream_occupies_its_place_until_it_is_closed(calling: Calling) -> None:
    caller = calling({"max_concurrency": 1, "queue_seconds": 0})
    stream = await caller.make(stream=True)
    assert await outcome(caller) == 429
    await stream.aclose()  # type: ignore[union-attr]
    await stream.aclose()  # type: ignore[union-attr]
    assert await outcome(caller) == 200
    assert caller.is_idle()


# Cancelled wherever it waits


def slow_stream() -> Streamed:
    return Streamed(*STREAM)


def broken_stream() -> Streamed:
    return Streamed(said("a"), said("b"), TimeoutError())


SCENES: dict[str, tuple[dict[str, Any], dict[str, Answers]]] = {
    "whole": ({}, {}),
    "stream": ({"stream": True}, {CHAT_CALL: slow_stream}),
    "stream that breaks": ({"stream": True}, {CHAT_CALL: broken_stream}),
    "retry": ({}, {f"a.test{CHAT_CALL}": [failing(500), failing(429), Response(200, json={})]}),
    "fallback": ({}, {f"a.test{CHAT_CALL}": failing(401)}),
    "fallback to the local service": (
        {"stream": True},
        {
            f"a.test{CHAT_CALL}": failing(401),
            f"b.test{CHAT_CALL}": httpx2.ConnectError("refused"),
            f"inference{CHAT_CALL}": slow_stream,
        },
    ),
    "stream in vain": ({"stream": True}, {CHAT_CALL: lambda: Streamed(b"data: no\n\n")}),
    "refused": ({}, {CHAT_CALL: failing(400)}),
}


async def leave_after(steps: int, caller: Caller, fields: dict[str, Any]) -> bool:
    """Run a request for so many turns of the loop, then cancel it; whether it had ended."""
    routes = {route.path: route for route in api.routes(caller.calls, 600)}
    content = json.dumps({"model": "m", **CHAT, **fields}).encode()
    headers = [(b"x-o11y-stream-summary", b"1")]
    scope = {"type": "http", "method": "POST", "path": CHAT_PATH, "headers": headers}

    Exchange(scope, "POST")

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"type": "http.request", "body": content}

    async def send(message: Any) -> None:
        await asyncio.sleep(0)

    task = asyncio.ensure_future(routes[CHAT_PATH].handle(scope, receive, send))
    for _ in range(steps):
        await asyncio.sleep(0)
    ended = task.done()
    task.cancel()
    await asyncio.wait([task])
    return ended


@pytest.mark.parametrize("scene", SCENES)
async def test_a_caller_that_leaves_frees_everything_wherever_its_call_is(
    scene: str, calling: Calling
) -> None:
    fields, answers = SCENES[scene]
    ended, steps = False, 0
    while not ended:
        caller = calling({}, {}, {"name": LOCAL, "base_url": None})
        caller.upstream.answers = {
            key: list(value) if isinstance(value, list) else value for key, value in answers.items()
        }
        ended = await leave_after(steps, caller, fields)
        assert caller.is_idle(), f"after {steps} turns"
        begun = len(caller.upstream.calls)
        assert len(caller.attempts()) in (begun, begun + 1)  # one may not have been sent yet
        steps += 1
    assert steps > 5


async def test_a_caller_that_leaves_the_queue_leaves_no_gap(calling: Calling) -> None:
    caller = calling({"max_concurrency": 1, "queue_seconds": 60})
    holder = await busy(caller)
    waiting = [asyncio.create_task(outcome(caller)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    holder.cancel()  # the place may be handed to one that has just left
    await asyncio.sleep(0)
    waiting[1].cancel()
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await waiting[2] == 200
    await asyncio.wait([holder, *waiting])
    assert caller.is_idle()
