"""The schema's counters and histograms, on the SDK's instruments.

Besides what those do, labels can be bound: an instrument and the labels of a call that comes again
and again are kept together, and only the value is given.
"""

from collections.abc import Mapping

from opentelemetry.context import Context
from opentelemetry.metrics import Counter as SdkCounter
from opentelemetry.metrics import Histogram as SdkHistogram
from opentelemetry.metrics import Meter
from opentelemetry.trace import NonRecordingSpan, SpanContext, set_span_in_context

from o11y.telemetry import schema

Value = str | int | float | bool | tuple[str, ...]
Labels = Mapping[str, Value]
NO_LABELS: Labels = {}

Traced = Context | SpanContext | None
"""The span a value belongs to, by default the current one: exemplars point at it."""


def _context(traced: Traced) -> Context | None:
    if isinstance(traced, SpanContext):
        return set_span_in_context(NonRecordingSpan(traced), Context())
    return traced


class BoundCounter:
    """A counter under one set of labels."""

    __slots__ = ("_counter", "_labels")

    def __init__(self, counter: SdkCounter, labels: Labels) -> None:
        self._counter = counter
        self._labels = labels

    def add(self, amount: float, traced: Traced = None) -> None:
        self._counter.add(amount, self._labels, _context(traced))


class BoundHistogram:
    """A histogram under one set of labels."""

    __slots__ = ("_histogram", "_labels")

    def __init__(self, histogram: SdkHistogram, labels: Labels) -> None:
        self._histogram = histogram
        self._labels = labels

    def record(self, value: float, traced: Traced = None) -> None:
        self._histogram.record(value, self._labels, _context(traced))


class Counter:
    """A sum for each set of labels."""

    def __init__(self, meter: Meter, metric: schema.Metric) -> None:
        self._counter = meter.create_counter(metric.name, metric.unit, metric.description)

    def add(self, amount: float, labels: Labels = NO_LABELS, traced: Traced = None) -> None:
        self._counter.add(amount, labels, _context(traced))

    def bind(self, labels: Labels) -> BoundCounter:
        return BoundCounter(self._counter, labels)


class Histogram:
    """Counts values into the metric's buckets, for each set of labels."""

    def __init__(self, meter: Meter, metric: schema.Metric) -> None:
        self._histogram = meter.create_histogram(
            metric.name,
            metric.unit,
            metric.description,
            explicit_bucket_boundaries_advisory=metric.buckets,
        )

    def record(self, value: float, labels: Labels = NO_LABELS, traced: Traced = None) -> None:
        self._histogram.record(value, labels, _context(traced))

    def bind(self, labels: Labels) -> BoundHistogram:
        return BoundHistogram(self._histogram, labels)
