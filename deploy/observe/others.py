"""Metrics that others emit: the Collector about itself and about spans, Prometheus about its
targets, and the recording rules.
"""

COLLECTOR = frozenset(
    {
        "receiver_accepted_spans",
        "receiver_accepted_metric_points",
        "receiver_accepted_log_records",
        "receiver_refused_spans",
        "receiver_refused_metric_points",
        "receiver_refused_log_records",
        "exporter_sent_spans",
        "exporter_sent_metric_points",
        "exporter_sent_log_records",
        "exporter_send_failed_spans",
        "exporter_send_failed_metric_points",
        "exporter_send_failed_log_records",
        "exporter_enqueue_failed_spans",
        "exporter_enqueue_failed_metric_points",
        "exporter_enqueue_failed_log_records",
        "exporter_queue_size",
        "exporter_queue_capacity",
        "process_memory_rss",
        "processor_tail_sampling_count_traces_sampled",
        "processor_tail_sampling_global_count_traces_sampled",
        "processor_tail_sampling_sampling_trace_dropped_too_early",
        "processor_tail_sampling_sampling_traces_on_memory",
    }
)
"""Without `otelcol_`: opentelemetry.io/docs/collector/internal-telemetry, and the documentation.md
of the tail sampling processor.
"""

SPAN_CALLS = "traces_span_metrics_calls_total"
SPAN_SECONDS = "traces_span_metrics_duration_seconds"
GRAPH_REQUESTS = "traces_service_graph_request_total"
GRAPH_FAILED = "traces_service_graph_request_failed_total"
UP = "up"
ERRORS = "o11y:slo_errors:ratio_rate"
"""With a window after it, as `…rate5m`; its label is `slo`."""
OBJECTIVE = "o11y:slo_objective:ratio"
BUDGET = "o11y:slo_error_budget:remaining"
HOURLY_BUDGET = "o11y:cost_budget:usd_per_hour"
TENANT_BUDGET = "o11y:cost_budget_tenant:usd_per_hour"


def collector(name: str, matchers: str = "") -> str:
    """A selector of one of the Collector's metrics, whether or not its reader appends the unit and
    `_total`: that has changed from one version to the next.
    """
    if name not in COLLECTOR:
        raise ValueError(f"the Collector has no metric {name}")
    more = f", {matchers}" if matchers else ""
    return f'{{__name__=~"otelcol_{name}(_bytes)?(_total)?"{more}}}'
