"""Metrics, spans and log lines of all four services tell the same of two thousand mixed calls.

Whatever is compared comes from different places: the gateway's /metrics, OTLP metrics, OTLP spans,
OTLP log records, standard output.
"""

import asyncio
import json
import random
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from deploy.dashboards.names import UNITS, label
from tests.support import openai_standin, tiny_model
from tests.support.collectors import HttpCollector
from tests.support.llm import chat, complete, embed, llm_proxy, provider
from tests.support.openai_standin import Step
from tests.support.otlp import Line, Point, Sent, Span
from tests.support.processes import Service, service

AT_ONCE = 16
SETTLE_SECONDS = 20.0
ACTIVE = ("http_server_active_requests", "openai_calls_running", "model_requests_running")
SERVICES = ("gateway", "llm-proxy", "vector-svc", "inference-svc")

Key = tuple[Any, ...]


@dataclass(frozen=True)
class Ask:
    """One call: `leaves` after so many pieces of the answer."""

    path: str
    body: dict[str, Any] | None
    headers: dict[str, str]
    leaves: int | None = None


def asks() -> list[Ask]:
    made = [*good(), *failing(), *left()]
    random.Random(6).shuffle(made)
    return made


def good() -> Iterator[Ask]:
    for at in range(150):
        user = {"user_id": f"user-{at % 7}"}
        query = {"query": f"w{1 + at % 60} w2"}
        yield _raw("/chat", {"message": "Where is it?", **user})
        yield _raw("/search", query)
        yield _raw("/embed", {"texts": [f"text {at}", "another"]})
        yield _raw("/local-inference", {"prompt": "w1 w2 w3", "max_length": 1 + at % 12})
        yield _raw("/v1/models", None)
    for at in range(100):
        yield _raw("/full-pipeline", {"query": f"w{1 + at % 60}", "max_tokens": 4})
        yield _raw("/chat", {"message": "And now?", "stream": True})
        yield _raw("/local-inference", {"prompt": "w4", "max_length": 8, "stream": True})
        yield _raw("/local-inference", {"prompt": "w5", "max_length": 4, "num_sequences": 3})
        yield _call(chat(Step(), model="gpt-4o"))
        yield _call(chat(Step(usage="cached")))
        yield _call(chat(Step(), stream=True, stream_options={"include_usage": True}))
        yield _call(complete(Step()))
        yield _call(embed(Step()))


def failing() -> Iterator[Ask]:
    """Retries, fallbacks and every sort of error."""
    for _ in range(20):
        yield _raw("/chat", {"message": ""})
        yield _raw("/nowhere", {})
        yield _raw("/local-inference", {"prompt": "w1 " * 200})
        yield _call(chat(Step(status=429, retry_after="0"), Step()))
        yield _call(chat(Step(status=500), Step(), stream=True))
        yield _call(chat(Step(status=400)))
        yield _call(chat(Step(status=401), Step()))
        yield _call(chat(Step(usage="absent"), stream=True))
        yield _call(chat(Step(cut="mid_stream", size=1024, chunks=64), stream=True))
        yield _call(chat(Step(malformed="json")))
        yield _call(chat(Step(), model="house-model"))
    for _ in range(8):
        late = {"x-request-timeout": "0.3"}
        yield _call(chat(Step(hang="before_first_byte")), late)
        yield _call(chat(*[Step(status=503, retry_after="0")] * 6))
        yield _call(embed(Step(status=429, retry_after="0"), Step()))


def left() -> Iterator[Ask]:
    """The caller goes."""
    for _ in range(30):
        slow = Step(pace=0.01, size=1024, chunks=256)
        yield _call(chat(slow, stream=True), leaves=2)
        yield _raw("/local-inference", {"prompt": "w6", "max_length": 60, "stream": True}, leaves=1)


def _raw(path: str, body: dict[str, Any] | None, leaves: int | None = None) -> Ask:
    return Ask(path, body, {}, leaves)


def _call(call: Any, headers: dict[str, str] | None = None, leaves: int | None = None) -> Ask:
    return Ask(call.path, call.body, headers or {}, leaves)


async def make(url: str, calls: list[Ask]) -> Counter[int]:
    """Make the calls, so many at once; the statuses of the answers."""
    places, statuses = asyncio.Semaphore(AT_ONCE), Counter[int]()

    async def one(client: httpx2.AsyncClient, ask: Ask) -> None:
        method = "GET" if ask.body is None else "POST"
        async with (
            places,
            client.stream(method, ask.path, json=ask.body, headers=ask.headers) as answer,
        ):
            statuses[answer.status_code] += 1
            if ask.leaves is None:
                await answer.aread()
                return
            pieces = answer.aiter_bytes()
            for _ in range(ask.leaves):
                await anext(pieces, b"")

    limits = httpx2.Limits(max_connections=AT_ONCE)
    async with httpx2.AsyncClient(base_url=url, timeout=30, limits=limits) as client:
        await asyncio.gather(*(one(client, ask) for ask in calls))
    return statuses


@dataclass
class Told:
    """All that was told of the calls."""

    made: int
    samples: dict[Key, float]
    """Of the gateway's /metrics: service, name and labels."""
    sent: Sent
    printed: dict[str, list[dict[str, Any]]]
    """The JSON lines of each service's standard output."""

    def points(self, metric: str, service: str | None = None) -> list[Point]:
        found = [
            one
            for one in self.sent.points
            if one.metric == metric and service in (None, one.service)
        ]
        assert found, metric
        return found

    def spans(self, **which: str) -> list[Span]:
        return [
            span
            for span in self.sent.spans
            if all(getattr(span, key) == value for key, value in which.items())
        ]


def scrape(url: str) -> dict[Key, float]:
    text = httpx2.get(f"{url}/metrics", timeout=10).text
    return {
        _sample(sample.name, sample.labels): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _sample(name: str, labels: dict[str, Any]) -> Key:
    kept = {
        label(key): float(value) if key == "le" else str(value)
        for key, value in labels.items()
        if key not in ("service", "instance") and value != ""  # empty is as good as missing
    }
    return labels["service"], name, frozenset(kept.items())


def settled(url: str) -> dict[Key, float]:
    """The samples once nothing is being answered and none of what is counted changes."""
    give_up = time.monotonic() + SETTLE_SECONDS
    before: dict[Key, float] = {}
    while True:
        now = scrape(url)
        counted = {
            key: value
            for key, value in now.items()
            if str(key[1]).endswith(("_total", "_count", "_sum", "_bucket"))
            and not str(key[1]).startswith("otel_")  # what counts exports changes with each of them
        }
        busy = {key: value for key, value in now.items() if key[1] in ACTIVE and value}
        if not busy and counted == before:
            return now
        before = counted
        assert time.monotonic() < give_up, busy
        time.sleep(0.2)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """Made once: every call, then everything that was told of them."""
    folder = tmp_path_factory.mktemp("agreement")
    model = tiny_model.save(folder / "tiny")
    collector = HttpCollector()
    try:
        export = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            **dict.fromkeys(
                ("OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER"), "otlp"
            ),
        }
        with ExitStack() as running:
            samples, made, logs = _run(running, folder, model, export)
        requests = [(path, body) for path, _, body in collector.received]
        printed = {name: _json_lines(log) for name, log in logs.items()}
        yield Told(made, samples, Sent(requests), printed)
    finally:
        collector.stop()


def _run(
    running: ExitStack, folder: Path, model: Path, export: dict[str, str]
) -> tuple[dict[Key, float], int, dict[str, Path]]:
    first, second = (running.enter_context(openai_standin.running()) for _ in range(2))
    trusted = {"breaker_failures": 100_000, "idle_seconds": 2}
    inference = running.enter_context(
        service(
            "inference_svc", folder, LOCAL_MODEL_NAME=str(model), ENGINE_MAX_CONTEXT="64", **export
        )
    )
    vectors = running.enter_context(
        service("vector_svc", folder, CHROMA_PERSIST_DIRECTORY=str(folder / "chroma"), **export)
    )
    llm = running.enter_context(
        llm_proxy(
            folder,
            provider("first", first, embedding_model="text-embedding-3-small", **trusted),
            provider("second", second, **trusted),
            **export,
        )
    )
    gateway = running.enter_context(
        service(
            "gateway",
            folder,
            LLM_PROXY_URL=llm.url,
            VECTOR_URL=vectors.url,
            INFERENCE_URL=inference.url,
            SEED_CORPUS="false",
            **export,
        )
    )
    calls = asks()
    statuses = asyncio.run(make(gateway.url, calls))
    assert statuses.total() == len(calls) >= 1900
    assert {200, 400, 404, 422, 504} <= statuses.keys(), statuses
    processes: dict[str, Service] = dict(
        zip(SERVICES, (gateway, llm, vectors, inference), strict=True)
    )
    return settled(gateway.url), len(calls), {name: one.log for name, one in processes.items()}


def _json_lines(log: Path) -> list[dict[str, Any]]:
    lines = log.read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def test_the_text_says_what_otlp_says(told: Told) -> None:
    """Counters and histograms of all services; sums but for the order in which they were added."""
    expected: dict[Key, float] = {}
    for point in told.sent.points:
        if not point.monotonic or point.metric.startswith("otel."):
            continue
        unit = UNITS.get(point.unit)
        name = label(point.metric) + (f"_{unit}" if unit else "")
        labels = {"service": point.service, **point.labels}
        if point.kind == "sum":
            expected[_sample(f"{name}_total", labels)] = point.value
            continue
        expected[_sample(f"{name}_sum", labels)] = point.value
        expected[_sample(f"{name}_count", labels)] = sum(point.buckets)
        so_far = 0
        for bound, count in zip((*point.bounds, float("inf")), point.buckets, strict=True):
            so_far += count
            expected[_sample(f"{name}_bucket", {**labels, "le": bound})] = so_far
    endings = ("_total", "_sum", "_count", "_bucket")
    found = {
        key: value
        for key, value in told.samples.items()
        if str(key[1]).endswith(endings) and not str(key[1]).startswith("otel_")
    }
    assert {key[0] for key in found} == set(SERVICES)
    assert found == pytest.approx(expected, rel=1e-9)


ERROR = "error.type"
HTTP = ("http.request.method", "http.route", "http.response.status_code", ERROR)
HOP = (
    *("http.request.method", "url.template", "server.address", "server.port"),
    *("http.response.status_code", ERROR, "provider"),
)
GEN_AI = ("gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model", ERROR)
GENERATION = ("gen_ai.operation.name", "gen_ai.request.model", ERROR)


SPAN_KEYS = {"provider": "o11y.llm.provider"}
"""Attributes of spans that are labels by another name."""


@dataclass(frozen=True)
class Rule:
    """Which spans a histogram's values are of: `value` of each, under the attributes `by`."""

    metric: str
    service: str | None
    which: Callable[[Span], bool]
    by: tuple[str, ...]
    value: Callable[[Span], float]
    within: float = 1e-9
    """How far the two may be from each other."""


def _seconds(span: Span) -> float:
    return span.seconds


def _is_call(span: Span) -> bool:
    return "o11y.llm.attempts" in span.attributes


def _embeds(span: Span) -> bool:
    return _is_call(span) and span.attributes["gen_ai.operation.name"] == "embeddings"


def _generates(span: Span) -> bool:
    return _is_call(span) and not _embeds(span)


def _is_attempt(span: Span) -> bool:
    return "o11y.llm.attempt.number" in span.attributes


def _local(span: Span) -> bool:
    return "model.device" in span.attributes


RULES = [
    Rule("http.server.request.duration", None, lambda one: one.kind == "SERVER", HTTP, _seconds),
    Rule(
        "http.client.request.duration",
        None,
        lambda one: "url.template" in one.attributes,
        HOP,
        _seconds,
    ),
    Rule("gen_ai.client.inference.duration", "llm-proxy", _generates, GEN_AI, _seconds),
    Rule("gen_ai.client.embeddings.duration", "llm-proxy", _embeds, GEN_AI, _seconds),
    Rule("openai_api_duration", "llm-proxy", _is_call, (), _seconds),
    Rule(
        "gen_ai.client.inference.time_to_first_chunk",
        "llm-proxy",
        lambda one: "gen_ai.response.time_to_first_chunk" in one.attributes,
        GEN_AI[:-1],
        lambda one: float(one.attributes["gen_ai.response.time_to_first_chunk"]),
    ),
    Rule("gen_ai.server.request.duration", "inference-svc", _local, GENERATION, _seconds),
    Rule(
        "model_inference_duration",
        "inference-svc",
        lambda one: "gen_ai.request.max_tokens" in one.attributes,
        (),
        _seconds,
    ),
    Rule(
        "vector_operation_duration",
        "vector-svc",
        lambda one: one.kind == "CLIENT",
        (),
        _seconds,
        within=0.02,
    ),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.metric)
def test_a_histogram_counts_what_the_spans_last(told: Told, rule: Rule) -> None:
    values: defaultdict[Key, list[float]] = defaultdict(list)
    for span in told.sent.spans:
        if rule.service in (None, span.service) and rule.which(span):
            keys = (SPAN_KEYS.get(name, name) for name in rule.by)
            key = (span.service, *map(span.attributes.get, keys))
            values[key].append(rule.value(span))
    counted: dict[Key, Counter[int]] = defaultdict(Counter)
    sums: Counter[Key] = Counter()
    for point in told.points(rule.metric, rule.service):
        key = (point.service, *(point.labels.get(name) for name in rule.by))
        counted[key].update(dict(enumerate(point.buckets)))
        sums[key] += point.value  # type: ignore[assignment]
        bounds = point.bounds
    assert {key: buckets.total() for key, buckets in counted.items()} == {
        key: len(found) for key, found in values.items()
    }
    for key, found in values.items():
        assert sums[key] == pytest.approx(sum(found), abs=rule.within * len(found))
        for at, bound in enumerate(bounds):
            below = sum(count for bucket, count in counted[key].items() if bucket <= at)
            least = sum(value <= bound - rule.within for value in found)
            most = sum(value <= bound + rule.within for value in found)
            assert least <= below <= most, (key, bound)


def test_every_request_is_one_span_one_line_on_both_ways_and_one_count(told: Told) -> None:
    spans = {span.span_id: span for span in told.spans(kind="SERVER")}
    printed = {
        line["span_id"]: (name, line)
        for name, lines in told.printed.items()
        for line in lines
        if line["logger"] == "o11y.access"
    }
    sent = {
        line.span_id: line
        for line in told.sent.lines
        if line.span_id and {"route", "status", "duration_seconds"} <= line.attributes.keys()
    }
    assert told.made <= len(told.spans(kind="SERVER", service="gateway"))
    assert spans.keys() == printed.keys() == sent.keys()
    prompt = 0
    for span_id, span in spans.items():
        name, line = printed[span_id]
        attributes = span.attributes
        gone = attributes.get(ERROR) == "client_disconnected"
        status = 499 if gone else attributes.get("http.response.status_code", 500)
        route = attributes.get("http.route", attributes["url.path"])
        assert (name, line["route"], line["status"]) == (span.service, route, status)
        assert line["trace_id"] == span.trace_id == sent[span_id].trace_id
        for seconds in (line["duration_seconds"], sent[span_id].attributes["duration_seconds"]):
            assert seconds <= span.seconds + 1e-6  # the line is written within the span
            prompt += span.seconds - seconds < 0.01
    assert prompt > 0.95 * 2 * len(spans)


def test_what_is_printed_is_what_is_sent(told: Told) -> None:
    """Lines of requests; those about the start and the end of a process are only printed."""

    def key(line: Line) -> Key:
        return line.service, line.message, line.trace_id, line.span_id

    printed = Counter(
        (name, line["message"], line["trace_id"], line["span_id"])
        for name, lines in told.printed.items()
        for line in lines
        if "trace_id" in line
    )
    assert printed == Counter(key(line) for line in told.sent.lines if line.trace_id)


BILLED = {"input": "o11y.llm.attempt.input_tokens", "output": "o11y.llm.attempt.output_tokens"}
"""Tokens on the span of an attempt, by their type."""

READ = {
    "cached": "gen_ai.usage.cache_read.input_tokens",
    "reasoning": "gen_ai.usage.reasoning.output_tokens",
}
"""Those on the span of a call: of an answer that was read."""


def test_tokens_and_dollars_of_the_llm_are_those_of_its_spans(told: Told) -> None:
    tokens: Counter[Key] = Counter()
    dollars: defaultdict[Key, float] = defaultdict(float)
    calls = {span.span_id: span for span in told.sent.spans if _is_call(span)}
    for span in filter(_is_attempt, told.sent.spans):
        found = span.attributes
        estimated = "true" if found.get("o11y.usage.estimated") else "false"
        name, model = found["o11y.llm.provider"], found["gen_ai.request.model"]
        for kind, attribute in BILLED.items():
            tokens[name, model, kind, estimated] += found.get(attribute, 0)
        if "o11y.llm.attempt.cost.usd" in found:
            operation = calls[span.parent_id].attributes["gen_ai.operation.name"]
            dollars[name, model, operation, estimated] += found["o11y.llm.attempt.cost.usd"]
    for span in calls.values():
        found = span.attributes
        name, model = found["o11y.llm.provider"], found["gen_ai.request.model"]
        for kind, attribute in READ.items():
            tokens[name, model, kind, "false"] += found.get(attribute, 0)
    together = sum(span.attributes.get("o11y.cost.usd", 0.0) for span in calls.values())
    assert together == pytest.approx(sum(dollars.values()), abs=1e-9)
    counted: Counter[Key] = Counter()
    charged: defaultdict[Key, float] = defaultdict(float)
    for point in told.points("openai_tokens_used"):
        by = tuple(point.labels[key] for key in ("provider", "model", "type", "estimated"))
        counted[by] += int(point.value)
    assert counted == +tokens
    assert {kind for _, _, kind, _ in counted} >= {"input", "output", "cached"}
    labels = ("provider", "model", "operation", "estimated")
    for point in told.points("openai_cost_usd"):
        charged[tuple(point.labels[key] for key in labels)] += point.value
    assert charged.keys() == dollars.keys()
    for key, usd in charged.items():
        assert usd == pytest.approx(dollars[key], abs=1e-9)
    assert sum(charged.values()) > 0


def test_retries_and_fallbacks_are_in_spans_and_lines_as_often(told: Told) -> None:
    again = sum("http.request.resend_count" in one.attributes for one in told.sent.spans)
    assert sum(point.value for point in told.points("openai_retries")) == again > 0
    told_of = sum("; trying " in line["message"] for line in told.printed["llm-proxy"])
    assert sum(point.value for point in told.points("openai_fallbacks")) == told_of > 0


def test_local_tokens_and_calls_given_up_are_those_of_the_spans(told: Told) -> None:
    spans = [
        span
        for span in told.spans(service="inference-svc")
        if _local(span) and "gen_ai.request.max_tokens" in span.attributes
    ]
    written = sum(span.attributes.get("gen_ai.usage.output_tokens", 0) for span in spans)
    assert sum(point.value for point in told.points("model_tokens_generated")) == written > 0
    left = sum("cancelled" in span.events for span in spans)
    counted = sum(one.value for one in told.sent.points if one.metric == "model_requests_cancelled")
    assert counted == left


def test_every_exemplar_opens_a_span_that_exists(told: Told) -> None:
    spans = {(span.trace_id, span.span_id): span for span in told.sent.spans}
    seen: set[tuple[str, str]] = set()
    for point in told.sent.points:
        for trace_id, span_id, value in point.exemplars:
            assert (trace_id, span_id) in spans, point.metric
            assert spans[trace_id, span_id].service == point.service
            if point.bounds:
                assert point.buckets[bisect_left(point.bounds, value)] > 0
            seen.add((point.service, point.kind))
    assert {(name, "histogram") for name in SERVICES} <= seen
    assert {("llm-proxy", "sum"), ("inference-svc", "sum")} <= seen
    for metric in ("openai_cost_usd", "http.server.request.duration", "model_inference_duration"):
        assert any(point.exemplars for point in told.points(metric)), metric
