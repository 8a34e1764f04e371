"""Alerts, by promtool: each fires when it must and stays silent when it must."""

import json
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from deploy.dashboards import alerts, rules, slo
from deploy.dashboards.grafana import DASHBOARDS
from inference_svc.admission import Admission, Rejected
from o11y.http import deadline
from o11y.telemetry import schema
from tests.unit.dashboards.promtool import complaints, given, needs_promtool

RUNBOOK = rules.FOLDER.parents[1] / "RUNBOOK.md"


@dataclass(frozen=True)
class Case:
    """Series (promtool's notation), and which labels the alert has at `at`, if any."""

    alert: str
    series: dict[str, str]
    at: str
    labels: list[dict[str, str]] = field(default_factory=list)
    every: str = "1m"
    """Between two values; alerts about days need fewer of them."""

    @property
    def name(self) -> str:
        return f"{self.alert} {'fires' if self.labels else 'is silent'}"


def requests(service: str, good: int, bad: int, route: str = "/full-pipeline") -> dict[str, str]:
    """Requests a minute, quick ones, for as long as any case needs."""
    common = f'service_name="{service}", http_route="{route}"'
    name = "http_server_request_duration_seconds"
    both = f"0+{good + bad}x600"
    return {
        f'{name}_count{{{common}, http_response_status_code="200"}}': f"0+{good}x600",
        f'{name}_count{{{common}, http_response_status_code="500"}}': f"0+{bad}x600",
        f'{name}_bucket{{{common}, http_response_status_code="200", le="0.5"}}': both,
        f'{name}_bucket{{{common}, http_response_status_code="200", le="10.0"}}': both,
    }


def out_of_time(each_minute: int, error_type: str) -> dict[str, str]:
    """Pipeline calls answered with 504."""
    name = "http_server_request_duration_seconds_count"
    labels = 'service_name="gateway", http_route="/full-pipeline", http_response_status_code="504"'
    return rising(f'{name}{{{labels}, error_type="{error_type}"}}', each_minute)


def slow(service: str, quick: int, others: int) -> dict[str, str]:
    """Requests a minute of which `others` take longer than any objective permits."""
    name, common = "http_server_request_duration_seconds", f'service_name="{service}"'
    return {
        f'{name}_count{{{common}, http_response_status_code="200"}}': f"0+{quick + others}x600",
        f'{name}_bucket{{{common}, http_response_status_code="200", le="0.5"}}': f"0+{quick}x600",
        f'{name}_bucket{{{common}, http_response_status_code="200", le="10"}}': f"0+{quick}x600",
    }


def steady(series: str, value: float, minutes: int = 120) -> dict[str, str]:
    return {series: f"{value}+0x{minutes}"}


def rising(series: str, by: float, minutes: int = 120) -> dict[str, str]:
    return {series: f"0+{by}x{minutes}"}


def a_week(now: float, before: float) -> dict[str, str]:
    """Ten searches every ten minutes: their mean top similarity, and that of a week before."""
    name = 'vector_search_top_similarity{}_{}{{collection="documents"}}'.replace("{}_", "_", 1)
    return {
        name.format("count"): "0+10x1080",
        name.format("sum"): f"0+{10 * before:g}x432 {before * 4320:g}+{10 * now:g}x648",
    }


def budget(spent: float, limit: float, key: str = "ci") -> dict[str, str]:
    """A key's budget of a day, told by two replicas of the gateway."""
    labels = f'tenant="acme", key="{key}", period="day"'
    return {
        f'{name}{{{labels}, instance="{replica}"}}': f"{value}+0x120"
        for name, value in (("spend_usd", spent), ("budget_limit_usd", limit))
        for replica in ("a", "b")
    }


def days(*usd: float) -> dict[str, str]:
    """What a tenant costs in each 24 hours, the last of which end at 9d6h."""
    silent = 1 + 6 * (9 * 24 + 6 - 24 * len(usd))
    values, total = [f"_x{silent - 1}" if silent > 1 else "", "0"], 0.0
    for each in usd:
        values.append(f"{total + each / 144:.9g}+{each / 144:.9g}x143")
        total += each
    return {f'{COST}acme"}}': " ".join(filter(None, values))}


PAGE, TICKET = {"severity": "page"}, {"severity": "ticket"}
GPU = {"hw_id": "GPU-1", "instance": "i"}
ON_GPU = '{hw_id="GPU-1", instance="i", device="cuda:0"}'
ON_MODEL = '{model="m", device="cpu", instance="i"}'
COST = 'openai_cost_usd_total{provider="p", model="m", operation="chat", tenant="'
SEARCHES = 'vector_operation_duration_seconds_count{operation="search", collection="documents"}'
EMPTY = 'vector_search_empty_total{collection="documents", filter="none"}'
EMPTY_BY_CALLER = EMPTY.replace("none", "caller")
LOST = 'otel_sdk_exporter_span_exported_total{service_name="gateway", error_type="timeout"}'
REJECTED = f'model_requests_rejected_total{ON_MODEL[:-1]}, reason="busy"}}'
FAILURES = f'model_engine_failures_total{ON_MODEL[:-1]}, error_type="RuntimeError"}}'
UNPRICED = 'openai_unpriced_calls_total{provider="p", model="m", operation="chat"}'
OF_TENANT = {"tenant": "acme"}
OF_KEY = OF_TENANT | {"key": "ci", "period": "day"}
REFUSED = 'admission_refused_total{service_name="llm-proxy", reason="budget", tenant="acme"}'
REFUSED_ANOTHER = REFUSED.replace("acme", "zoo")
REFUSED_KEY = 'admission_refused_total{service_name="gateway", reason="invalid_key"}'
LAG = 'ledger_lag_seconds{service_name="llm-proxy", instance="i"}'
LIMITS = 'rate_limit_store_up{service_name="gateway", instance="i"}'
UP = 'up{job="tempo", instance="tempo:3200"}'
MEMORY = 'memory_used_bytes{service_name="gateway", instance="i"}'

CASES = [
    Case(
        "SloBurnsFast",
        requests("gateway", 90, 10),
        "1h5m",
        [PAGE | {"slo": "pipeline-availability"}],
    ),
    Case("SloBurnsFast", requests("gateway", 1000, 3), "1h5m"),
    Case("SloBurnsFast", requests("gateway", 0, 0), "1h5m"),
    Case(
        "SloBurnsFast",
        requests("gateway", 90, 0) | out_of_time(10, "504"),
        "1h5m",
        [PAGE | {"slo": "pipeline-availability"}],
    ),
    Case(
        "SloBurnsFast",
        requests("gateway", 90, 0) | out_of_time(10, schema.ERROR_CALLER_DEADLINE),
        "1h5m",
    ),
    Case(
        "SloBurnsFast",
        requests("llm-proxy", 100, 0, "/chat") | slow("vector-svc", 80, 20),
        "1h5m",
        [PAGE | {"slo": "vector-svc-latency"}],
    ),
    Case(
        "SloBurnsSlowly",
        requests("gateway", 9900, 100),
        "3d1h",
        [TICKET | {"slo": "pipeline-availability"}],
        "10m",
    ),
    Case("SloBurnsSlowly", requests("gateway", 9980, 20), "3d1h", every="10m"),
    Case("CostAboveBudget", rising(f'{COST}a"}}', 0.2), "1h30m", [TICKET]),
    Case("CostAboveBudget", rising(f'{COST}a"}}', 0.1), "1h30m"),
    Case(
        "TenantCostAboveBudget",
        rising(f'{COST}a"}}', 0.1) | rising(f'{COST}b"}}', 0.01),
        "1h30m",
        [TICKET | {"tenant": "a"}],
    ),
    Case("TenantCostAboveBudget", rising(f'{COST}a"}}', 0.05), "1h30m"),
    Case(
        "CallsWithoutPrice",
        {UNPRICED: "_x10 1+0x100"},
        "15m",
        [TICKET | {"provider": "p", "model": "m"}],
    ),
    Case("CallsWithoutPrice", steady(UNPRICED, 7), "1h30m"),
    Case("BudgetNearlyUsed", budget(8.5, 10), "5m", [TICKET | OF_KEY]),
    Case(
        "BudgetNearlyUsed",
        budget(85, 100, "_all") | budget(1, 10),
        "5m",
        [TICKET | OF_KEY | {"key": "_all"}],
    ),
    Case("BudgetNearlyUsed", budget(7.9, 10), "5m"),
    Case("BudgetNearlyUsed", budget(10, 10), "5m"),
    Case("BudgetNearlyUsed", budget(0, 0), "5m"),
    Case("BudgetUsedUp", budget(10, 10), "5m", [TICKET | OF_KEY]),
    Case("BudgetUsedUp", budget(10.1, 10), "5m", [TICKET | OF_KEY]),
    Case("BudgetUsedUp", budget(9.6, 10) | {REFUSED: "_x5 1+0x20"}, "7m", [TICKET | OF_KEY]),
    Case("BudgetUsedUp", budget(9.6, 10) | {REFUSED_KEY: "_x5 1+0x20"}, "7m"),
    Case("BudgetUsedUp", budget(9.6, 10) | {REFUSED_ANOTHER: "_x5 1+0x20"}, "7m"),
    Case("BudgetUsedUp", budget(9.6, 10), "5m"),
    Case("BudgetUsedUp", budget(9, 10) | {REFUSED: "_x5 1+0x20"}, "7m"),
    Case("BudgetUsedUp", budget(0, 0), "5m"),
    Case("BudgetUsedUp", budget(3, 0), "5m"),
    Case(
        "TenantSpendsUnusually",
        days(1, 1, 1, 1, 1, 1, 1, 1, 6),
        "9d6h",
        [TICKET | OF_TENANT],
        "10m",
    ),
    Case("TenantSpendsUnusually", days(1, 1, 1, 1, 1, 1, 1, 1, 4.5), "9d6h", every="10m"),
    Case(
        "TenantSpendsUnusually",
        days(1, 1, 1, 90, 1, 1, 1, 1, 6),  # the mean is not the median
        "9d6h",
        [TICKET | OF_TENANT],
        "10m",
    ),
    Case("TenantSpendsUnusually", days(*[0.1] * 8, 0.9), "9d6h", every="10m"),
    Case("TenantSpendsUnusually", days(*[0] * 8, 2), "9d6h", [TICKET | OF_TENANT], "10m"),
    Case("TenantSpendsUnusually", days(*[0] * 8, 0.9), "9d6h", every="10m"),
    Case("TenantSpendsUnusually", days(1, 1, 30), "9d6h", every="10m"),
    Case("TenantSpendsUnusually", days(30), "9d6h", every="10m"),
    Case("LedgerLags", steady(LAG, 90), "10m", [PAGE | {"instance": "i"}]),
    Case("LedgerLags", steady(LAG, 50), "10m"),
    Case("LedgerLags", {LAG: "0 90+0x3 0+0x20"}, "10m"),
    Case("LimitStoreAway", steady(LIMITS, 0), "5m", [PAGE | {"instance": "i"}]),
    Case("LimitStoreAway", {LIMITS: "1 0 1+0x20"}, "5m"),
    Case("LimitStoreAway", steady(LIMITS, 1), "5m"),
    Case(
        "BreakerOpen",
        steady('openai_circuit_state{provider="p"}', 2),
        "5m",
        [PAGE | {"provider": "p"}],
    ),
    Case("BreakerOpen", {'openai_circuit_state{provider="p"}': "0 2 1 0+0x20"}, "5m"),
    Case(
        "QueueGrows",
        steady(f"model_queue_depth{ON_MODEL}", 40),
        "10m",
        [TICKET | {"instance": "i"}],
    ),
    Case("QueueGrows", steady(f"model_queue_depth{ON_MODEL}", 30), "10m"),
    Case(
        "CallsTurnedAway",
        {REJECTED: "_x5 1+0x20"},
        "7m",
        [PAGE | {"instance": "i", "reason": "busy"}],
    ),
    Case("CallsTurnedAway", steady(REJECTED, 5), "1h"),
    *(
        Case("CallsTurnedAway", rising(REJECTED.replace("busy", reason), 5), "20m")
        for reason in schema.REJECTED_FOR_ITSELF
    ),
    Case(
        "CacheFull",
        steady(f"model_cache_blocks_used{ON_MODEL}", 99)
        | steady(f"model_cache_blocks{ON_MODEL}", 100),
        "20m",
        [TICKET | {"instance": "i"}],
    ),
    Case(
        "CacheFull",
        steady(f"model_cache_blocks_used{ON_MODEL}", 0)
        | steady(f"model_cache_blocks{ON_MODEL}", 100),
        "20m",
    ),
    Case(
        "EngineFails",
        {FAILURES: "_x5 1+0x20"},
        "7m",
        [PAGE | {"instance": "i", "error_type": "RuntimeError"}],
    ),
    Case("EngineFails", steady(FAILURES, 3), "1h"),
    Case(
        "GpuMemoryFull",
        steady(f"gpu_memory_used_bytes{ON_GPU}", 79e9)
        | steady(f"gpu_memory_total_bytes{ON_GPU}", 80e9),
        "20m",
        [TICKET | GPU],
    ),
    Case(
        "GpuMemoryFull",
        steady(f"gpu_memory_used_bytes{ON_GPU}", 70e9)
        | steady(f"gpu_memory_total_bytes{ON_GPU}", 80e9),
        "20m",
    ),
    Case("GpuHot", steady(f"gpu_temperature_celsius{ON_GPU}", 90), "10m", [PAGE | GPU]),
    Case("GpuHot", steady(f"gpu_temperature_celsius{ON_GPU}", 80), "10m"),
    Case(
        "RetrievalEmpty",
        rising(SEARCHES, 10) | rising(EMPTY, 3),
        "40m",
        [PAGE | {"collection": "documents"}],
    ),
    Case("RetrievalEmpty", rising(SEARCHES, 10) | rising(EMPTY, 1), "40m"),
    Case("RetrievalEmpty", steady(SEARCHES, 10) | steady(EMPTY, 3), "40m"),
    Case("RetrievalEmpty", rising(SEARCHES, 10) | rising(EMPTY_BY_CALLER, 9), "40m"),
    Case("RetrievalDrifts", a_week(0.4, 0.7), "7d3h", [TICKET], "10m"),
    Case("RetrievalDrifts", a_week(0.65, 0.7), "7d3h", every="10m"),
    Case("TelemetryLost", rising(LOST, 5), "20m", [TICKET | {"service_name": "gateway"}]),
    Case("TelemetryLost", steady(LOST, 5), "40m"),
    Case(
        "CollectorLoses",
        rising('otelcol_exporter_send_failed_spans_total{exporter="otlp_grpc/tempo"}', 5),
        "20m",
        [TICKET | {"exporter": "otlp_grpc/tempo"}],
    ),
    Case(
        "CollectorLoses",
        steady('otelcol_exporter_send_failed_spans_total{exporter="x"}', 0),
        "20m",
    ),
    Case("BackendDown", steady(UP, 0), "5m", [PAGE | {"job": "tempo", "instance": "tempo:3200"}]),
    Case("BackendDown", {UP: "1 0 1+0x20"}, "5m"),
    Case("ServiceSilent", {MEMORY: "5+0x20 stale"}, "30m", [PAGE | {"service_name": "gateway"}]),
    Case("ServiceSilent", steady(MEMORY, 5), "30m"),
]


@pytest.mark.slow
@needs_promtool
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_alert_fires_when_it_must_and_is_silent_when_it_must(case: Case, tmp_path: Path) -> None:
    expected = [
        {
            "labels": "ALERTS"
            + json.dumps(labels | {"alertname": case.alert, "alertstate": "firing"})
            .replace('": "', '"="')
            .replace('{"', "{")
            .replace('", "', '", ')
            .replace('"="', '="'),
            "value": 1,
        }
        for labels in case.labels
    ]
    asked = {
        "expr": f'ALERTS{{alertname="{case.alert}", alertstate="firing"}}',
        "eval_time": case.at,
        "exp_samples": expected,
    }
    of_slos = case.alert.startswith("Slo")
    test = {
        "rule_files": [str(path) for path in rules.files() if of_slos or path.stem != "slo"],
        "evaluation_interval": case.every,
        # What is recorded first: of ten minutes ago an alert would find nothing.
        "group_eval_order": [
            *(["slo", "slo-budget"] if of_slos else []),
            "budgets",
            "spending",
            "alerts",
        ],
        "tests": [
            {
                "interval": case.every,
                "input_series": given(case.series),
                "promql_expr_test": [asked],
            }
        ],
    }
    assert complaints(test, tmp_path) == ""


@needs_promtool
def test_promtool_finds_nothing_wrong_with_the_rules() -> None:
    words = ["promtool", "check", "rules", *map(str, rules.files())]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    every = {alert.name for alert in alerts.ALERTS}
    assert {case.alert for case in CASES if case.labels} == every
    assert {case.alert for case in CASES if not case.labels} == every


def test_what_lies_in_the_call_is_what_admission_refuses_it_for() -> None:
    """The rest turns others away as well, and is told at once."""
    codes: dict[str, int] = {}

    def refused(lengths: list[tuple[int, int]], failure: str | None = None) -> None:
        with pytest.raises(Rejected) as raised:
            admission.enter(lengths, failure)
        codes[raised.value.code] = raised.value.status

    admission = Admission("m", window=100, capacity=50, most=1)
    for prompt in (0, 60, 100):
        refused([(prompt, 1)])
    refused([(1, 1)], failure="out of memory")
    refused([(1, 1), (1, 1)])
    with deadline.within(0):
        refused([(1, 1)])
    admission.stopping = True
    refused([(1, 1)])
    assert set(codes) - {"busy", "stopping", "unavailable"} == set(schema.REJECTED_FOR_ITSELF)


def test_every_alert_has_its_section_in_the_runbook_and_no_section_is_left_over() -> None:
    sections = re.findall(r"(?m)^## (\w+)$", RUNBOOK.read_text())
    assert sections == [alert.name for alert in alerts.ALERTS]


def test_every_alert_names_a_dashboard_there_is() -> None:
    known = {dashboard.uid for dashboard in DASHBOARDS}
    assert {alert.dashboard for alert in alerts.ALERTS} <= known


def test_a_latency_objective_needs_a_bucket_at_its_bound() -> None:
    assert 10 in schema.HTTP_SERVER_DURATION.buckets
    with pytest.raises(ValueError, match="no bucket of 9 s"):
        slo.latency({}, 9)
