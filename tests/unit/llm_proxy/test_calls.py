"""The attempts of a call: who is asked, how often, after how long, and when it is over."""

import json
import logging
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from httpx2 import Response

from llm_proxy.failures import CallRejected
from o11y.http import deadline
from o11y.openai.operations import EMBEDDINGS
from o11y.telemetry import schema
from o11y.web.problems import Problem
from tests.support.near import Streamed
from tests.support.recorded import Point, attributes
from tests.support.upstream import CHAT_CALL, Caller, failing, outcome

Calling = Callable[..., Caller]

LOST = httpx2.ReadError("reset")
REFUSED = httpx2.ConnectError("refused")
SLOW = httpx2.ReadTimeout("slow")
GARBAGE = Response(200, content=b"<html>")


@pytest.mark.parametrize("refused", [400, 404, 413, 422])
@pytest.mark.parametrize(
    ("first", "status"),
    [(failing(503), 503), (failing(500), 502), (failing(429), 429), (REFUSED, 503), (SLOW, 504)],
    ids=repr,
)
async def test_a_call_that_only_a_fallback_refuses_is_no_fault_of_its_caller(
    first: Response | Exception, status: int, refused: int, calling: Calling
) -> None:
    caller = calling({"retries": 0}, {"name": "b"})
    caller.upstream.answers[f"a.test{CHAT_CALL}"] = first
    caller.upstream.answers[f"b.test{CHAT_CALL}"] = failing(refused)
    assert await outcome(caller) == status
    assert len(caller.upstream.calls) == 2
    assert caller.is_idle()


async def test_who_might_have_taken_the_call_is_asked_after_one_that_refuses(
    calling: Calling,
) -> None:
    caller = calling({"retries": 0}, {"name": "b"}, {"name": "c"})
    caller.upstream.answers[f"a.test{CHAT_CALL}"] = failing(503)
    caller.upstream.answers[f"b.test{CHAT_CALL}"] = failing(422)
    assert await outcome(caller) == 200


async def test_a_provider_that_fails_and_then_refuses_is_heard(calling: Calling) -> None:
    caller = calling({"retries": 1}, {"name": "b"})
    caller.upstream.answers[f"a.test{CHAT_CALL}"] = [failing(500), failing(400)]
    assert await outcome(caller) == 400
    assert len(caller.upstream.calls) == 2


@pytest.mark.parametrize(
    ("answer", "attempts", "status"),
    [
        (failing(429), 3, 429),
        (failing(408), 3, 408),
        (failing(409), 3, 409),
        (failing(500), 3, 502),
        (failing(503), 3, 503),
        (failing(529), 3, 502),
        (failing(500, **{"x-should-retry": "false"}), 1, 502),
        (REFUSED, 3, 503),
        (LOST, 3, 503),
        (SLOW, 1, 504),
        (GARBAGE, 1, 502),
        (failing(400), 1, 400),
        (failing(404), 1, 404),
        (failing(422), 1, 422),
        (failing(401), 1, 502),
        (failing(302), 1, 502),
        (failing(204), 1, 502),
    ],
    ids=repr,
)
async def test_only_what_another_try_may_make_good_is_tried_again(
    answer: Response | Exception, attempts: int, status: int, calling: Calling
) -> None:
    caller = calling({"retries": 2, "breaker_failures": 100})
    caller.upstream.answers[CHAT_CALL] = answer
    assert await outcome(caller) == status
    assert len(caller.upstream.calls) == attempts
    assert caller.is_idle()


def spoken(code: object, stream: bool) -> Response | Streamed:
    """An error that comes with the status of a good answer."""
    words = {"error": {"message": "no", "code": code}}
    if stream:
        return Streamed(b"data: " + json.dumps(words).encode() + b"\n\n")
    return Response(200, json=words, headers={"x-request-id": "7"})


@pytest.mark.parametrize(
    ("code", "attempts", "status"),
    [
        (429, 3, 429),
        (502, 3, 502),
        (503, 3, 503),
        (400, 1, 400),
        (402, 1, 402),
        (None, 1, 502),
        ("overloaded", 1, 502),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_in_an_answers_place_counts_as_its_code_says(
    code: object, attempts: int, status: int, stream: bool, calling: Calling
) -> None:
    caller = calling({"retries": 2, "breaker_failures": 100})
    caller.upstream.answers[CHAT_CALL] = lambda: spoken(code, stream)
    assert await outcome(caller, stream=stream) == status
    assert len(caller.attempts()) == attempts
    for each in (attributes(span) for span in caller.recorded.spans()):
        expected = str(code) if isinstance(code, int) else "invalid_answer"
        assert each[schema.ERROR_TYPE] == expected
        assert schema.COST_USD not in each
    assert caller.is_idle()


@pytest.mark.parametrize("code", [503, None])
@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_in_an_answers_place_is_made_good_by_another(
    code: int | None, stream: bool, calling: Calling
) -> None:
    caller = calling({"retries": 0}, {})
    caller.upstream.answers[f"a.test{CHAT_CALL}"] = lambda: spoken(code, stream)
    assert b"hel" in await caller.answer(stream=stream)
    assert caller.upstream.hosts == ["a.test", "b.test"]


@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_wrong_with_a_call_is_told_in_the_providers_words(
    stream: bool, calling: Calling
) -> None:
    caller = calling({})
    caller.upstream.answers[CHAT_CALL] = spoken(400, stream)
    with pytest.raises(CallRejected) as raised:
        await caller.make(stream=stream)
    assert json.loads(raised.value.content) == {"error": {"message": "no", "code": 400}}
    assert raised.value.headers["content-type"] == "application/json"


@pytest.mark.parametrize("retries", [0, 1, 5])
async def test_a_provider_is_asked_as_often_as_its_settings_say(
    retries: int, calling: Calling, naps: list[float]
) -> None:
    caller = calling({"retries": retries, "breaker_failures": 100})
    caller.upstream.answers[CHAT_CALL] = failing(500)
    await outcome(caller)
    assert (len(caller.upstream.calls), len(naps)) == (retries + 1, retries)
    assert all(nap <= 0.25 * 2**at for at, nap in enumerate(naps))


async def test_what_the_provider_asks_for_is_waited_for(
    calling: Calling, naps: list[float]
) -> None:
    caller = calling({"retries": 3})
    caller.upstream.answers[CHAT_CALL] = [
        failing(429, **{"retry-after": "20"}),
        failing(503, **{"retry-after-ms": "1500"}),
        Response(200, json={}),
    ]
    assert await outcome(caller) == 200
    assert naps == [20, 1.5]


@pytest.mark.parametrize(("left", "attempts"), [(19, 1), (21, 2)])
async def test_nobody_waits_beyond_the_deadline(
    left: float, attempts: int, calling: Calling, naps: list[float]
) -> None:
    caller = calling({"retries": 1})
    caller.upstream.answers[CHAT_CALL] = failing(429, **{"retry-after": "20"})
    with deadline.within(left):
        assert await outcome(caller) == 429
    assert (len(caller.upstream.calls), len(naps)) == (attempts, attempts - 1)


@pytest.mark.parametrize(("wait", "hosts"), [("5", ["a.test"] * 2), ("6", ["a.test", "b.test"])])
async def test_a_long_wait_is_none_while_another_could_answer(
    wait: str, hosts: list[str], calling: Calling
) -> None:
    caller = calling({}, {})
    wants_time = failing(429, **{"retry-after": wait})
    caller.upstream.answers[f"a.test{CHAT_CALL}"] = [wants_time, Response(200, json={})]
    assert await outcome(caller) == 200
    assert caller.upstream.hosts == hosts


async def test_nothing_is_started_without_time_for_it(calling: Calling) -> None:
    caller = calling({}, {})
    with deadline.within(0):
        assert await outcome(caller) == 504
    assert caller.upstream.calls == []
    [span] = caller.recorded.spans()
    assert attributes(span)[schema.LLM_ATTEMPTS] == 0


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (failing(429), "429"),
        (failing(500), "500"),
        (failing(401), "401"),
        (REFUSED, schema.ERROR_CONNECT),
        (LOST, schema.ERROR_CONNECTION_LOST),
        (SLOW, schema.ERROR_TIMEOUT),
        (GARBAGE, "invalid_answer"),
    ],
    ids=repr,
)
async def test_the_next_provider_answers_what_the_first_could_not(
    answer: Response | Exception,
    reason: str,
    calling: Calling,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caller = calling({"retries": 0}, {})
    caller.upstream.answers[f"a.test{CHAT_CALL}"] = answer
    given = await caller.make()
    assert given.provider.name == "b"
    assert caller.upstream.hosts == ["a.test", "b.test"]
    assert caller.recorded.points(schema.OPENAI_FALLBACKS.name) == [
        Point({"provider": "a", "next": "b", "reason": reason}, 1)
    ]
    [line] = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert "a.test" in line.message
    assert "trying b" in line.message


@pytest.mark.parametrize("status", [400, 404, 413, 422])
async def test_a_wrong_call_is_nobody_elses(status: int, calling: Calling) -> None:
    caller = calling({}, {})
    caller.upstream.answers[f"a.test{CHAT_CALL}"] = failing(status)
    assert await outcome(caller) == status
    assert caller.upstream.hosts == ["a.test"]
    assert caller.recorded.points(schema.OPENAI_FALLBACKS.name) == []


async def test_when_all_fail_the_last_one_decides(calling: Calling) -> None:
    caller = calling({"retries": 0}, {"retries": 0}, {"retries": 0})
    caller.upstream.answers = {
        f"a.test{CHAT_CALL}": failing(429),
        f"b.test{CHAT_CALL}": REFUSED,
        f"c.test{CHAT_CALL}": SLOW,
    }
    with pytest.raises(Problem) as raised:
        await caller.make()
    assert raised.value.status == 504
    assert all(f"{name}.test" in raised.value.detail for name in "abc")
    hops = [point.labels["next"] for point in caller.recorded.points(schema.OPENAI_FALLBACKS.name)]
    assert sorted(str(hop) for hop in hops) == ["b", "c"]


async def test_an_embedding_is_not_handed_on(calling: Calling) -> None:
    caller = calling({"retries": 0}, {"embedding_model": "other"})
    caller.upstream.answers["/embeddings"] = failing(500)
    assert await outcome(caller, operation=EMBEDDINGS, model="e") == 502
    assert caller.upstream.hosts == ["a.test"]


async def test_retries_are_counted_by_why(calling: Calling) -> None:
    caller = calling({"retries": 3})
    answers: list[Any] = [failing(429), failing(429), LOST, Response(200, json={})]
    caller.upstream.answers[CHAT_CALL] = answers
    assert await outcome(caller) == 200
    found = caller.recorded.points(schema.OPENAI_RETRIES.name)
    assert {str(point.labels["reason"]): point.value for point in found} == {
        "429": 2,
        schema.ERROR_CONNECTION_LOST: 1,
    }


@pytest.mark.parametrize(
    "piece",
    [
        b'data: {"error": {"message": "no"}}\n\n',
        b"data: nonsense\n\n",
        b": only a comment\n\n",
        b"",
        httpx2.ReadError("reset"),
        httpx2.RemoteProtocolError("no HTTP"),
        TimeoutError(),
    ],
    ids=repr,
)
async def test_a_stream_that_fails_before_its_first_event_is_handed_on(
    piece: bytes | Exception, calling: Calling
) -> None:
    first = Streamed(piece)
    caller = calling({"retries": 0}, {})
    caller.upstream.answers[f"a.test{CHAT_CALL}"] = first
    sent = await caller.answer(stream=True)
    assert sent.endswith(b"data: [DONE]\n\n")
    assert b"nonsense" not in sent
    assert caller.upstream.hosts == ["a.test", "b.test"]
    assert first.closed
    assert caller.is_idle()
