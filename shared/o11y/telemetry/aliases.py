"""Other names of metrics that are recorded once.

`schema.ALIASES` says which counter or histogram shows what another one records. It is made of what
the SDK collected: cardinality limits, exemplars and temporality are those of the recorded one.
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


class Aliases:
    """Adds to the metrics of a collection those that nothing records."""

    def __init__(self, aliases: Iterable[schema.Alias]) -> None:
        self._aliases: defaultdict[str, list[schema.Alias]] = defaultdict(list)
        self._own: dict[str, set[str]] = {}
        """The labels that each recorded metric shows; it may have more, for its aliases only."""
        for alias in aliases:
            self._aliases[alias.recorded.name].append(alias)
            self._own[alias.recorded.name] = {*alias.recorded.labels, OVERFLOW}

    def added(self, data: export.MetricsData) -> export.MetricsData:
        """The metrics, and those that the aliases make of them."""
        return with_metrics(data, self._shown)

    def _shown(self, metrics: Iterable[export.Metric]) -> Iterator[export.Metric]:
        others: dict[str, tuple[schema.Metric, Any, list[Any]]] = {}
        for metric in metrics:
            aliases = self._aliases.get(metric.name)
            if not aliases:
                yield metric
                continue
            data: Any = metric.data
            own = self._own[metric.name]
            yield replace(metric, data=_with_points(data, (_own(own, p) for p in data.data_points)))
            for alias in aliases:
                _, _, points = others.setdefault(alias.shown.name, (alias.shown, data, []))
                points += _other(alias, data.data_points)
        for shown, data, points in others.values():
            if points:
                data = _with_points(data, points)
                yield export.Metric(shown.name, shown.description, shown.unit, data)


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


def _own(keys: set[str], point: Any) -> Any:
    selected = {key: value for key, value in point.attributes.items() if key in keys}
    return replace(point, attributes=selected)


def _other(alias: schema.Alias, points: Iterable[Any]) -> Iterator[Any]:
    """The points that the other name shows.

    A point that stands for all that a cardinality limit keeps out has lost its labels: an alias for
    some of the labels' values can't tell whether it is one of them, and leaves it out.
    """
    for point in points:
        given: Mapping[str, Any] = point.attributes
        if OVERFLOW in given:
            if not alias.where:
                yield point
        elif all(given.get(key) in values for key, values in alias.where.items()):
            yield replace(point, attributes=_labels(alias, given))


def _labels(alias: schema.Alias, given: Mapping[str, Any]) -> dict[str, Any]:
    labels = {label: given[key] for label, key in alias.labels.items() if key in given}
    labels.update(alias.fixed)
    if schema.LABEL_STATUS in alias.shown.labels:
        error = given.get(schema.ERROR_TYPE)
        cancelled = error == schema.ERROR_CANCELLED
        labels[schema.LABEL_STATUS] = "cancelled" if cancelled else "error" if error else "ok"
    return labels


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
    )
    if isinstance(joined, export.NumberDataPoint):
        return replace(joined, value=sum(each("value")))
    joined = replace(
        joined,
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
