"""What llm-proxy makes of providers that fail: who is asked how often, and what the caller gets."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

import httpx2
import openai
import pytest

from tests.support import openai_standin
from tests.support.llm import KEY, Call, chat, complete, embed, llm_proxy, provider
from tests.support.openai_standin import Standin, Step
from tests.support.processes import Service

SECONDS = 1.0
"""How long a provider may be silent here, before its first byte and after it."""


@dataclass
class Proxy:
    """llm-proxy with two providers; only the first knows the embedding model."""

    service: Service
    first: Standin
    second: Standin

    def asked(self, call: Call) -> tuple[int, int]:
        """How many requests of a call the two providers got."""
        return len(self.first.of(call.id)), len(self.second.of(call.id))

    def post(self, call: Call, **headers: str) -> httpx2.Response:
        return httpx2.post(
            f"{self.service.url}{call.path}", json=call.body, headers=headers, timeout=30
        )


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    patience = {
        "connect_seconds": SECONDS,
        "first_byte_seconds": SECONDS,
        "idle_seconds": SECONDS,
        "breaker_failures": 1000,
    }
    with (
        openai_standin.running() as first,
        openai_standin.running() as second,
        llm_proxy(
            tmp_path_factory.mktemp("failures"),
            provider("first", first, embedding_model="text-embedding-3-small", **patience),
            provider("second", second, models={"*": "gpt-4o"}, **patience),
        ) as service,
    ):
        yield Proxy(service, first, second)


@pytest.fixture
def proxy(started: Proxy) -> Iterator[Proxy]:
    yield started
    started.first.default = started.second.default = Step()


@dataclass(frozen=True)
class Failure:
    """How the first provider always answers, and how many times it is asked."""

    name: str
    step: Step
    tries: int
    status: int
    """What the caller gets where nobody else can be asked."""
    code: str | None
    kind: str = field(default="any")
    """The calls it can happen to: any, whole or stream."""


REPEATED = [
    Failure("429", Step(status=429, retry_after="0"), 3, 429, "rate_limit_exceeded"),
    Failure("500", Step(status=500), 3, 502, "provider_error"),
    Failure("503", Step(status=503), 3, 503, "provider_error"),
    Failure("cut before the first byte", Step(cut="before_first_byte"), 3, 503, "unavailable"),
    Failure("cut in the body", Step(cut="mid_body"), 3, 503, "unavailable", "whole"),
]
FINAL = [
    Failure("429 for long", Step(status=429, retry_after="60"), 1, 429, "rate_limit_exceeded"),
    Failure("silence", Step(hang="before_first_byte"), 1, 504, "out_of_time"),
    Failure("silence in the body", Step(hang="mid_stream"), 1, 504, "out_of_time", "whole"),
    Failure("half a JSON body", Step(malformed="json"), 1, 502, "bad_upstream", "whole"),
    Failure("no object", Step(malformed="not_an_object"), 1, 502, "bad_upstream", "whole"),
    Failure(
        "an HTML page",
        Step(malformed="json", content_type="text/html"),
        1,
        502,
        "bad_upstream",
    ),
    Failure(
        "a stream of another type",
        Step(content_type="application/json"),
        1,
        502,
        "bad_upstream",
        "stream",
    ),
    Failure("our credentials refused", Step(status=401), 1, 502, "provider_credentials"),
]


def cases(*kinds: str) -> list[Any]:
    found = [case for case in REPEATED + FINAL if case.kind in kinds]
    return [pytest.param(case, id=case.name) for case in found]


@pytest.mark.parametrize("failure", cases("any", "whole"))
def test_the_next_provider_answers(proxy: Proxy, failure: Failure) -> None:
    proxy.first.default = failure.step
    call = chat()
    answer = proxy.post(call)
    assert answer.status_code == 200
    assert answer.headers["x-o11y-provider"] == "second"
    assert answer.json()["model"].startswith("gpt-4o-2024")
    assert proxy.asked(call) == (failure.tries, 1)


@pytest.mark.parametrize("failure", cases("any", "stream"))
def test_the_next_provider_streams(proxy: Proxy, failure: Failure) -> None:
    proxy.first.default = failure.step
    call = chat(stream=True)
    answer = proxy.post(call)
    assert answer.headers["x-o11y-provider"] == "second"
    assert answer.text.endswith("data: [DONE]\n\n")
    assert "error" not in answer.text
    assert proxy.asked(call) == (failure.tries, 1)


def test_a_stream_whose_first_event_is_unreadable_has_not_begun(proxy: Proxy) -> None:
    proxy.first.default = Step(malformed="json", after=0)
    call = complete(stream=True)
    answer = proxy.post(call)
    assert answer.headers["x-o11y-provider"] == "second"
    assert answer.text.endswith("data: [DONE]\n\n")
    assert proxy.asked(call) == (1, 1)


@pytest.mark.parametrize("failure", cases("any", "whole"))
def test_embeddings_never_go_to_another_model(proxy: Proxy, failure: Failure) -> None:
    proxy.first.default = failure.step
    call = embed()
    headers = {"X-Request-Timeout": "20"}
    answer = proxy.post(call, **headers)
    assert answer.status_code == failure.status
    assert answer.json()["error"]["code"] == failure.code
    assert KEY not in answer.text
    assert proxy.asked(call) == (failure.tries, 0)


@pytest.mark.parametrize("failure", [pytest.param(case, id=case.name) for case in REPEATED])
def test_a_try_that_fails_is_repeated(proxy: Proxy, failure: Failure) -> None:
    call = chat(failure.step, Step(text="At last."))
    answer = proxy.post(call)
    assert answer.json()["choices"][0]["message"]["content"] == "At last."
    assert answer.headers["x-o11y-provider"] == "first"
    assert proxy.asked(call) == (2, 0)


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_the_provider_is_left_alone_as_long_as_it_asks(proxy: Proxy, form: str) -> None:
    until = int(time.time()) + 2
    retry_after = "1" if form == "seconds" else formatdate(until, usegmt=True)
    call = chat(Step(status=429, retry_after=retry_after), Step())
    assert proxy.post(call).status_code == 200
    early, late = proxy.first.of(call.id)
    since = time.time() - time.monotonic()
    waited = late.arrived - early.arrived if form == "seconds" else late.arrived + since
    assert waited >= (1 if form == "seconds" else until) - 0.01


@pytest.mark.parametrize("status", [400, 404, 413, 422])
@pytest.mark.parametrize("stream", [False, True])
def test_what_the_caller_got_wrong_is_told_in_the_providers_words(
    proxy: Proxy, status: int, stream: bool
) -> None:
    call = chat(Step(status=status), stream=stream)
    answer = proxy.post(call)
    assert answer.status_code == status
    assert proxy.asked(call) == (1, 0)
    direct = httpx2.post(
        f"{proxy.first.url}/chat/completions", json=call.body, headers={"authorization": "Bearer k"}
    )
    assert answer.content == direct.content
    assert answer.headers["content-type"] == direct.headers["content-type"]


def test_when_all_fail_the_answer_tells_how_each_did(proxy: Proxy) -> None:
    call = chat(Step(status=500))
    answer = proxy.post(call)
    assert answer.status_code == 502
    assert proxy.asked(call) == (3, 3)
    message = answer.json()["error"]["message"]
    for standin in (proxy.first, proxy.second):
        assert f"127.0.0.1:{standin.port} answered 500" in message


def test_refused_credentials_are_named_and_the_key_is_not(proxy: Proxy) -> None:
    answer = proxy.post(embed(Step(status=401)))
    assert answer.status_code == 502
    assert "refused our credentials (401); check its API key" in answer.json()["error"]["message"]
    assert KEY not in answer.text + str(answer.headers)
    assert KEY not in proxy.service.log.read_text()
    assert proxy.first.requests[-1].headers["authorization"] == f"Bearer {KEY}"


@dataclass(frozen=True)
class Break:
    """What breaks a stream that has begun, and what its error event says."""

    name: str
    step: Step
    message: str


BREAKS = [
    Break("silence", Step(hang="mid_stream"), "fell silent"),
    Break("cut", Step(cut="mid_stream"), "connection to the LLM provider broke"),
    Break("no JSON", Step(malformed="json", pace=0.02), "an event of the stream"),
    Break("no object", Step(malformed="not_an_object", pace=0.02), "an event of the stream"),
    Break("a huge silence", Step(hang="mid_stream", size=1 << 20), "fell silent"),
]


@pytest.mark.parametrize("broken", BREAKS, ids=lambda broken: broken.name)
def test_a_stream_that_breaks_raises_and_is_not_repeated(proxy: Proxy, broken: Break) -> None:
    call = chat(broken.step)
    texts: list[str] = []
    with (
        openai.OpenAI(base_url=f"{proxy.service.url}/v1", api_key="any", max_retries=2) as client,
        pytest.raises(openai.APIError, match=broken.message) as raised,
        client.chat.completions.create(
            model="gpt-4o-mini",
            messages=[{"role": "user", "content": "hi"}],
            stream=True,
            extra_body=call.script,
        ) as stream,
    ):
        texts += [chunk.choices[0].delta.content or "" for chunk in stream]
    assert raised.value.code == "stream_broken"
    assert proxy.asked(call) == (1, 0)


def test_a_stream_without_its_end_is_whole_if_its_answer_is(proxy: Proxy) -> None:
    answer = proxy.post(chat(Step(no_done=True), stream=True))
    assert '"finish_reason":"stop"' in answer.text
    assert "error" not in answer.text
