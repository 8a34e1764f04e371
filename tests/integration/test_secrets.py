"""A secret planted wherever a caller or a provider can put one is in no signal of any service."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, NamedTuple

import httpx2
import pytest

from tests.support.collectors import HttpCollector
from tests.support.llm import gateway, llm_proxy
from tests.support.processes import service

SECRET = "zebra7"
TOKEN = f"{SECRET}-internal-token"
PATIENCE_SECONDS = 30
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


class _Provider(BaseHTTPRequestHandler):
    """Answers with a secret of its own, or with an error that repeats all it was sent.

    Which is said by the first word of the request's text: a status, `broken` or anything else.
    """

    def do_GET(self) -> None:
        self._answer(200, {"object": "list", "data": []})

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers["content-length"])).decode()
        body = json.loads(sent)
        if self.path.endswith("/embeddings"):
            rows = [{"index": at, "embedding": [1.0, 0.5]} for at in range(len(body["input"]))]
            self._answer(200, {"model": "e", "data": rows, "usage": USAGE})
            return
        word = body["messages"][-1]["content"].partition(" ")[0]
        if word.isdecimal():
            words = f"{sent} {self.headers['authorization']}"
            error = {"message": words, "type": SECRET, "param": None, "code": SECRET}
            self._answer(int(word), {"error": error})
        elif word == "broken":
            self._answer(200, f"no JSON but {SECRET}")
        elif body.get("stream"):
            self._stream(f"It is {SECRET}.")
        else:
            message = {"role": "assistant", "content": f"It is {SECRET}."}
            choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
            self._answer(200, {"id": "1", "model": "m", "choices": choices, "usage": USAGE})

    def _answer(self, status: int, body: object) -> None:
        content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.send_header("retry-after-ms", "1")
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, text: str) -> None:
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": "stop"}
        chunk = json.dumps({"id": "1", "model": "m", "choices": [choice], "usage": USAGE})
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        self.wfile.write(f"data: {chunk}\n\ndata: [DONE]\n\n".encode())

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def provider() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Provider)
    thread = Thread(target=server.serve_forever, args=[0.01])
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


HEADERS = {
    "Authorization": f"Bearer {SECRET}",
    "Cookie": f"a={SECRET}",
    "X-Anything": SECRET,
    "traceparent": SECRET,
    "baggage": f"user.id={SECRET},{SECRET}={SECRET}",
    "X-User-Id": SECRET * 30,
    "X-Tenant-Id": f"{SECRET} {SECRET}",
}


def calls(gateway_url: str, llm_url: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """URL and body of every call, with what each can go wrong by."""
    for word in ("", "broken ", "400 ", "401 ", "404 ", "422 ", "429 ", "500 ", "503 "):
        text = f"{word}{SECRET}"
        chat = {"model": "m", "messages": [{"role": "user", "content": text}]}
        for stream in (False, True):
            yield f"{gateway_url}/chat", {"message": text, "stream": stream}
            yield f"{gateway_url}/v1/chat/completions", {**chat, "stream": stream}
            yield f"{llm_url}/v1/chat/completions?{SECRET}", {**chat, "stream": stream}
        yield f"{gateway_url}/full-pipeline?query={word.strip()}%20{SECRET}&max_tokens=1", {}
        yield f"{gateway_url}/full-pipeline", {"query": text, "max_tokens": 1}
    yield f"{gateway_url}/embed", {"texts": [SECRET], "metadata": [{"a": SECRET}], "ids": [SECRET]}
    yield f"{gateway_url}/search", {"query": SECRET, "filter_metadata": {"a": {"$no": SECRET}}}
    yield f"{gateway_url}/search", {"query": SECRET, "filter_metadata": {"a": SECRET}}
    yield f"{gateway_url}/local-inference", {"prompt": SECRET}
    for path in ("/chat", "/embed", "/search", "/local-inference", "/full-pipeline"):
        yield f"{gateway_url}{path}?user_id={SECRET}%00&{SECRET}", {SECRET: SECRET}
        yield f"{gateway_url}{path}?{SECRET * 9}={SECRET}", {"message": [SECRET], "query": [SECRET]}
    yield f"{gateway_url}/v1/chat/completions", {"messages": [], "stream": SECRET}


class Signals(NamedTuple):
    """All that left the services but their answers, and what these were."""

    logs: dict[str, str]
    sent: dict[str, bytes]
    metrics: str
    statuses: list[int]


@pytest.fixture(scope="module")
def signals(tmp_path_factory: pytest.TempPathFactory) -> Signals:
    folder = tmp_path_factory.mktemp("secrets")
    collector = HttpCollector()
    endpoint = f"http://127.0.0.1:{collector.server_port}/otlp"
    exporting = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_HEADERS": f"Authorization=Basic {SECRET}",
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_LOGS_EXPORTER": "otlp",
        "INTERNAL_TOKEN": TOKEN,
    }
    try:
        with ExitStack() as running:
            base_url = running.enter_context(provider())
            asked = {"name": "openai", "base_url": base_url, "api_key": SECRET, "retries": 1}
            asked |= {"chat_model": "m", "embedding_model": "e"}
            llm = running.enter_context(
                llm_proxy(folder, {**asked, "breaker_failures": 999}, **exporting)
            )
            vector = running.enter_context(
                service(
                    "vector_svc", folder, CHROMA_PERSIST_DIRECTORY=str(folder / "c"), **exporting
                )
            )
            front = running.enter_context(gateway(folder, llm, **exporting, VECTOR_URL=vector.url))
            statuses = []
            with httpx2.Client(timeout=PATIENCE_SECONDS, headers=HEADERS) as client:
                for url, body in calls(front.url, llm.url):
                    trusted = url.startswith(llm.url)  # a gateway's baggage
                    ours = {"baggage": "user.id=ann", "x-internal-token": TOKEN}
                    given = ours if trusted else {}
                    answer = client.post(url, json=body or None, headers=given)
                    statuses.append(answer.status_code)
                refused = client.post(
                    f"{llm.url}/v1/chat/completions",
                    json={"a": SECRET},
                    headers={"baggage": "user.id=ann", "x-internal-token": SECRET * 3},
                )
                assert refused.status_code == 401
                metrics = client.get(f"{front.url}/metrics").text
            services = {"gateway": front, "llm-proxy": llm, "vector-svc": vector}
        logs = {name: each.log.read_text() for name, each in services.items()}
    finally:
        collector.stop()
    sent: dict[str, bytes] = {}
    for path, _, content in collector.received:
        sent[path] = sent.get(path, b"") + content
    return Signals(logs, sent, metrics, statuses)


def test_there_is_something_to_search(signals: Signals) -> None:
    assert signals.logs["gateway"].count('"logger":"o11y.access"') == len(signals.statuses) - 18
    assert {200, 400, 404, 422, 429, 502, 503} <= set(signals.statuses)
    assert all('"logger":"o11y.access"' in text for text in signals.logs.values())
    assert set(signals.sent) == {f"/otlp/v1/{name}" for name in ("traces", "metrics", "logs")}
    for service_name in (b"gateway", b"llm-proxy", b"vector-svc"):
        assert all(service_name in content for content in signals.sent.values())
    assert b"REDACTED" in signals.sent["/otlp/v1/traces"]
    assert "openai_tokens_used_total" in signals.metrics


@pytest.mark.parametrize("name", ["gateway", "llm-proxy", "vector-svc"])
def test_no_secret_is_in_what_a_service_prints(name: str, signals: Signals) -> None:
    assert [line for line in signals.logs[name].splitlines() if SECRET in line] == []


@pytest.mark.parametrize("signal", ["traces", "metrics", "logs"])
def test_no_secret_is_in_what_is_exported(signal: str, signals: Signals) -> None:
    content = signals.sent[f"/otlp/v1/{signal}"]
    at = content.find(SECRET.encode())
    assert at < 0, content[max(0, at - 200) : at + 100]


def test_no_secret_is_on_the_metrics_page(signals: Signals) -> None:
    assert [line for line in signals.metrics.splitlines() if SECRET in line] == []
