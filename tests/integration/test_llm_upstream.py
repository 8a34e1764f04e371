"""llm-proxy as a process in front of an upstream that speaks OpenAI's API."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2
import pytest

from tests import tempo
from tests.integration.conftest import EmbeddedStack
from tests.processes import Service, service

USAGE = {
    "prompt_tokens": 1000,
    "completion_tokens": 500,
    "total_tokens": 1500,
    "prompt_tokens_details": {"cached_tokens": 200},
}
ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "gpt-4o-mini-2024-07-18",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello."},
            "finish_reason": "stop",
        }
    ],
    "usage": USAGE,
}
COST = (800 * 0.15 + 200 * 0.075 + 500 * 0.6) / 1e6
"""US dollars of `USAGE` at gpt-4o-mini's prices for input, cached input and output tokens."""


class Upstream(ThreadingHTTPServer):
    """Answers every POST with `ANSWER` and remembers what it was sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[dict[str, str], dict[str, Any]]] = []


class Handler(BaseHTTPRequestHandler):
    server: Upstream

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.seen.append(({k.lower(): v for k, v in self.headers.items()}, body))
        content = json.dumps(ANSWER).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join(5)


@pytest.fixture(scope="module")
def proxy(
    stack: EmbeddedStack, upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    with service(
        "llm_proxy",
        tmp_path_factory.mktemp("proxy"),
        OPENAI_API_KEY="sk-planted-secret",
        OPENAI_BASE_URL=f"http://127.0.0.1:{upstream.server_port}/v1",
        OPENAI_PRICING="openai",
        OTEL_EXPORTER_OTLP_ENDPOINT=stack.url("OTLP_PORT"),
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        OTEL_METRICS_EXPORTER="none",
        OTEL_LOGS_EXPORTER="none",
    ) as running:
        yield running


def test_the_upstream_is_a_child_of_the_llm_span(
    stack: EmbeddedStack, proxy: Service, upstream: Upstream
) -> None:
    headers = {"baggage": "user.id=ada"}
    body = {"messages": [{"role": "user", "content": "hi"}], "unknown_field": {"kept": True}}
    answer = httpx2.post(f"{proxy.url}/v1/chat/completions", json=body, headers=headers)
    assert answer.json() == ANSWER
    assert float(answer.headers["x-o11y-cost-usd"]) == pytest.approx(COST, rel=1e-9)

    sent, received = upstream.seen[-1]
    assert received == {**body, "model": "gpt-4o-mini"}
    assert sent["authorization"] == "Bearer sk-planted-secret"
    assert "baggage" not in sent

    trace = tempo.wait_for(stack.tempo, answer.headers["x-trace-id"], tempo.whole)
    span = trace.one("llm-proxy", "chat gpt-4o-mini")
    assert sent["traceparent"].split("-")[1:3] == [answer.headers["x-trace-id"], span.span_id]
    assert span.kind == "CLIENT"
    assert span.attributes["o11y.cost.usd"] == pytest.approx(COST, rel=1e-9)
    assert span.attributes["gen_ai.response.model"] == "gpt-4o-mini-2024-07-18"


def test_the_key_is_in_no_log_line(proxy: Service) -> None:
    httpx2.post(f"{proxy.url}/v1/chat/completions", json={"messages": "wrong"})
    assert "sk-planted-secret" not in proxy.log.read_text()
