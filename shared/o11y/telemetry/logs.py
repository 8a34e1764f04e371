"""Log lines: JSON on standard output with the trace they belong to, and OTLP where configured."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

import msgspec
from opentelemetry import trace
from opentelemetry._logs import Logger, LoggerProvider, SeverityNumber

from o11y.settings import ServiceSettings
from o11y.telemetry import identity
from o11y.telemetry.signals import Telemetry

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {
    *("message", "asctime", "taskName"),
    "color_message",  # uvicorn's second form of its message
}

NOISY = ("httpx", "httpx2", "httpcore", "httpcore2", "openai", "chromadb", "urllib3", "asyncio")
"""Loggers that write a line for each call we already tell of."""

REPEATING = ("opentelemetry.trace", "opentelemetry.baggage")
"""Loggers that write a line for each bad header a caller sends, with what was in it."""


def trace_ids() -> dict[str, str]:
    """`trace_id` and `span_id` of the current span in hex; nothing outside a span."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {
        "trace_id": trace.format_trace_id(context.trace_id),
        "span_id": trace.format_span_id(context.span_id),
    }


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


_json = msgspec.json.Encoder(enc_hook=str)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, service, logger, message, trace, user, extra fields."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self.service = service

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "service": self.service,
            "logger": record.name,
            "message": record.getMessage(),
            **trace_ids(),
            **identity.attributes(),
            **_extra(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            return _json.encode(line).decode()
        except (TypeError, ValueError):  # half a character, or a key that is no text
            return json.dumps(line, default=str, skipkeys=True)


SLOW_SECONDS = 5.0
"""From here on a call is worth a look."""


def _is_remarkable(record: logging.LogRecord) -> bool:
    found = vars(record)
    return (
        record.levelno >= logging.WARNING
        or found.get("status", 0) >= 500
        or found.get("duration_seconds", 0) >= SLOW_SECONDS
    )


class PlainFormatter(logging.Formatter):
    """One line for people (`DEBUG_MODE=true`): time, level, message, fields, trace id; for a call
    that went wrong or took long, the command that shows its trace.
    """

    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{key}={value}" for key, value in _extra(record).items())
        trace_id = trace_ids().get("trace_id", "")
        if trace_id and _is_remarkable(record):
            trace_id = f"make trace ID={trace_id}"
        time = datetime.fromtimestamp(record.created).strftime("%H:%M:%S.%f")[:-3]
        parts = (time, f"{record.levelname:<7}", record.name, record.getMessage(), fields, trace_id)
        line = " ".join(part for part in parts if part)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


_SEVERITIES = {
    "DEBUG": SeverityNumber.DEBUG,
    "INFO": SeverityNumber.INFO,
    "WARNING": SeverityNumber.WARN,
    "ERROR": SeverityNumber.ERROR,
    "CRITICAL": SeverityNumber.FATAL,
}


class OtlpHandler(logging.Handler):
    """Hands log records to OpenTelemetry, with the trace and the user they belong to.

    Attribute names are those of the JSON lines; exceptions follow semconv exceptions.
    """

    def __init__(self, provider: LoggerProvider) -> None:
        super().__init__()
        self._provider = provider
        self._loggers: dict[str, Logger] = {}

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._emit(record)
        except Exception:  # noqa: BLE001 - as every handler: who logs must not fail for it
            self.handleError(record)

    def _emit(self, record: logging.LogRecord) -> None:
        found = self._loggers.get(record.name)
        if found is None:
            found = self._loggers[record.name] = self._provider.get_logger(record.name)
        severity = _SEVERITIES.get(record.levelname, SeverityNumber.UNSPECIFIED)
        found.emit(
            timestamp=int(record.created * 1e9),
            severity_number=severity,
            severity_text=severity.name,
            body=record.getMessage(),
            attributes={**identity.attributes(), **_extra(record)},
            exception=record.exc_info[1] if record.exc_info else None,
        )


def configure(settings: ServiceSettings, telemetry: Telemetry) -> None:
    """Send the process's log records to standard output and, with an endpoint, to OTLP.

    What no line shows isn't collected either (Python's logging HOWTO, Optimization).
    """
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    output = logging.StreamHandler(sys.stdout)
    output.setFormatter(
        PlainFormatter() if settings.debug_mode else JsonFormatter(telemetry.service)
    )
    root = logging.getLogger()
    root.handlers = [output]
    if telemetry.exports_logs:
        root.handlers.append(OtlpHandler(telemetry.logger_provider))
    root.setLevel("DEBUG" if settings.debug_mode else settings.log_level)
    for noisy in NOISY:
        logging.getLogger(noisy).setLevel("WARNING")
    for repeating in REPEATING:
        logging.getLogger(repeating).setLevel("ERROR")
