"""A provider that keeps failing is left alone, and everybody can see it."""

from collections.abc import Callable

import httpx2
import pytest
from httpx2 import Response

from llm_proxy.breaker import Breaker
from llm_proxy.failures import OPEN
from o11y.http import deadline
from o11y.telemetry import schema
from o11y.web.problems import Problem
from tests.support.upstream import CHAT_CALL, Caller, Hang, failing, outcome

Calling = Callable[..., Caller]

LOST = httpx2.ReadError("reset")
REFUSED = httpx2.ConnectError("refused")
GARBAGE = Response(200, content=b"<html>")


def circuit(caller: Caller) -> dict[object, float]:
    found = caller.recorded.points(schema.OPENAI_CIRCUIT.name)
    return {point.labels["provider"]: point.value for point in found}


async def test_a_provider_that_keeps_failing_is_left_alone(calling: Calling) -> None:
    caller = calling({"retries": 0, "breaker_failures": 2, "breaker_seconds": 30}, {})
    caller.upstream.answers[f"a.test{CHAT_CALL}"] = failing(500)
    assert circuit(caller) == {"a": 0, "b": 0}
    for _ in range(4):
        assert await outcome(caller) == 200
    assert caller.upstream.hosts == ["a.test", "b.test"] * 2 + ["b.test"] * 2
    assert circuit(caller) == {"a": 2, "b": 0}
    reasons = {
        point.labels["reason"]: point.value
        for point in caller.recorded.points(schema.OPENAI_FALLBACKS.name)
    }
    assert reasons == {"500": 2, OPEN: 2}


async def test_the_only_provider_that_is_left_alone_says_when_to_come_back(
    calling: Calling,
) -> None:
    caller = calling({"retries": 0, "breaker_failures": 1, "breaker_seconds": 30})
    caller.upstream.answers[CHAT_CALL] = REFUSED
    assert await outcome(caller) == 503
    with pytest.raises(Problem) as raised:
        await caller.make()
    assert (raised.value.status, raised.value.code) == (503, OPEN)
    assert 29 <= int(raised.value.headers["Retry-After"]) <= 30
    assert len(caller.upstream.calls) == 1
    assert caller.is_idle()


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (failing(500), 2),
        (REFUSED, 2),
        (LOST, 2),
        (GARBAGE, 2),
        (failing(429), 0),
        (failing(400), 0),
        (failing(401), 0),
    ],
    ids=repr,
)
async def test_only_the_providers_own_failures_open_the_circuit(
    answer: Response | Exception, state: int, calling: Calling
) -> None:
    caller = calling({"retries": 0, "breaker_failures": 3})
    caller.upstream.answers[CHAT_CALL] = answer
    for _ in range(3):
        await outcome(caller)
    assert circuit(caller) == {"a": state}


async def test_callers_who_wait_too_little_do_not_open_the_circuit_for_others(
    calling: Calling,
) -> None:
    caller = calling({"retries": 0, "breaker_failures": 1, "first_byte_seconds": 60})
    caller.upstream.answers[CHAT_CALL] = Hang()
    for _ in range(2):
        with deadline.within(0.01):
            assert await outcome(caller) == 504
    assert circuit(caller) == {"a": 0}


async def test_a_provider_that_stays_silent_for_its_time_opens_the_circuit(
    calling: Calling,
) -> None:
    caller = calling({"retries": 0, "breaker_failures": 1, "first_byte_seconds": 0.01})
    caller.upstream.answers[CHAT_CALL] = Hang()
    assert await outcome(caller) == 504
    assert circuit(caller) == {"a": 2}


async def test_one_call_tries_and_closes_the_circuit(calling: Calling) -> None:
    caller = calling({"retries": 0})
    caller.upstream.answers[CHAT_CALL] = [failing(500), failing(500), Response(200, json={})]
    [provider] = caller.providers
    now = [100.0]
    provider.breaker = Breaker(1, 10, lambda: now[0])
    statuses = []
    for wait in (0, 0, 10, 0, 10, 0):
        now[0] += wait
        statuses.append(await outcome(caller))
    assert statuses == [502, 503, 502, 503, 200, 200]
    assert circuit(caller) == {"a": 0}


@pytest.mark.parametrize("status", [429, 400, 401])
async def test_a_trial_that_tells_little_does_not_keep_the_circuit_half_open_for_ever(
    status: int, calling: Calling
) -> None:
    caller = calling({"retries": 0})
    caller.upstream.answers[CHAT_CALL] = [
        failing(500),
        failing(status),
        failing(status),
        Response(200, json={}),
    ]
    [provider] = caller.providers
    now = [100.0]
    provider.breaker = Breaker(1, 10, lambda: now[0])
    await outcome(caller)
    now[0] += 10
    await outcome(caller)
    await outcome(caller)
    assert await outcome(caller) == 200
    assert circuit(caller) == {"a": 0}
