"""PromQL about the schema's metrics: one that isn't there, or a label, raises ValueError."""

from collections.abc import Iterable, Mapping

from deploy.dashboards import names
from o11y.telemetry.schema import Metric

RATE = "$__rate_interval"

Where = Mapping[str, str]
"""Label by matcher: `{"status": '!="ok"'}`; a key of the schema or a label of the resource."""


def selector(metric: Metric, where: Where | None = None, part: str = "") -> str:
    """`name{label matcher, …}`; `part` is `_bucket`, `_sum` or `_count` of a histogram."""
    if bool(part) != (metric.kind == "histogram"):
        raise ValueError(f"{metric.name} is a {metric.kind}, and {part!r} no part of it")
    matchers = [f"{_label(metric, key)}{matcher}" for key, matcher in (where or {}).items()]
    return f"{names.series(metric)}{part}" + (f"{{{', '.join(matchers)}}}" if matchers else "")


def summed(expression: str, by: Iterable[str] = ()) -> str:
    grouped = ", ".join(names.label(key) for key in by)
    return f"sum by ({grouped}) ({expression})" if grouped else f"sum({expression})"


def maximum(metric: Metric, by: Iterable[str] = (), where: Where | None = None) -> str:
    """The greatest value of a gauge; of one that all replicas tell alike, the value."""
    grouped = ", ".join(_label(metric, key) for key in by)
    values = selector(metric, where)
    return f"max by ({grouped}) ({values})" if grouped else f"max({values})"


def rate(
    metric: Metric, by: Iterable[str] = (), where: Where | None = None, over: str = RATE
) -> str:
    """The rate a second at which a counter counts, or a histogram is observed."""
    keys = [_label(metric, key) for key in by]
    part = "_count" if metric.kind == "histogram" else ""
    return summed(f"rate({selector(metric, where, part)}[{over}])", keys)


def increase(
    metric: Metric, by: Iterable[str] = (), where: Where | None = None, over: str = "1h"
) -> str:
    """The amount that a counter counted in `over`."""
    keys = [_label(metric, key) for key in by]
    part = "_count" if metric.kind == "histogram" else ""
    return summed(f"increase({selector(metric, where, part)}[{over}])", keys)


def quantile(
    share: float,
    metric: Metric,
    by: Iterable[str] = (),
    where: Where | None = None,
    over: str = RATE,
) -> str:
    """The quantile of a histogram, `share` from 0 to 1."""
    keys = ["le", *(_label(metric, key) for key in by)]
    buckets = summed(f"rate({selector(metric, where, '_bucket')}[{over}])", keys)
    return f"histogram_quantile({share}, {buckets})"


def mean(
    metric: Metric, by: Iterable[str] = (), where: Where | None = None, over: str = RATE
) -> str:
    """The mean of what a histogram observed."""
    keys = [_label(metric, key) for key in by]
    total = summed(f"rate({selector(metric, where, '_sum')}[{over}])", keys)
    return f"{total} / {rate(metric, keys, where, over)}"


def share(
    metric: Metric,
    wanted: Where,
    by: Iterable[str] = (),
    where: Where | None = None,
    over: str = RATE,
) -> str:
    """The `wanted` part of the events; 0 where there are others only, nothing without any."""
    keys = list(by)
    every = rate(metric, keys, where, over)
    part = rate(metric, keys, {**(where or {}), **wanted}, over)
    return f"({part} or 0 * {every}) / ({every} > 0)"


def happened(
    metric: Metric, by: Iterable[str] = (), where: Where | None = None, over: str = "1h"
) -> str:
    """The amount a counter counted in `over`, where it did; also what made its series appear."""
    keys = [_label(metric, key) for key in by]
    part = "_count" if metric.kind == "histogram" else ""
    now = summed(selector(metric, where, part), keys)
    before = summed(f"{selector(metric, where, part)} offset {over}", keys)
    return f"{increase(metric, keys, where, over)} > 0 or ({now} unless {before}) > 0"


def _label(metric: Metric, key: str) -> str:
    found = names.label(key)
    if found == "le" and metric.kind == "histogram":
        return found
    if found not in names.labels(metric):
        raise ValueError(f"{metric.name} has no label {key}")
    return found
