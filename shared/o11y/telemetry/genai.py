"""Spans of logical operations: a model is asked, documents are searched, a pipeline runs.

One span an operation, however many attempts it takes (semconv gen-ai/gen-ai-spans); the span and
the duration in the metrics end together, with the same value.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Self

from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, StatusCode, Tracer, set_span_in_context, use_span
from opentelemetry.util.types import AttributeValue

from o11y.telemetry import schema
from o11y.telemetry.error_types import error_type
from o11y.telemetry.instruments import NO_LABELS, Histogram, Labels
from o11y.telemetry.stopwatch import Stopwatch


class Operation:
    """An operation begins with its span, may fail, and ends once, whoever ends it.

    `duration` is told, under `labels` as they are at the end and the `error.type`, how many seconds
    it took.
    `context` has the span as its current one: exemplars and children point at it.
    """

    def __init__(
        self,
        tracer: Tracer,
        name: str,
        attributes: Mapping[str, AttributeValue],
        kind: SpanKind = SpanKind.INTERNAL,
        duration: Histogram | None = None,
        labels: Labels = NO_LABELS,
    ) -> None:
        self._watch = Stopwatch()
        self.span = tracer.start_span(
            name, kind=kind, attributes=attributes, start_time=self._watch.start_ns
        )
        self.context: Context = set_span_in_context(self.span)
        self.error: str | None = None
        """The `error.type`, when it has failed."""
        self.ended = False
        self._duration = duration
        self._labels = labels
        self._seconds: float | None = None

    def elapsed(self) -> float:
        """Seconds since the operation began."""
        return self._watch.seconds()

    def stop(self) -> float:
        """Seconds that the operation takes: it is over at the first call of this, or its end."""
        if self._seconds is None:
            self._seconds = self._watch.seconds()
        return self._seconds

    def fail(self, error: str, message: str | None = None) -> None:
        """The operation has failed; the first `error.type` and message stay."""
        if self.error is None:
            self.error = error
            self.span.set_attribute(schema.ERROR_TYPE, error)
            self.span.set_status(StatusCode.ERROR, message)

    def end(self) -> None:
        """End the span, and record the duration."""
        if self.ended:
            return
        self.ended = True
        seconds = self.stop()
        if self._duration:
            failed = {schema.ERROR_TYPE: self.error} if self.error else {}
            self._duration.record(seconds, {**self._labels, **failed}, self.context)
        self.span.end(self._watch.end_ns(seconds))

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Run a block as the operation, which ends with it: the span is the current one, and what
        the block raises is the failure.
        """
        with use_span(self.span, record_exception=False, set_status_on_exception=False):
            try:
                yield self
            except BaseException as error:
                self.fail(error_type(error), str(error))
                raise
            finally:
                self.end()
