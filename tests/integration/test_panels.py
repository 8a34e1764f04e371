"""No panel is dead: every query of every dashboard, variable and rule finds something.

The services run, every scenario of the demo is played, and a real Prometheus scrapes the gateway.
What finds nothing then is listed with its reason, and alive after a second run that provokes it.
"""

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from pathlib import Path
from threading import Thread
from typing import Any

import httpx2
import pytest
import yaml
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import generate_latest

from deploy.dashboards import names, others, rules
from deploy.dashboards.grafana import DASHBOARDS
from deploy.dashboards.panels import Panel
from deploy.dashboards.prometheus import prometheus
from deploy.dashboards.querying import concrete
from deploy.demo.workload import SCENARIOS
from gateway.spending import ALL
from inference_svc.gpu import Gpus
from inference_svc.settings import Settings
from o11y.telemetry import schema
from o11y.telemetry.signals import Telemetry
from tests.support import openai_standin
from tests.support.collectors import Conduct, HttpCollector
from tests.support.house import House, call, services
from tests.support.nvml import FIRST, FakeGpu, FakeNvml
from tests.support.span_cases import CASES
from tests.support.unusual_calls import WHO, WINDOW, unusual
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus is missing: apt-get install prometheus"
)

OVER = "10m"
"""Longer than the test: a counter that counted once has counted in it."""

DAY = 24 * 3600
WEEK = 7 * DAY
NO_COLLECTOR = "the Collector is not here: its series are made up in the second run"
NO_GPU = "there is no GPU here: a stand-in for its driver is read in the second run"
NO_KEYS = "nobody has a key, a budget or a ledger here: made up in the second run"
NO_ERROR = "nothing of this kind happens in the demo"
QUIET = {
    "LLM cost and tokens: Fallbacks": NO_ERROR,
    "LLM cost and tokens: First event of a stream, 95 %": NO_ERROR,
    "LLM cost and tokens: Retries": NO_ERROR,
    "Local inference and GPU: Failed steps": NO_ERROR,
    "Local inference and GPU: Given up": NO_ERROR,
    "Local inference and GPU: GPU memory": NO_GPU,
    "Local inference and GPU: GPU power": NO_GPU,
    "Local inference and GPU: GPU temperature": NO_GPU,
    "Local inference and GPU: GPU utilisation": NO_GPU,
    "Local inference and GPU: Memory of PyTorch on the GPU": NO_GPU,
    "Pipeline: Spans by service": NO_COLLECTOR,
    "SLO: Alerts firing": NO_ERROR,
    "Telemetry itself: Exports refused": NO_ERROR,
    "Telemetry itself: Log records and metric points lost": NO_ERROR,
    "Telemetry itself: Memory of the Collector": NO_COLLECTOR,
    "Telemetry itself: Not taken by backends": NO_COLLECTOR,
    "Telemetry itself: Queues": NO_COLLECTOR,
    "Telemetry itself: Refused": NO_COLLECTOR,
    "Telemetry itself: Sent to backends": NO_COLLECTOR,
    "Telemetry itself: Spans in": NO_COLLECTOR,
    "Telemetry itself: Spans lost": NO_ERROR,
    "Telemetry itself: Taken": NO_COLLECTOR,
    "Telemetry itself: Traces kept": NO_COLLECTOR,
    "Telemetry itself: Traces kept and dropped": NO_COLLECTOR,
    "Telemetry itself: Traces kept, by why": NO_COLLECTOR,
    "Telemetry itself: Traces that wait for a decision": NO_COLLECTOR,
    **dict.fromkeys(
        (
            f"Who spends: {panel}"
            for panel in (
                *("Today", "This month", "Nearest to its end", "The ledger is behind"),
                *("Today, by tenant", "Tenants", "Today, by key", "Keys"),
                *("Budgets", "Spent of budgets", "Reserved by running calls"),
                *("Rows that wait", "Lag", "Rows recovered"),
            )
        ),
        NO_KEYS,
    ),
    "Who spends: Refused, by why": NO_ERROR,
    "Who spends: Store of the limits": NO_ERROR,
}
"""Panels with a query that may find nothing after the demo, and why."""

PROMQL = {"and", "or", "unless", "offset", "bool"}
"""Words of PromQL that stand where names do; functions have a bracket after them."""


@dataclass(frozen=True)
class Query:
    """One query, and where it is from."""

    where: str
    expression: str


def queries() -> list[Query]:
    """Of every panel."""
    return [
        Query(f"{dashboard.title}: {panel.title}", target["expr"])
        for dashboard in DASHBOARDS
        for panel in dashboard.panels
        if isinstance(panel, Panel)
        for target in panel.targets
        if target["datasource"]["type"] == "prometheus"
    ]


def rule_queries() -> list[Query]:
    return [
        Query(rule.get("record") or rule["alert"], rule["expr"])
        for path in rules.files()
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    ]


class Metrics:
    """What Prometheus has."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str, **parameters: str) -> Any:
        answer = httpx2.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=30)
        assert answer.is_success, answer.text
        return answer.json()["data"]

    def finds(self, expression: str) -> bool:
        """Whether there is a number; a quantile of nothing is none."""
        result = self.ask("query", query=concrete(expression, OVER))["result"]
        return any(each["value"][1] not in ("NaN", "+Inf", "-Inf") for each in result)

    def names(self) -> set[str]:
        return set(self.ask("label/__name__/values"))

    def dead(self) -> set[str]:
        return {query.where for query in queries() if not self.finds(query.expression)}


@dataclass(frozen=True)
class Run:
    """The house under Prometheus' eyes."""

    metrics: Metrics
    house: House
    collector: HttpCollector
    page: "Page"


@pytest.fixture(scope="module")
def after_the_demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("panels")
    collector = HttpCollector()
    exports = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_BLRP_SCHEDULE_DELAY": "100",
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        # So few that they are full when nobody takes them.
        "OTEL_BSP_MAX_QUEUE_SIZE": "30",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "15",
        "OTEL_BLRP_MAX_QUEUE_SIZE": "20",
        "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE": "10",
    }
    try:
        with (
            openai_standin.running() as first,
            openai_standin.running() as second,
            services(folder, first, second, exports) as gateways,
            made_up() as page,
        ):
            house = House("", gateways, first, second)
            scraped = {"gateway": f"{gateways[False]}/metrics", "made-up": f"{page.url}/metrics"}
            a_week_ago(folder)
            with prometheus(folder, scraped, hurried(folder)) as url:
                metrics = Metrics(url)
                for _ in range(2):  # what is counted once has no rate
                    demo(house)
                    seen(metrics)
                yield Run(metrics, house, collector, page)
    finally:
        collector.stop()


def demo(house: House) -> None:
    with httpx2.Client(base_url=house.gateways[False], headers=WHO, timeout=30) as client:
        for scenario in SCENARIOS.values():
            for one in chain.from_iterable(scenario(WINDOW)):
                client.request(
                    one.method, one.path, json=one.json, params=one.params, content=one.content
                )


def seen(metrics: Metrics) -> None:
    """Wait until Prometheus has scraped what is there now, and computed its rules."""
    expression = f"timestamp(o11y_service_up) > {time.time() + 2}"
    until(lambda: bool(metrics.ask("query", query=expression)["result"]), 20)


def hurried(folder: Path) -> list[Path]:
    """The rules, computed every second."""
    hurried = []
    for path in rules.files():
        content = yaml.safe_load(path.read_text())
        for group in content["groups"]:
            group["interval"] = "1s"
        copy = folder / path.name
        copy.write_text(yaml.safe_dump(content))
        hurried.append(copy)
    return hurried


def a_week_ago(folder: Path) -> None:
    """Searches and spending of last week, in Prometheus' data before it starts."""
    today = int(time.time()) // DAY * DAY
    now = int(time.time()) - WEEK
    series = names.series(schema.VECTOR_TOP_SIMILARITY)
    lines = [f"# TYPE {series} histogram"]
    for part, each in (("bucket", 1.0), ("count", 1.0), ("sum", 0.7)):
        bound = ',le="+Inf"' if part == "bucket" else ""
        labels = f'{{collection="documents",service_name="vector-svc"{bound}}}'
        lines += [
            f"{series}_{part}{labels} {each * step} {now - 3600 + 60 * step}" for step in range(120)
        ]
    lines.append(f"# TYPE {others.TENANT_DAY} gauge")
    tenant = WHO["x-tenant-id"]
    for days in range(6, 0, -1):
        lines.append(f'{others.TENANT_DAY}{{tenant="{tenant}"}} 0.01 {today - days * DAY}')
    file = folder / "last-week.txt"
    file.write_text("\n".join([*lines, "# EOF", ""]))
    command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(file)]
    subprocess.run([*command, str(folder / "data")], check=True, capture_output=True, timeout=60)


@dataclass
class Page:
    """A page of metrics, empty until it is filled."""

    url: str
    told: bool = False


@contextmanager
def made_up() -> Iterator[Page]:
    """Series of what is not here: the Collector's and PyTorch's are made up and only show that the
    queries fit them; the GPU's come from our code over a stand-in for the driver.
    """
    telemetry = Telemetry("inference-svc", Settings(), metric_readers=[InMemoryMetricReader()])
    gpus = Gpus("cuda:0", {"cuda:0": FIRST}, FakeNvml(FakeGpu(f"GPU-{FIRST}")), time.monotonic)
    gpus.observe(telemetry)
    gpus.start()
    began = time.time()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            since = time.time() - began
            text = generate_latest(telemetry.registry).decode() + collected(since)
            self.send_response(200)
            self.send_header("content-type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(text.encode() if page.told else b"")

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    page = Page(f"http://127.0.0.1:{server.server_port}")
    thread = Thread(target=server.serve_forever, args=[0.05])
    thread.start()
    try:
        yield page
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        gpus.close()
        telemetry.shutdown()


def collected(since: float) -> str:
    """Counters of the Collector, one more each second, and what no run here makes happen."""
    labels = 'exporter="otlp_grpc/tempo",policy="errors",sampled="true"'
    lines = [f"otelcol_{name}{{{labels}}} {since}" for name in others.COLLECTOR]
    lines.append(
        f'{others.SPAN_CALLS}{{service_name="gateway",span_kind="SPAN_KIND_SERVER"}} {since}'
    )
    failures, torch = names.series(schema.MODEL_FAILURES), names.series(schema.TORCH_MEMORY)
    lines.append(f'{failures}{{model="m",device="cuda:0",error_type="RuntimeError"}} {since}')
    lines.append(f'{torch}{{device="cuda:0",state="allocated"}} 1e9')
    return "\n".join([*lines, *spent(since), ""])


def spent(since: float) -> Iterator[str]:
    """What a tenant and its key spend, a ledger that lags, and a store of limits that is away."""
    for key in (ALL, "ci"):
        owner = f'tenant="house",key="{key}"'
        yield f"{names.series(schema.BUDGET_RESERVED)}{{{owner}}} 1"
        for period in ("day", "month", "total"):
            budget = f'{{{owner},period="{period}"}}'
            yield f"{names.series(schema.SPEND)}{budget} 9"
            yield f"{names.series(schema.BUDGET_LIMIT)}{budget} 9.000001"
            yield f"{names.series(schema.BUDGET_REMAINING)}{budget} 0.000001"
    refused = names.series(schema.ADMISSION_REFUSED)
    yield f'{refused}{{service_name="llm-proxy",reason="budget"}} {since}'
    yield f"{names.series(schema.LEDGER_RECOVERED)} {since}"
    for metric in (schema.LEDGER_QUEUE, schema.LEDGER_LAG, schema.RATE_LIMIT_STORE_UP):
        yield f"{names.series(metric)} 0"


def test_after_the_demo_only_quiet_panels_are_empty(after_the_demo: Run) -> None:
    dead = after_the_demo.metrics.dead()
    assert dead <= QUIET.keys()
    assert {where for where, why in QUIET.items() if why != NO_ERROR} <= dead


@pytest.fixture(scope="module")
def after_trouble(after_the_demo: Run) -> Run:
    """Everything that can go wrong has, and what is not here is made up."""
    run = after_the_demo
    run.page.told = True
    conducts: tuple[Conduct, ...] = ("forbids", "hangs")
    for run.collector.conduct in conducts:
        for method, path, body in unusual():
            httpx2.request(method, run.house.gateways[False] + path, json=body, timeout=30)
        for case in CASES:
            run.house.first.next.extend(case.first)
            run.house.second.next.extend(case.second)
            call(run.house, case, {"content-type": "application/json", **WHO})
        seen(run.metrics)
    run.collector.recover()
    return run


def test_after_trouble_no_panel_is_empty(after_trouble: Run) -> None:
    assert after_trouble.metrics.dead() == set()


def test_every_variable_has_values(after_trouble: Run) -> None:
    for dashboard in DASHBOARDS:
        for variable in dashboard.variables:
            values = after_trouble.metrics.ask(
                f"label/{variable.label}/values", **{"match[]": concrete(variable.metric, OVER)}
            )
            assert values, f"{dashboard.title}: {variable.name}"


def test_every_recording_rule_finds_something(after_trouble: Run) -> None:
    recorded = {query.where for query in rule_queries() if ":" in query.where}
    assert recorded
    assert recorded <= after_trouble.metrics.names()


def test_every_name_in_an_alert_is_there(after_trouble: Run) -> None:
    there = after_trouble.metrics.names()
    for query in rule_queries():
        after_trouble.metrics.ask("query", query=query.expression)
        assert named(query.expression) <= there, query.where


def named(expression: str) -> set[str]:
    """The metrics a query names, one in `__name__=~"…"` by the shortest name that fits."""
    matched = re.findall(r'__name__=~"([^"]*)"', expression)
    names = {re.sub(r"\([^)]*\)\?", "", pattern) for pattern in matched}
    rest = re.sub(r'"[^"]*"', "", expression)
    rest = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\boffset \w+", "", rest)
    rest = re.sub(r"\b(by|on|ignoring|group_left|group_right|without) ?\([^)]*\)", "", rest)
    words = re.findall(r"(?<![\w.])([a-zA-Z_:][\w:]*)(?!\w*\s*\()", rest)
    return names | {word for word in words if word not in PROMQL}
