"""What waits to be sent, bounded, and what is said and counted when it can't be.

Spans and log records are encoded when they end and wait as bytes. The oldest make room when there
are too many. A backend that fails is asked again with growing pauses; nobody else waits for it.
"""

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, attach, set_value
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk._logs import LogRecordProcessor, ReadableLogRecord, ReadWriteLogRecord
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.trace import INVALID_SPAN_CONTEXT, TraceFlags

from o11y import schema
from o11y.metering import Counter
from o11y.otlp import LogLine, Row, log_row, message, span_row
from o11y.sending import Failure, Sender

TIMEOUT_SECONDS = 5.0
"""Longest one attempt may take."""

GIVE_UP_SECONDS = 20.0
"""A batch that failed for so long is dropped: it may be what the backend stumbles over."""

LONGEST_PAUSE = 5.0
LONGEST_ASKED_PAUSE = 60.0
"""Between attempts: by ourselves, and when the backend asks for it."""

CLOSE_SECONDS = 2.5
"""For what waits when the process ends."""

QUEUE_BYTES = 8 << 20
BATCH_BYTES = 2 << 20
"""Of content; a Collector takes 4 MiB at once."""

LARGEST_ROW = 1 << 20

REMIND_SECONDS = 60.0
"""The same trouble is told again no sooner."""

logger = logging.getLogger("o11y.export")


class Reports:
    """Tells people once that telemetry is lost and why, and once that it arrives again.

    All signals tell through one: when all of them suffer, it is said once.
    """

    def __init__(self) -> None:
        self._failing: dict[str, set[str]] = {}
        self._told: set[str] = set()
        self._told_at: dict[str, float] = {}
        self._lock = threading.Lock()

    def lost(self, signal: str, kind: str, why: str) -> None:
        """Rows of a signal were lost by trouble of this kind."""
        now = time.monotonic()
        with self._lock:
            self._failing.setdefault(signal, set()).add(kind)
            if (
                kind in self._told
                or now - self._told_at.get(kind, -REMIND_SECONDS) < REMIND_SECONDS
            ):
                return
            self._told.add(kind)
            self._told_at[kind] = now
        logger.warning("telemetry is being lost: %s", why)

    def arrived(self, signal: str, address: str) -> None:
        """The signal's rows arrive, and none of them waits for long."""
        if signal not in self._failing:
            return
        with self._lock:
            over = self._failing.pop(signal, set()) & self._told
            over -= set().union(*self._failing.values())
            self._told -= over
        if over:
            logger.warning("telemetry arrives again at %s", address)


class Outlet:
    """Where one signal leaves the process: it pauses after failures and counts its rows."""

    def __init__(
        self, signal: str, sender: Sender, exported: Counter, component: str, reports: Reports
    ) -> None:
        self.signal = signal
        self.reports = reports
        self.pause_until = 0.0
        self.failure: Failure | None = None
        """Of the last attempt."""
        self._sender = sender
        self._exported = exported
        self._component = component
        self._failures = 0

    @property
    def address(self) -> str:
        return self._sender.address

    def attempt(self, body: bytes, seconds: float) -> int | Failure:
        """Send once; the number of rows that were refused."""
        result = self._sender.send(body, seconds)
        if not isinstance(result, Failure):
            self._failures, self.failure = 0, None
            return result
        self.failure = result
        if result.again or result.credentials:
            pause = min(2.0**self._failures, LONGEST_PAUSE) * random.uniform(0.8, 1.0)
            if result.wait is not None:
                pause = max(pause, min(result.wait, LONGEST_ASKED_PAUSE))
            self._failures = min(self._failures + 1, 10)
            self.pause_until = time.monotonic() + pause
        return result

    def sent(self, count: int, refused: int) -> None:
        """A message of `count` rows was taken but for some."""
        self._count(count - refused, None)
        if refused:
            self._count(refused, schema.ERROR_REJECTED)
            self.reports.lost(self.signal, "refused", f"{self.address} refused {refused} rows")

    def lost(self, count: int, failure: Failure) -> None:
        """A message of `count` rows is given up."""
        self._count(count, failure.error)
        self.tell(failure)

    def tell(self, failure: Failure | None) -> None:
        """Rows are lost because of this, or because there are more than the backend takes."""
        if failure is None:
            why = f"more is waiting than {self.address} takes"
            self.reports.lost(self.signal, "too much", why)
        elif failure.credentials:
            why = f"{self.address} {failure.said}; see OTEL_EXPORTER_OTLP_HEADERS"
            self.reports.lost(self.signal, "credentials", why)
        else:
            kind = "unreachable" if failure.again else "refused"
            self.reports.lost(self.signal, kind, f"{self.address} {failure.said}")

    def arrives(self) -> None:
        self.reports.arrived(self.signal, self.address)

    def close(self) -> None:
        self._sender.close()

    def _count(self, count: int, error: str | None) -> None:
        labels = {schema.COMPONENT_TYPE: self._component}
        if error:
            labels[schema.ERROR_TYPE] = error
        self._exported.add(count, labels)


@dataclass(frozen=True)
class Limits:
    """How many rows may wait and be sent at once, and how long one waits for others."""

    rows: int
    batch: int
    delay_seconds: float


class Batches:
    """A queue of rows and the thread that empties it."""

    def __init__(self, outlet: Outlet, processed: Counter, component: str, limits: Limits) -> None:
        self._outlet = outlet
        self._limits = limits
        self._rows: deque[Row] = deque()
        self._bytes = 0
        self._lock = threading.Lock()
        self._untold: set[str] = set()
        """Why rows were dropped since somebody was told of it: `error.type`."""
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._until = float("inf")
        component_type = {schema.COMPONENT_TYPE: component}
        self._processed = processed.of(component_type)
        self._full, self._late, self._large = (
            processed.of({**component_type, schema.ERROR_TYPE: error})
            for error in (schema.ERROR_QUEUE_FULL, schema.ERROR_SHUT_DOWN, schema.ERROR_TOO_LARGE)
        )
        self._thread = threading.Thread(
            target=self._work, name=f"export-{outlet.signal}", daemon=True
        )
        self._thread.start()

    def put(self, row: Row) -> None:
        """Take a row; never waits. The oldest ones make room."""
        size = len(row.content)
        dropped = 0
        if self._stop.is_set():
            self._late.add(1, INVALID_SPAN_CONTEXT)
            return
        if size > LARGEST_ROW:
            self._large.add(1, INVALID_SPAN_CONTEXT)
            self._untold.add(schema.ERROR_TOO_LARGE)
            return
        with self._lock:
            rows = self._rows
            rows.append(row)
            self._bytes += size
            while len(rows) > self._limits.rows or self._bytes > QUEUE_BYTES:
                self._bytes -= len(rows.popleft().content)
                dropped += 1
        if dropped:
            self._full.add(dropped, INVALID_SPAN_CONTEXT)
            self._untold.add(schema.ERROR_QUEUE_FULL)
        if len(rows) >= self._limits.batch and not self._wake.is_set():
            self._wake.set()

    def close(self) -> None:
        """Send what waits, for a while, and end."""
        self._until = time.monotonic() + CLOSE_SECONDS
        self._stop.set()
        self._wake.set()
        self._thread.join(CLOSE_SECONDS)
        self._outlet.close()

    def _work(self) -> None:
        attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
        while not self._stop.is_set():
            self._wake.wait(self._limits.delay_seconds)
            self._wake.clear()
            self._empty()
        self._empty()

    def _empty(self) -> None:
        """Send what waits now; what comes meanwhile can wait for more."""
        left = len(self._rows)
        while left > 0 and time.monotonic() < self._until:
            rows = self._take()
            left -= len(rows)
            self._processed.add(len(rows), INVALID_SPAN_CONTEXT)
            self._send(message(rows), len(rows))

    def _take(self) -> list[Row]:
        taken: list[Row] = []
        size = 0
        with self._lock:
            rows = self._rows
            while rows and len(taken) < self._limits.batch:
                size += len(rows[0].content)
                if taken and size > BATCH_BYTES:
                    break
                self._bytes -= len(rows[0].content)
                taken.append(rows.popleft())
        return taken

    def _send(self, body: bytes, count: int) -> None:
        outlet = self._outlet
        began = time.monotonic()
        while True:
            self._pause()
            now = time.monotonic()
            result = outlet.attempt(body, max(min(TIMEOUT_SECONDS, self._until - now), 0.01))
            self._tell()
            if not isinstance(result, Failure):
                outlet.sent(count, result)
                if not result and len(self._rows) <= self._limits.rows / 2:
                    outlet.arrives()
                return
            tried = time.monotonic() - began
            if not result.again or tried > GIVE_UP_SECONDS or self._stop.is_set():
                outlet.lost(count, result)
                return

    def _pause(self) -> None:
        """Leave the backend alone after a failure, but say meanwhile what is lost."""
        while (left := self._outlet.pause_until - time.monotonic()) > 0:
            if self._stop.wait(min(left, 1.0)):
                return
            self._tell()

    def _tell(self) -> None:
        while self._untold:
            if self._untold.pop() == schema.ERROR_TOO_LARGE:
                said = f"is sent nothing above {LARGEST_ROW >> 20} MiB"
                self._outlet.tell(Failure(schema.ERROR_TOO_LARGE, said, False))
            else:
                self._outlet.tell(self._outlet.failure)


class SpanBatches(SpanProcessor):
    """Ended spans that are sampled, as rows."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def on_end(self, span: ReadableSpan) -> None:
        context = span.context
        if context and context.trace_flags & TraceFlags.SAMPLED:
            self._batches.put(span_row(span))

    def shutdown(self) -> None:
        self._batches.close()


class LogBatches(LogRecordProcessor):
    """Log records as rows."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def add(self, line: LogLine) -> None:
        self._batches.put(log_row(line))

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        record = ReadableLogRecord(
            log_record.log_record,
            log_record.resource or Resource.get_empty(),
            log_record.instrumentation_scope,
        )
        self._batches.put(log_row(record))

    def shutdown(self) -> None:
        self._batches.close()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002
        """Nothing waits for long; what does is sent at the end."""
        return False


class Points(MetricExporter):
    """Metric points: sums so far, so what is lost is only how they were at that moment."""

    def __init__(self, outlet: Outlet) -> None:
        super().__init__()
        self._outlet = outlet

    def export(
        self,
        metrics_data: MetricsData,
        timeout_millis: float = 10_000,  # noqa: ARG002
        **kwargs: object,  # noqa: ARG002
    ) -> MetricExportResult:
        outlet = self._outlet
        body = encode_metrics(metrics_data).SerializeToString()
        count = _count(metrics_data)
        result: int | Failure | None = outlet.failure
        if result is None or time.monotonic() >= outlet.pause_until:
            result = outlet.attempt(body, TIMEOUT_SECONDS)
        if isinstance(result, Failure):
            outlet.lost(count, result)
            return MetricExportResult.FAILURE
        outlet.sent(count, result)
        if not result:
            outlet.arrives()
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:  # noqa: ARG002
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: object) -> None:  # noqa: ARG002
        self._outlet.close()


def _count(metrics_data: MetricsData) -> int:
    metrics: Iterable[int] = (
        len(metric.data.data_points)
        for resource in metrics_data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    )
    return sum(metrics)
