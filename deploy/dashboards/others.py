"""Metrics that others emit: the Collector about itself and about spans, Prometheus about its
targets, and the recording rules.
"""

COLLECTOR = frozenset(
    {
        "receiver_accepted_spans_total",
        "receiver_accepted_metric_points_total",
        "receiver_accepted_log_records_total",
        "receiver_refused_spans_total",
        "receiver_refused_metric_points_total",
        "receiver_refused_log_records_total",
        "exporter_sent_spans_total",
        "exporter_sent_metric_points_total",
        "exporter_sent_log_records_total",
        "exporter_send_failed_spans_total",
        "exporter_send_failed_metric_points_total",
        "exporter_send_failed_log_records_total",
        "exporter_enqueue_failed_spans_total",
        "exporter_enqueue_failed_metric_points_total",
        "exporter_enqueue_failed_log_records_total",
        "exporter_queue_size",
        "exporter_queue_capacity",
        "process_memory_rss_bytes",
        "processor_tail_sampling_count_traces_sampled_total",
        "processor_tail_sampling_global_count_traces_sampled_total",
        "processor_tail_sampling_sampling_traces_on_memory",
    }
)
"""Without `otelcol_`: opentelemetry.io/docs/collector/internal-telemetry, and the documentation.md
of the tail sampling processor. Unit and `_total` are there because config.yaml asks for them.
"""

SPAN_CALLS = "traces_span_metrics_calls_total"
SPAN_SECONDS = "traces_span_metrics_duration_seconds"
UP = "up"
ERRORS = "o11y:slo_errors:ratio_rate"
"""With a window after it, as `…rate5m`; its label is `slo`."""
OBJECTIVE = "o11y:slo_objective:ratio"
BUDGET = "o11y:slo_error_budget:remaining"
HOURLY_BUDGET = "o11y:cost_budget:usd_per_hour"
TENANT_BUDGET = "o11y:cost_budget_tenant:usd_per_hour"
TENANT_DAY = "o11y:cost_tenant:usd_per_day"
"""Cost of the last 24 hours, by tenant; at midnight (UTC) that of a calendar day."""


def collector(name: str, matchers: str = "") -> str:
    """A selector of one of the Collector's metrics. Raises ValueError for a name it hasn't."""
    if name not in COLLECTOR:
        raise ValueError(f"the Collector has no metric {name}")
    return f"otelcol_{name}" + (f"{{{matchers}}}" if matchers else "")
