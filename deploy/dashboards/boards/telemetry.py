"""Does telemetry itself arrive, and what is thrown away on the way?"""

from deploy.dashboards import names, others
from deploy.dashboards.others import collector
from deploy.dashboards.page import Dashboard
from deploy.dashboards.panels import Row, query, stat, timeseries
from deploy.dashboards.promql import rate
from o11y.telemetry import schema

OVER = "[$__rate_interval]"
LOST = {schema.ERROR_TYPE: '!=""'}
REFUSED = {schema.HTTP_STATUS: '!=""'}
"""Exports over HTTP that were answered by an error: their records have no error.type."""
TRACES = "processor_tail_sampling_global_count_traces_sampled_total"
SAMPLED = 'sampled="true"'
COUNTED = (
    schema.SPANS_PROCESSED,
    schema.SPANS_EXPORTED,
    schema.LOGS_PROCESSED,
    schema.LOGS_EXPORTED,
    schema.POINTS_EXPORTED,
)
"""The SDK's counters of what it handles; with an error.type they count what is lost."""
SIGNALS = ("spans", "metric_points", "log_records")


def _each(stem: str) -> list[str]:
    return [f"{stem}_{signal}_total" for signal in SIGNALS]


def _shown(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).removesuffix("_total")


DASHBOARD = Dashboard(
    "o11y-telemetry",
    "Telemetry itself",
    "What services send, what the Collector keeps, and what is lost.",
    [
        stat(
            "Spans in",
            "Spans the Collector takes a second.",
            "short",
            query(f"sum(rate({collector('receiver_accepted_spans_total')}{OVER}))"),
            width=6,
        ),
        stat(
            "Traces kept",
            "Share of the traces that tail sampling keeps.",
            "percentunit",
            query(
                f"sum(rate({collector(TRACES, SAMPLED)}{OVER}))"
                f" / sum(rate({collector(TRACES)}{OVER}))"
            ),
            width=6,
        ),
        stat(
            "Lost by services",
            "A second: spans, log records and metric points that were dropped or that nobody took, "
            "and exports that were answered by an error.",
            "short",
            query(
                " + ".join(f"({rate(metric, where=LOST)} or vector(0))" for metric in COUNTED)
                + f" + ({rate(schema.EXPORT_DURATION, where=REFUSED)} or vector(0))"
            ),
            width=6,
            thresholds=[(0.001, "red")],
        ),
        stat(
            "Lost by the Collector",
            "Spans, log records and metric points a second that no backend took.",
            "short",
            query(
                " + ".join(
                    f"(sum(rate({collector(name)}{OVER})) or vector(0))"
                    for name in _each("exporter_send_failed") + _each("exporter_enqueue_failed")
                )
            ),
            width=6,
            thresholds=[(0.001, "red")],
        ),
        Row("Services"),
        timeseries(
            "Spans sent",
            "Spans a second whose export ended without an error, by service.",
            "short",
            query(
                rate(schema.SPANS_EXPORTED, ["service_name"], {schema.ERROR_TYPE: '=""'}),
                "{{service_name}}",
            ),
        ),
        timeseries(
            "Spans lost",
            "Spans a second that did not arrive, by service and why.",
            "short",
            query(
                rate(schema.SPANS_PROCESSED, ["service_name", schema.ERROR_TYPE], LOST),
                "{{service_name}} {{error_type}} before sending",
            ),
            query(
                rate(schema.SPANS_EXPORTED, ["service_name", schema.ERROR_TYPE], LOST),
                "{{service_name}} {{error_type}}",
            ),
        ),
        timeseries(
            "Log records and metric points lost",
            "A second, by service and why.",
            "short",
            *(
                query(
                    rate(metric, ["service_name", schema.ERROR_TYPE], LOST),
                    f"{what} {{{{service_name}}}} {{{{error_type}}}}",
                )
                for what, metric in (
                    ("log records", schema.LOGS_PROCESSED),
                    ("log records", schema.LOGS_EXPORTED),
                    ("metric points", schema.POINTS_EXPORTED),
                )
            ),
        ),
        timeseries(
            "Exports refused",
            "A second, by service, what sent it and the status that was answered: all records of "
            "an export are lost.",
            "short",
            query(
                rate(
                    schema.EXPORT_DURATION,
                    ["service_name", schema.COMPONENT_TYPE, schema.HTTP_STATUS],
                    REFUSED,
                ),
                "{{service_name}} {{otel_component_type}} {{http_response_status_code}}",
            ),
        ),
        timeseries(
            "Queues of services",
            "How full the queues of spans and log records are, by replica.",
            "percentunit",
            *(
                query(
                    f"max by (service_name, instance) ({names.series(waiting)})"
                    f" / max by (service_name, instance) ({names.series(room)})",
                    f"{{{{service_name}}}} {{{{instance}}}} {what}",
                )
                for what, waiting, room in (
                    ("spans", schema.SPANS_WAITING, schema.SPANS_ROOM),
                    ("log records", schema.LOGS_WAITING, schema.LOGS_ROOM),
                )
            ),
            limits={"min": 0, "max": 1},
        ),
        timeseries(
            "Memory of services",
            "Resident memory, by replica.",
            "bytes",
            query(
                f"max by (service_name, instance) ({names.series(schema.MEMORY_USED)})",
                "{{service_name}} {{instance}}",
            ),
        ),
        timeseries(
            "CPU of services",
            "In percent of one core, by replica.",
            "percent",
            query(
                f"max by (service_name, instance) ({names.series(schema.CPU_USAGE)})",
                "{{service_name}} {{instance}}",
            ),
        ),
        timeseries(
            "Backends that answer",
            "1 for each part of the stack that Prometheus reaches.",
            "short",
            query(f"min by (job) ({others.UP})", "{{job}}"),
        ),
        Row("The Collector"),
        timeseries(
            "Taken",
            "A second, by signal.",
            "short",
            *(
                query(f"sum(rate({collector(name)}{OVER}))", _shown(name, "receiver_"))
                for name in _each("receiver_accepted")
            ),
        ),
        timeseries(
            "Refused",
            "A second, by signal: its memory is full, or what came is wrong.",
            "short",
            *(
                query(f"sum(rate({collector(name)}{OVER}))", _shown(name, "receiver_"))
                for name in _each("receiver_refused")
            ),
        ),
        timeseries(
            "Traces kept, by why",
            "Traces a second, by the first policy of tail sampling that wanted them.",
            "short",
            query(
                "sum by (policy) (rate("
                f"{collector('processor_tail_sampling_count_traces_sampled_total', SAMPLED)}"
                f"{OVER}))",
                "{{policy}}",
            ),
        ),
        timeseries(
            "Traces kept and dropped",
            "Traces a second, by the decision.",
            "short",
            query(f"sum by (sampled) (rate({collector(TRACES)}{OVER}))", "sampled {{sampled}}"),
            stacked=True,
        ),
        timeseries(
            "Sent to backends",
            "A second, by exporter and signal.",
            "short",
            *(
                query(
                    f"sum by (exporter) (rate({collector(name)}{OVER}))",
                    "{{exporter}} " + _shown(name, "exporter_sent_"),
                )
                for name in _each("exporter_sent")
            ),
        ),
        timeseries(
            "Not taken by backends",
            "A second, by exporter: after all retries, or because the queue is full.",
            "short",
            *(
                query(
                    f"sum by (exporter) (rate({collector(name)}{OVER}))",
                    "{{exporter}} " + _shown(name, "exporter_"),
                )
                for name in _each("exporter_send_failed") + _each("exporter_enqueue_failed")
            ),
        ),
        timeseries(
            "Queues",
            "How full each exporter's queue on disk is.",
            "percentunit",
            query(
                f"sum by (exporter) ({collector('exporter_queue_size')})"
                f" / sum by (exporter) ({collector('exporter_queue_capacity')})",
                "{{exporter}}",
            ),
            limits={"min": 0, "max": 1},
        ),
        timeseries(
            "Traces that wait for a decision",
            "At num_traces of them (otel-collector/config.yaml) the oldest go before their time.",
            "short",
            query(
                f"sum({collector('processor_tail_sampling_sampling_traces_on_memory')})", "waiting"
            ),
        ),
        timeseries(
            "Memory of the Collector",
            "Resident memory.",
            "bytes",
            query(f"sum({collector('process_memory_rss_bytes')})", "resident"),
        ),
    ],
    [],
)
