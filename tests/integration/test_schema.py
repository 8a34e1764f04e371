"""What the services tell and what the schema says are the same names.

Every call of the span cases, every scenario of the demo and a few unusual calls are made once, with
content captured; what came over OTLP and stands in /metrics is compared with the schema, both ways.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import httpx2
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from deploy.dashboards import names as names_of
from deploy.demo.workload import SCENARIOS
from o11y.telemetry import schema
from tests.support import openai_standin
from tests.support.collectors import HttpCollector
from tests.support.house import House, call, services
from tests.support.otlp import Sent, Span
from tests.support.span_cases import CASES, TINY_CHAT
from tests.support.unusual_calls import WHO, WINDOW, unusual
from tests.support.waiting import until

Names = set[tuple[str, ...]]
"""Each from the outermost to the innermost: a metric and its label, a span and its key."""


ADMIN_KEY = "the-admin-key-0123456789"


@dataclass(frozen=True)
class Told:
    sent: Sent
    scraped: dict[str, Names]
    """By service: families of /metrics and their labels."""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    folder = tmp_path_factory.mktemp("schema")
    collector = HttpCollector()
    exports = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "LLM_TIME_CHUNKS": "true",
        "ADMIN_KEY": ADMIN_KEY,
        "DATABASE_URL": f"sqlite:///{folder}/o11y.db",
        "LOCAL_USD_PER_HOUR": "1",
        "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "SPAN_AND_EVENT",
        **dict.fromkeys(
            ("OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER"), "otlp"
        ),
    }
    try:
        with (
            openai_standin.running() as first,
            openai_standin.running() as second,
            services(folder, first, second, exports) as gateways,
        ):
            _play(House("", gateways, first, second))
            _call_with_a_key(gateways[False])
            scraped = _scrape(gateways[False])
        yield Told(Sent((path, body) for path, _, body in collector.received), scraped)
    finally:
        collector.stop()


def _play(house: House) -> None:
    with httpx2.Client(base_url=house.gateways[False], headers=WHO, timeout=30) as client:
        for method, path, body in unusual():
            client.request(method, path, json=body)
        for scenario in SCENARIOS.values():
            for one in chain.from_iterable(scenario(WINDOW)):
                client.request(
                    one.method, one.path, json=one.json, params=one.params, content=one.content
                )
    system = [{"role": "system", "content": "w3"}, *TINY_CHAT["messages"]]
    local = TINY_CHAT | {"messages": system}
    url = f"{house.gateways[True]}/v1/chat/completions"
    httpx2.post(url, json=local, headers=WHO, timeout=30).raise_for_status()
    for case in CASES:
        house.first.next.extend(case.first)
        house.second.next.extend(case.second)
        call(house, case, {"content-type": "application/json", **WHO})


def _call_with_a_key(url: str) -> None:
    """The last calls: from the first key on, every call needs one."""
    admin = {"authorization": f"Bearer {ADMIN_KEY}"}
    form = {"name": "web", "tenant": "acme", "budgets": {"day": 1}}
    made = httpx2.post(f"{url}/admin/keys", json=form, headers=admin, timeout=10).json()
    headers = {"authorization": f"Bearer {made['key']}"}
    httpx2.get(f"{url}/health", headers=headers, timeout=10).raise_for_status()
    assert httpx2.get(f"{url}/health", timeout=10).status_code == 401
    until(lambda: "budget_remaining_usd" in httpx2.get(f"{url}/metrics").text, 30)


def _scrape(url: str) -> dict[str, Names]:
    text = httpx2.get(f"{url}/metrics", timeout=10).text
    found: dict[str, Names] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = {key for key, value in sample.labels.items() if value != ""}
            names = found.setdefault(sample.labels["service"], set())
            names.add((family.name,))
            names |= {(family.name, key) for key in labels - {"le", "service", "instance"}}
    return found


def _metric_names() -> dict[str, Names]:
    """By service: what the schema lets it emit."""
    found: dict[str, Names] = {name: set() for name in schema.EVERY_SERVICE}
    for metric in schema.METRICS:
        for service in metric.services:
            found[service] |= {(metric.name,), *((metric.name, key) for key in metric.labels)}
    return found


def _sort(span: Span) -> schema.SpanName | None:
    """The span's sort in the schema: of several that fit, the most literal."""
    fitting = [
        sort
        for sort in schema.SPANS
        if sort.kind == span.kind and span.service in sort.services and _fits(span, sort.pattern)
    ]
    return min(fitting, key=lambda sort: sort.pattern.count("{"), default=None)


_SHAPES = {"method": "[A-Z_]+", "route": r"/\S*", "path": r"/\S*"}


def _fits(span: Span, pattern: str) -> bool:
    shape = re.sub(r"\\{(\w+)\\}", lambda word: _SHAPES.get(word[1], r"\S+"), re.escape(pattern))
    if span.kind == "SERVER" and "http.route" not in span.attributes:
        shape = r"\S+"  # no route matched: only the method
    return re.fullmatch(shape, span.name) is not None


def _heading(sort: schema.SpanName) -> str:
    return f"{sort.kind} {sort.pattern}"


def _span_names() -> Names:
    names: Names = set()
    for sort in schema.SPANS:
        names |= {(_heading(sort),), *((_heading(sort), key) for key in sort.attributes)}
        names |= {(_heading(sort), "event", event) for event in sort.events}
    for event in schema.EVENTS:
        names |= {("event", event.name), *(("event", event.name, key) for key in event.attributes)}
    return names | {("every span", key) for key in schema.IDENTITY}


def _seen_spans(sent: Sent) -> Names:
    seen: Names = set()
    for span in sent.spans:
        sort = _sort(span)
        head = _heading(sort) if sort else f"{span.kind} {span.name} of {span.service}"
        seen.add((head,))
        for key in span.attributes:
            seen.add(("every span", key) if key in schema.IDENTITY else (head, key))
        seen |= {(head, "event", event) for event in span.events}
        seen |= {("event", event) for event in span.events}
        seen |= {("event", event, key) for event, key in span.event_keys}
    said = {event.name: event.attributes for event in schema.EVENTS}
    for line in sent.lines:
        if line.event:
            seen.add(("event", line.event))
            keys = said.get(line.event, tuple(line.attributes))
            seen |= {("event", line.event, key) for key in line.attributes if key in keys}
    return seen


GPU = ("hw.", "gpu_", "torch_")
"""Metrics of an accelerator, which the services here do without: see test_gpu, test_allocator."""

UNSEEN: dict[tuple[str, ...], str] = {
    **dict.fromkeys(
        (
            (schema.MODEL_IDLE_ENERGY.name,),
            (schema.MODEL_ENERGY.name,),
            *((schema.MODEL_ENERGY.name, label) for label in schema.MODEL_ENERGY.labels),
            ("INTERNAL {operation} {model}", schema.ENERGY_JOULES),
            ("CLIENT embeddings {model}", schema.ENERGY_JOULES),
        ),
        "no GPU counts energy here: test_cost of inference-svc",
    ),
    ("INTERNAL load corpus",): "only at a start with the corpus: test_corpus of the gateway",
    ("CLIENT embeddings {model}", schema.ERROR_TYPE): "the embedder never fails here",
    **dict.fromkeys(
        (
            (schema.GEN_AI_INPUT_TOKENS.name, schema.ERROR_TYPE),
            (schema.GEN_AI_OUTPUT_TOKENS.name, schema.ERROR_TYPE),
        ),
        "no caller leaves between the usage and the end of a stream: test_conventions",
    ),
    **dict.fromkeys(
        (
            (schema.MODEL_FAILURES.name,),
            *((schema.MODEL_FAILURES.name, label) for label in schema.MODEL_FAILURES.labels),
        ),
        "no forward step fails here: test_recovery of inference-svc",
    ),
    **dict.fromkeys(
        (
            (metric.name, label)
            for metric in schema.METRICS
            for label in (schema.ERROR_TYPE, schema.HTTP_STATUS, schema.RPC_STATUS)
            if metric.name.startswith("otel.sdk.") and label in metric.labels
        ),
        "all telemetry arrives here: test_export_failures",
    ),
}
"""Names of the schema that nothing emits here, and why."""


def _seen_metrics(sent: Sent) -> Names:
    found: Names = set()
    for point in sent.points:
        found |= {(point.metric,), *((point.metric, key) for key in point.labels)}
    return found


def test_each_service_sends_only_metrics_and_labels_of_its_own(told: Told) -> None:
    allowed = _metric_names()
    for point in told.sent.points:
        names = {(point.metric,), *((point.metric, key) for key in point.labels)}
        assert not names - allowed[point.service], point.service


def test_metrics_pages_have_only_names_of_the_schema(told: Told) -> None:
    assert set(told.scraped) == set(schema.EVERY_SERVICE)
    for service, names in told.scraped.items():
        allowed: Names = set()
        for metric in schema.METRICS:
            name = names_of.series(metric).removesuffix("_total")
            allowed |= {(name,), *((name, names_of.label(key)) for key in metric.labels)}
        assert not names - allowed, service


def test_spans_and_events_have_only_names_of_the_schema(told: Told) -> None:
    assert not _seen_spans(told.sent) - _span_names()


def test_what_the_schema_names_is_emitted(told: Told) -> None:
    documented = set().union(*_metric_names().values()) | _span_names()
    seen = _seen_metrics(told.sent) | _seen_spans(told.sent)
    up = (schema.SERVICE_UP.name, schema.LABEL_SERVICE)
    seen |= (
        {up[:1], up, (up[0], schema.LABEL_INSTANCE)} & documented
        if any(up[:1] in names for names in told.scraped.values())
        else set()
    )
    gpu = {names for names in documented if names[0].startswith(GPU)}
    assert sorted(documented - seen) == sorted(gpu | UNSEEN.keys())
