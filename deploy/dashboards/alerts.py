"""Alerts: when somebody is told, how urgently, and where to look first."""

from collections.abc import Iterator
from typing import Any

from deploy.dashboards import names, others, slo
from deploy.dashboards.alert import Alert
from deploy.dashboards.boards import retrieval, spending, telemetry
from deploy.dashboards.promql import Where, happened, increase, maximum, rate, summed
from o11y.telemetry import schema

HOURLY_BUDGET_USD = 10.0
TENANT_BUDGET_USD = 5.0
"""Most that an hour may cost, overall and for each tenant: change them, and `make dashboards`."""

DAY_FACTOR = 5
DAY_USD = 1.0
"""A day of a tenant is unusual at so many times its median day, and above so many US dollars."""

FAILED = {schema.ERROR_TYPE: '!=""'}
SEARCH = {schema.LABEL_OPERATION: '="search"'}
GPU = [schema.HW_ID, "instance"]

NOT_FOR_ITSELF = {schema.LABEL_REASON: f'!~"{"|".join(schema.REJECTED_FOR_ITSELF)}"'}
NOT_FILTERED = {schema.LABEL_FILTER: '!="caller"'}
"""A caller alone must not wake anybody: with a prompt that is too long, or a filter that matches
nothing.
"""


def _lost(metric: schema.Metric, where: Where = FAILED) -> str:
    return f"({happened(metric, ['service_name'], where, '10m')})"


def _collector_lost(name: str) -> str:
    return f"sum by (exporter) (increase({others.collector(name)}[10m])) > 0"


OVER_BUDGET = {schema.LABEL_REASON: '="budget"'}
BUDGET_NAME = "The {{ $labels.period }} budget of {{ $labels.tenant }}, key {{ $labels.key }},"
CACHE_USED = summed(names.series(schema.MODEL_CACHE_USED), ["instance"])
CACHE_BLOCKS = summed(names.series(schema.MODEL_CACHE_BLOCKS), ["instance"])
ALERTS = [
    Alert(
        "SloBurnsFast",
        f"{slo.burning(14.4, '1h', '5m')} or {slo.burning(6, '6h', '30m')}",
        "2m",
        "page",
        "{{ $labels.slo }}: {{ $value | humanizePercentage }} of the requests fail the objective",
        "At this rate the error budget of 30 days is gone within days.",
        "o11y-slo",
    ),
    Alert(
        "SloBurnsSlowly",
        f"{slo.burning(3, '1d', '2h')} or {slo.burning(1, '3d', '6h')}",
        "15m",
        "ticket",
        "{{ $labels.slo }}: {{ $value | humanizePercentage }} of the requests fail the objective",
        "At this rate the error budget does not last its 30 days.",
        "o11y-slo",
    ),
    Alert(
        "CostAboveBudget",
        f"{increase(schema.OPENAI_COST)} > scalar({others.HOURLY_BUDGET})",
        "5m",
        "ticket",
        'LLM calls cost {{ $value | printf "%.2f" }} USD in the last hour: more than the budget',
        "The budget of an hour is set in deploy/dashboards/alerts.py.",
        "o11y-cost",
    ),
    Alert(
        "TenantCostAboveBudget",
        f"{increase(schema.OPENAI_COST, [schema.LABEL_TENANT])} > scalar({others.TENANT_BUDGET})",
        "5m",
        "ticket",
        'Tenant {{ $labels.tenant }} cost {{ $value | printf "%.2f" }} USD in the last hour',
        "That is more than the budget of a tenant, which deploy/dashboards/alerts.py sets.",
        "o11y-cost",
    ),
    Alert(
        "CallsWithoutPrice",
        happened(schema.OPENAI_UNPRICED, [schema.LABEL_PROVIDER, schema.LABEL_MODEL]),
        "0m",
        "ticket",
        "Nobody knows what {{ $labels.model }} of {{ $labels.provider }} costs",
        "Its calls are in no sum of cost, and in no budget.",
        "o11y-cost",
    ),
    Alert(
        "BudgetNearlyUsed",
        f"{spending.used({})} >= 0.8 < 1",
        "0m",
        "ticket",
        f"{BUDGET_NAME} is used to {{{{ $value | humanizePercentage }}}}",
        "Calls are refused when the most they can cost is no longer left.",
        "o11y-spending",
    ),
    Alert(
        "BudgetUsedUp",
        f"{spending.used({})} >= 1 or ({spending.used({})} >= 0.95"
        f" and on (tenant) ({happened(schema.ADMISSION_REFUSED, ['tenant'], OVER_BUDGET)}))",
        "0m",
        "ticket",
        f"{BUDGET_NAME} is used up: {{{{ $value | humanizePercentage }}}}",
        "Its calls are refused until it is filled again, or raised.",
        "o11y-spending",
    ),
    Alert(
        "TenantSpendsUnusually",
        f"{others.TENANT_DAY} > {DAY_FACTOR} * {spending.MEDIAN} > {DAY_USD}"
        f" and count_over_time({spending.WEEK}) >= 3",
        "0m",
        "ticket",
        'Tenant {{ $labels.tenant }} cost {{ $value | printf "%.2f" }} USD in the last 24 hours',
        f"That is more than {DAY_FACTOR} times the median day of its week.",
        "o11y-spending",
    ),
    Alert(
        "LedgerLags",
        f"{maximum(schema.LEDGER_LAG, ['instance'])} > 60",
        "5m",
        "page",
        "The ledger of {{ $labels.instance }} is {{ $value | humanizeDuration }} behind",
        "Its rows wait on disk; budgets can't be checked while the database is away.",
        "o11y-spending",
    ),
    Alert(
        "LimitStoreAway",
        f"min by (instance) ({names.series(schema.RATE_LIMIT_STORE_UP)}) == 0",
        "2m",
        "page",
        "The gateway {{ $labels.instance }} does not reach the store of its limits",
        "Calls pass uncounted or are refused, as the setting says.",
        "o11y-spending",
    ),
    Alert(
        "BreakerOpen",
        f"max by (provider) ({names.series(schema.OPENAI_CIRCUIT)}) == 2",
        "1m",
        "page",
        "Provider {{ $labels.provider }} fails so often that it is left alone",
        "Calls go to the next provider, or fail where there is none.",
        "o11y-cost",
    ),
    Alert(
        "QueueGrows",
        f"sum by (instance) ({names.series(schema.MODEL_WAITING)}) > 32",
        "5m",
        "ticket",
        "{{ $value }} sequences wait for the local model of {{ $labels.instance }}",
        "Callers wait longer for their first token than for the rest of the answer.",
        "o11y-inference",
    ),
    Alert(
        "CallsTurnedAway",
        happened(
            schema.MODEL_REJECTED, ["instance", schema.LABEL_REASON], NOT_FOR_ITSELF, over="10m"
        ),
        "0m",
        "page",
        "inference-svc turns calls away: {{ $labels.reason }}",
        "Its queue is full, or it can't work; callers get 429 or 503.",
        "o11y-inference",
    ),
    Alert(
        "CacheFull",
        f"{CACHE_USED} / {CACHE_BLOCKS} > 0.95",
        "10m",
        "ticket",
        "The key-value cache of {{ $labels.instance }} is {{ $value | humanizePercentage }} full",
        "Sequences are evicted and computed again; tokens come slower.",
        "o11y-inference",
    ),
    Alert(
        "EngineFails",
        happened(schema.MODEL_FAILURES, ["instance", schema.ERROR_TYPE], over="10m"),
        "0m",
        "page",
        "Steps of the local model fail at {{ $labels.instance }}: {{ $labels.error_type }}",
        "Every call that was in the step got an error.",
        "o11y-inference",
    ),
    Alert(
        "GpuMemoryFull",
        f"{summed(names.series(schema.GPU_MEMORY_USED), GPU)}"
        f" / {summed(names.series(schema.GPU_MEMORY_TOTAL), GPU)} > 0.95",
        "10m",
        "ticket",
        "GPU {{ $labels.hw_id }} has {{ $value | humanizePercentage }} of its memory in use",
        "The next large allocation fails.",
        "o11y-inference",
    ),
    Alert(
        "GpuHot",
        f"max by (hw_id, instance) ({names.series(schema.GPU_TEMPERATURE)}) > 87",
        "5m",
        "page",
        "GPU {{ $labels.hw_id }} has {{ $value }} degrees Celsius",
        "It slows itself down now, and switches off a few degrees later.",
        "o11y-inference",
    ),
    Alert(
        "RetrievalEmpty",
        f"{rate(schema.VECTOR_EMPTY, [schema.LABEL_COLLECTION], NOT_FILTERED, '15m')} / ("
        f"{rate(schema.VECTOR_OPERATION_DURATION, [schema.LABEL_COLLECTION], SEARCH, '15m')} > 0)"
        " > 0.2",
        "15m",
        "page",
        "{{ $labels.collection }}: {{ $value | humanizePercentage }} of the searches find nothing",
        "Answers are made without context, and sound as sure as before.",
        "o11y-retrieval",
    ),
    Alert(
        "RetrievalDrifts",
        f"({retrieval.mean_over(schema.VECTOR_TOP_SIMILARITY, '6h', chosen=False)})"
        f" / ({retrieval.mean_over(schema.VECTOR_TOP_SIMILARITY, '6h', '1w', chosen=False)}) < 0.8",
        "1h",
        "ticket",
        "Searches find documents {{ $value | humanizePercentage }} as similar as a week ago",
        "The questions have changed, or the documents, or the embedding model.",
        "o11y-retrieval",
    ),
    Alert(
        "TelemetryLost",
        " or ".join(
            [
                *(_lost(metric) for metric in telemetry.COUNTED),
                _lost(schema.EXPORT_DURATION, {schema.HTTP_STATUS: '!=""'}),
            ]
        ),
        "5m",
        "ticket",
        "{{ $labels.service_name }} loses telemetry",
        "Requests are not hurt; what the dashboards show of them is not complete.",
        "o11y-telemetry",
    ),
    Alert(
        "CollectorLoses",
        " or ".join(
            _collector_lost(f"exporter_{how}_{what}_total")
            for how in ("send_failed", "enqueue_failed")
            for what in ("spans", "metric_points", "log_records")
        ),
        "5m",
        "ticket",
        "The Collector throws away what {{ $labels.exporter }} does not take",
        "The backend refuses it, or was away for longer than the queue on disk lasts.",
        "o11y-telemetry",
    ),
    Alert(
        "BackendDown",
        f"{others.UP} == 0",
        "2m",
        "page",
        "{{ $labels.job }} does not answer at {{ $labels.instance }}",
        "Telemetry waits in queues; dashboards of it are empty.",
        "o11y-telemetry",
    ),
    Alert(
        "ServiceSilent",
        f"count by (service_name) ({names.series(schema.MEMORY_USED)} offset 15m)"
        f" unless count by (service_name) ({names.series(schema.MEMORY_USED)})",
        "5m",
        "page",
        "{{ $labels.service_name }} sends no metrics any more",
        "No replica of it runs, or none reaches the Collector.",
        "o11y-pipeline",
    ),
]


def groups() -> Iterator[dict[str, Any]]:
    """The budgets and what tenants spend as series, and the alerts."""
    yield {
        "name": "budgets",
        "rules": [
            {"record": others.HOURLY_BUDGET, "expr": f"vector({HOURLY_BUDGET_USD})"},
            {"record": others.TENANT_BUDGET, "expr": f"vector({TENANT_BUDGET_USD})"},
        ],
    }
    cost = increase(schema.OPENAI_COST, [schema.LABEL_TENANT], over="1d")
    yield {
        "name": "spending",
        "interval": "1m",
        "rules": [{"record": others.TENANT_DAY, "expr": cost}],
    }
    yield {"name": "alerts", "rules": [alert.json() for alert in ALERTS]}
