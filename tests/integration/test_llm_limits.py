"""The limits of llm-proxy: time, providers that are sick, calls at once."""

import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx2
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.support.llm import Call, chat, embed, llm_proxy, post, provider
from tests.support.openai_standin import Standin, Step
from tests.support.processes import Service
from tests.support.waiting import until

# Time


def left(standin: Standin, call: Call) -> bool:
    """Whether the one request of this call hung until its sender left."""
    (received,) = standin.of(call.id)
    return received.outcome == "hung_then_left"


@pytest.mark.parametrize("where", ["llm-proxy", "gateway"])
def test_the_caller_gets_its_answer_when_its_time_is_up(
    urls: dict[str, str], standins: tuple[Standin, Standin], where: str
) -> None:
    call = chat(Step(hang="before_first_byte"))
    began = time.monotonic()
    answer = post(urls[where], call, **{"X-Request-Timeout": "0.6"})
    assert answer.status_code == 504
    assert 0.5 < time.monotonic() - began < 2
    assert answer.json()["error"]["code"] == "out_of_time"
    for standin in standins:  # the second had the half that the first left it
        standin.wait_for(partial(left, standin, call), 1)


def test_a_silent_provider_leaves_the_next_one_time(
    urls: dict[str, str], standins: tuple[Standin, Standin]
) -> None:
    standins[0].default = Step(hang="before_first_byte")
    answer = post(urls["llm-proxy"], chat(), **{"X-Request-Timeout": "2"})
    assert (answer.status_code, answer.headers["x-o11y-provider"]) == (200, "second")


def test_without_time_nobody_is_asked(
    urls: dict[str, str], standins: tuple[Standin, Standin]
) -> None:
    call = chat()
    answer = post(urls["llm-proxy"], call, **{"X-Request-Timeout": "0"})
    assert answer.status_code == 504
    assert [standin.of(call.id) for standin in standins] == [[], []]


@pytest.mark.parametrize("asked", ["3", "30"])
def test_a_retry_that_would_come_too_late_is_not_waited_for(
    urls: dict[str, str], standins: tuple[Standin, Standin], asked: str
) -> None:
    call = embed(Step(status=429, retry_after=asked))
    began = time.monotonic()
    answer = post(urls["llm-proxy"], call, **{"X-Request-Timeout": "2"})
    assert time.monotonic() - began < 1
    assert (answer.status_code, answer.headers["retry-after"]) == (429, asked)
    assert len(standins[0].of(call.id)) == 1


# Providers that are sick


def circuit(proxy: Service, name: str) -> str:
    providers = httpx2.get(f"{proxy.url}/health").json()["providers"]
    return {each["name"]: str(each["circuit"]) for each in providers}[name]


def test_a_provider_that_keeps_failing_is_left_alone_until_it_is_well(
    standins: tuple[Standin, Standin], tmp_path: Path
) -> None:
    first, second = standins
    sick = provider("first", first, retries=0, breaker_failures=2, breaker_seconds=1)
    with llm_proxy(tmp_path, sick, provider("second", second)) as proxy:

        def asked() -> list[int]:
            """Which of the two a new call reaches, by how many requests."""
            call = chat()
            assert post(proxy.url, call).status_code == 200
            return [len(standin.of(call.id)) for standin in standins]

        first.default = Step(status=500)
        assert [asked(), asked()] == [[1, 1], [1, 1]]
        assert circuit(proxy, "first") == "open"
        assert [asked(), asked()] == [[0, 1], [0, 1]]

        until(lambda: circuit(proxy, "first") == "half_open")
        assert asked() == [1, 1]  # one call tries, and it fails
        assert circuit(proxy, "first") == "open"
        assert asked() == [0, 1]

        until(lambda: circuit(proxy, "first") == "half_open")
        first.default = Step()
        assert asked() == [1, 0]
        assert circuit(proxy, "first") == "closed"
        assert asked() == [1, 0]


def test_when_all_are_left_alone_the_caller_is_told_for_how_long(
    standins: tuple[Standin, Standin], tmp_path: Path
) -> None:
    first, _ = standins
    sick = provider("first", first, retries=0, breaker_failures=1, breaker_seconds=30)
    with llm_proxy(tmp_path, sick) as proxy:
        assert post(proxy.url, chat(Step(status=500))).status_code == 502
        call = chat()
        answer = post(proxy.url, call)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "circuit_open")
    assert 25 <= int(answer.headers["retry-after"]) <= 30
    assert first.of(call.id) == []


# Calls at once


def requests_running(proxy: Service) -> float:
    families = text_string_to_metric_families(httpx2.get(f"{proxy.url}/metrics").text)
    return sum(
        float(sample.value)
        for family in families
        for sample in family.samples
        if sample.name == "http_server_active_requests"
    )


def test_a_provider_has_no_more_calls_at_once_than_it_may(
    standins: tuple[Standin, Standin], tmp_path: Path
) -> None:
    first, second = standins
    small = provider("first", first, max_concurrency=1, queue_seconds=10)
    small["embedding_model"] = "text-embedding-3-small"
    with (
        llm_proxy(tmp_path, small, provider("second", second)) as proxy,
        ThreadPoolExecutor(4) as threads,
    ):
        slow = chat(Step(hang="mid_stream"), stream=True)
        with httpx2.stream("POST", f"{proxy.url}{slow.path}", json=slow.body, timeout=20):
            other = chat()
            assert post(proxy.url, other).headers["x-o11y-provider"] == "second"
            assert first.of(other.id) == []
            waiting = embed()
            answer = threads.submit(post, proxy.url, waiting)
            until(lambda: requests_running(proxy) == 2)
            assert not answer.done()
        assert answer.result().status_code == 200  # the stream's end made room

        calls = [embed(Step(latency=0.1)) for _ in range(4)]
        answers = list(threads.map(lambda call: post(proxy.url, call), calls))
    assert [answer.status_code for answer in answers] == [200] * 4
    spans = sorted((one.arrived, one.ended_at) for call in calls for one in first.of(call.id))
    for (_, ended), (arrived, _) in itertools.pairwise(spans):
        assert ended is not None
        assert ended <= arrived


def test_who_can_not_wait_for_a_place_is_told_that_there_is_none(
    standins: tuple[Standin, Standin], tmp_path: Path
) -> None:
    small = provider("first", standins[0], max_concurrency=1, queue_seconds=0.1)
    with llm_proxy(tmp_path, small) as proxy:
        slow = chat(Step(hang="mid_stream"), stream=True)
        with httpx2.stream("POST", f"{proxy.url}{slow.path}", json=slow.body, timeout=20):
            answer = post(proxy.url, chat())
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "busy")
    assert answer.headers["retry-after"] == "1"
