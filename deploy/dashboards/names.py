"""The telemetry schema's names as Prometheus shows them.

Prometheus' OTLP endpoint makes underscores of dots, appends the unit and, to counters, `_total`
(translation strategy UnderscoreEscapingWithSuffixes). So does the services' own `/metrics`, but for
the `_ratio` of gauges of unit 1.
"""

import re

from o11y.telemetry.schema import Metric

UNITS = {
    "s": "seconds",
    "By": "bytes",
    "%": "percent",
    "Cel": "celsius",
    "W": "watts",
    "J": "joules",
}
RESOURCE_LABELS = ("service_name", "instance", "job")
"""Labels of every series: the resource's, which Prometheus is told to promote, and the target's."""


def series(metric: Metric) -> str:
    """The name of a metric's series; a histogram's without `_bucket`, `_sum` and `_count`."""
    words = [metric.name]
    unit = UNITS.get(metric.unit)
    if metric.unit == "1" and metric.kind == "gauge":
        unit = "ratio"
    if unit and not metric.name.endswith(unit):
        words.append(unit)
    if metric.kind == "counter":
        words.append("total")
    return re.sub(r"[^a-zA-Z0-9_]", "_", "_".join(words))


def label(key: str) -> str:
    """An attribute key as a label."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", key)


def labels(metric: Metric) -> frozenset[str]:
    """The labels a metric's series may have."""
    return frozenset([*map(label, metric.labels), *RESOURCE_LABELS])
