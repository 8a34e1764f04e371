"""Other names of metrics that are recorded once.

`schema.ALIASES` says which histogram shows what another one records. It is made of what the SDK
collected: cardinality limits, exemplars and temporality are those of the recorded one.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from opentelemetry.sdk.metrics import export

from o11y.telemetry import schema

OVERFLOW = "otel.metric.overflow"
"""The only attribute of the point that counts what a cardinality limit keeps out."""

_OWN = {alias.recorded.name: {*alias.recorded.labels, OVERFLOW} for alias in schema.ALIASES}
"""The labels of a recorded metric; it may be recorded with more, for another name alone."""


def with_aliases(data: export.MetricsData) -> export.MetricsData:
    """The metrics, and those that `schema.ALIASES` makes of them."""
    return with_metrics(data, _shown)


def with_metrics(
    data: export.MetricsData,
    change: Callable[[Sequence[export.Metric]], Iterable[export.Metric]],
) -> export.MetricsData:
    """The data with other metrics in each scope: what `change` makes of those there are."""
    resources = []
    for resource in data.resource_metrics:
        scopes = [replace(each, metrics=[*change(each.metrics)]) for each in resource.scope_metrics]
        resources.append(replace(resource, scope_metrics=scopes))
    return export.MetricsData(resources)


def _shown(metrics: Iterable[export.Metric]) -> Iterator[export.Metric]:
    recorded: dict[str, Any] = {}
    for metric in metrics:
        data: Any = metric.data
        if metric.name in _OWN and isinstance(data, export.Histogram | export.ExponentialHistogram):
            recorded[metric.name] = data
            data = _with_points(data, (_own(metric.name, each) for each in data.data_points))
        yield replace(metric, data=data)
    others: dict[schema.Metric, tuple[Any, list[Any]]] = {}
    for alias in schema.ALIASES:
        if data := recorded.get(alias.recorded.name):
            points = [each for point in data.data_points if (each := _other(alias, point))]
            others.setdefault(alias.shown, (data, []))[1].extend(points)
    for shown, (data, points) in others.items():
        if points:
            data = _with_points(data, points)
            yield export.Metric(shown.name, shown.description, shown.unit, data)


def _own(name: str, point: Any) -> Any:
    kept = {key: value for key, value in point.attributes.items() if key in _OWN[name]}
    return replace(point, attributes=kept)


def _other(alias: schema.Alias, point: Any) -> Any:
    """The point under the other name, or None where that doesn't show it."""
    given: Mapping[str, Any] = point.attributes
    if OVERFLOW in given:
        return point
    if given.get(schema.OPERATION) == alias.not_of:
        return None
    labels = {label: given[key] for label, key in alias.labels.items() if key in given}
    error = given.get(schema.ERROR_TYPE)
    status = "cancelled" if error == schema.ERROR_CANCELLED else "error" if error else "ok"
    return replace(point, attributes={**labels, schema.LABEL_STATUS: status})


def _with_points(data: Any, points: Iterable[Any]) -> Any:
    """The data of a metric with one point of all that have the same labels."""
    same: defaultdict[frozenset[tuple[str, Any]], list[Any]] = defaultdict(list)
    for point in points:
        same[frozenset(point.attributes.items())].append(point)
    return replace(data, data_points=[_sum(group) for group in same.values()])


def _sum(points: Sequence[Any]) -> Any:
    def each(field: str) -> list[Any]:
        return [getattr(point, field) for point in points]

    joined = replace(
        points[0],
        start_time_unix_nano=min(each("start_time_unix_nano")),
        exemplars=[*chain(*each("exemplars"))],
        count=sum(each("count")),
        sum=sum(each("sum")),
        min=min(each("min")),
        max=max(each("max")),
    )
    if isinstance(joined, export.HistogramDataPoint):
        counts = zip(*each("bucket_counts"), strict=True)
        return replace(joined, bucket_counts=[*map(sum, counts)])
    scale, zeros = min(each("scale")), sum(each("zero_count"))
    sides = {side: _at_scale(scale, points, side) for side in ("positive", "negative")}
    return replace(joined, scale=scale, zero_count=zeros, **sides)


def _at_scale(scale: int, points: Sequence[Any], side: str) -> export.Buckets:
    """The exponential buckets of all points: those of a finer scale fall into the ones of this."""
    counts: Counter[int] = Counter()
    for point in points:
        buckets: export.Buckets = getattr(point, side)
        for index, count in enumerate(buckets.bucket_counts, buckets.offset):
            counts[index >> (point.scale - scale)] += count
    lowest = min(counts, default=0)
    return export.Buckets(
        lowest, [counts[index] for index in range(lowest, max(counts, default=-1) + 1)]
    )
