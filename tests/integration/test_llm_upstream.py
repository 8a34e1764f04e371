"""llm-proxy as a process in front of OpenAI's API: what it adds to a call, and what it keeps."""

from collections.abc import Iterator

import httpx2
import pytest

from tests.integration.conftest import EmbeddedStack
from tests.support import openai_standin, tempo
from tests.support.llm import KEY, NO_EXPORT, chat, post
from tests.support.openai_standin import Standin, Step
from tests.support.processes import Service, service

USAGE = {
    "prompt_tokens": 1000,
    "completion_tokens": 500,
    "total_tokens": 1500,
    "prompt_tokens_details": {"cached_tokens": 200},
}
COST = (800 * 0.15 + 200 * 0.075 + 500 * 0.6) / 1e6
"""US dollars of `USAGE` at gpt-4o-mini's prices for input, cached input and output tokens."""


@pytest.fixture(scope="module")
def upstream() -> Iterator[Standin]:
    with openai_standin.running() as started:
        yield started


@pytest.fixture(scope="module")
def proxy(
    stack: EmbeddedStack, upstream: Standin, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """llm-proxy as the OPENAI_ variables set it up."""
    exports = {
        **NO_EXPORT,
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_ENDPOINT": stack.url("OTLP_PORT"),
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    }
    with service(
        "llm_proxy",
        tmp_path_factory.mktemp("proxy"),
        OPENAI_API_KEY=KEY,
        OPENAI_BASE_URL=upstream.url,
        OPENAI_PRICING="openai",
        **exports,
    ) as running:
        yield running


def test_the_upstream_is_a_child_of_the_attempts_span(
    stack: EmbeddedStack, proxy: Service, upstream: Standin
) -> None:
    call = chat(Step(text="Hello.", usage=USAGE), unknown_field={"kept": True})
    body = {name: value for name, value in call.body.items() if name != "model"}
    answer = httpx2.post(f"{proxy.url}{call.path}", json=body, headers={"baggage": "user.id=ada"})
    assert answer.json()["choices"][0]["message"]["content"] == "Hello."
    assert answer.json()["usage"] == USAGE
    assert float(answer.headers["x-o11y-cost-usd"]) == pytest.approx(COST, rel=1e-9)

    (received,) = upstream.of(call.id)
    assert received.body == {**body, "model": "gpt-4o-mini"}
    assert received.headers["authorization"] == f"Bearer {KEY}"
    assert "baggage" not in received.headers

    trace = tempo.wait_for(stack.tempo, answer.headers["x-trace-id"], tempo.whole)
    span = trace.one("llm-proxy", "chat gpt-4o-mini")
    (attempt,) = (each for each in trace.spans if each.parent_id == span.span_id)
    parent = received.headers["traceparent"].split("-")[1:3]
    assert parent == [answer.headers["x-trace-id"], attempt.span_id]
    assert (span.kind, attempt.kind) == ("CLIENT", "CLIENT")
    assert span.attributes["o11y.cost.usd"] == pytest.approx(COST, rel=1e-9)
    assert span.attributes["gen_ai.response.model"] == "gpt-4o-mini-2024-07-18"


def test_the_key_is_in_no_log_line(proxy: Service) -> None:
    post(proxy.url, chat(messages="wrong"))
    post(proxy.url, chat(Step(status=401)))
    assert KEY not in proxy.log.read_text()
