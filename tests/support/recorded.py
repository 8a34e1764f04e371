"""What the tests of the services share: telemetry kept in memory, a machine without settings."""

import io
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest
from opentelemetry._logs import LogRecord
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics.export import (
    HistogramDataPoint,
    InMemoryMetricReader,
    NumberDataPoint,
)
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, SpanKind
from starlette.types import ASGIApp

from o11y.settings import ServiceSettings
from o11y.telemetry.logs import JsonFormatter
from o11y.telemetry.readers import Aliased
from o11y.telemetry.signals import Telemetry


class Point(NamedTuple):
    """One series of a metric: its labels and its value, for a histogram the number of values."""

    labels: dict[str, object]
    value: float


class Names(SpanExporter):
    """A backend that keeps the names of the spans it was sent."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.sent.extend(span.name for span in spans)
        return SpanExportResult.SUCCESS


class InMemoryReader(Aliased, InMemoryMetricReader):
    """Keeps what was collected, under all its names."""


class Recorded:
    """A service's telemetry, read back as it was recorded."""

    def __init__(self, service: str, settings: ServiceSettings) -> None:
        self._spans = InMemorySpanExporter()
        self.metrics = InMemoryReader()
        self._logs = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
        self.telemetry = Telemetry(
            service, settings, [SimpleSpanProcessor(self._spans)], [self.metrics]
        )
        loggers = self.telemetry.logger_provider
        assert isinstance(loggers, LoggerProvider)
        loggers.add_log_record_processor(SimpleLogRecordProcessor(self._logs))

    def spans(self, kind: SpanKind | None = None) -> list[ReadableSpan]:
        """The ended spans, first ended first."""
        ended = self._spans.get_finished_spans()
        return [span for span in ended if kind in (None, span.kind)]

    def span(self, name: str) -> ReadableSpan:
        """The only span of this name."""
        [found] = [span for span in self.spans() if span.name == name]
        return found

    def logs(self) -> list[ReadableLogRecord]:
        """The log records, as they were emitted."""
        return list(self._logs.get_finished_logs())

    def events(self) -> list[LogRecord]:
        """The log records that are events."""
        records = (each.log_record for each in self.logs())
        return [each for each in records if each.event_name]

    def points(self, metric: str) -> list[Point]:
        return points(self.metrics, metric)


def points(reader: InMemoryMetricReader, metric: str) -> list[Point]:
    """The series of a metric, as a reader gets them."""
    data = reader.get_metrics_data()
    return [
        Point(dict(point.attributes or {}), _value(point))
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for found in scope.metrics
        if found.name == metric
        for point in found.data.data_points
    ]


def _value(point: object) -> float:
    if isinstance(point, NumberDataPoint):
        return point.value
    assert isinstance(point, HistogramDataPoint)
    return point.count


def attributes(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


def identity(span: ReadableSpan | None) -> SpanContext:
    """The span's own ids."""
    own = span.get_span_context() if span else None
    assert own
    return own


def traceparent(headers: Mapping[str, str]) -> tuple[int, int]:
    """Trace id and span id of a `traceparent` header."""
    _, trace_id, span_id, _ = headers["traceparent"].split("-")
    return int(trace_id, 16), int(span_id, 16)


def bare_machine(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    """Hide the settings, proxies and .env file of the machine the tests run on."""
    monkeypatch.chdir(directory)
    ours = ("otel_", "openai_", "app_", "log_level", "debug_mode", "inference_", "llm_", "vector_")
    theirs = (
        "request_timeout_seconds",
        "seed_corpus",
        "trace_context",
        "auth",
        "admin_key",
        "database_url",
        "keys_file",
        "metrics_public",
        "http_proxy",
        "https_proxy",
        "all_proxy",
    )
    for name in list(os.environ):
        if name.lower().startswith((*ours, *theirs)):
            monkeypatch.delenv(name)


def http(app: ASGIApp, headers: Mapping[str, str] | None = None) -> httpx2.AsyncClient:
    """A client of an application in this process, which sees a 500 as a client does."""
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    return httpx2.AsyncClient(transport=transport, base_url="http://service", headers=headers)


Lines = Callable[[], list[dict[str, Any]]]


@contextmanager
def log_lines(logger_name: str = "o11y.access") -> Iterator[Lines]:
    """Reads the lines that a logger has written so far: by default, the access lines."""
    output = io.StringIO()
    handler = logging.StreamHandler(output)
    handler.setFormatter(JsonFormatter("thing-svc"))
    logger = logging.getLogger(logger_name)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel("INFO")
    yield lambda: [json.loads(line) for line in output.getvalue().splitlines()]
    logger.removeHandler(handler)
    logger.setLevel(level)
