"""Log lines: JSON on standard output with the trace they belong to, and OTLP where configured."""

import json
import logging
import sys
from datetime import UTC, datetime

from opentelemetry import trace
from opentelemetry.instrumentation.logging.handler import LoggingHandler

from o11y import identity
from o11y.settings import ServiceSettings
from o11y.telemetry import Telemetry

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {
    *("message", "asctime", "taskName"),
    "color_message",  # uvicorn's second form of its message
}

NOISY = ("httpx", "httpx2", "httpcore", "httpcore2", "openai", "chromadb", "urllib3", "asyncio")
"""Loggers that write a line for each call we already tell of."""


def trace_ids() -> dict[str, str]:
    """`trace_id` and `span_id` of the current span in hex; nothing outside a span."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {
        "trace_id": trace.format_trace_id(context.trace_id),
        "span_id": trace.format_span_id(context.span_id),
    }


def _extra(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


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
        return json.dumps(line, default=str, ensure_ascii=False)


class PlainFormatter(logging.Formatter):
    """For people (`DEBUG_MODE=true`): time, level, message, fields, short trace id."""

    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{key}={value}" for key, value in _extra(record).items())
        trace_id = trace_ids().get("trace_id", "")
        time = datetime.fromtimestamp(record.created).strftime("%H:%M:%S.%f")[:-3]
        parts = (time, f"{record.levelname:<7}", record.name, record.getMessage(), fields, trace_id)
        line = " ".join(part for part in parts if part)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def configure(settings: ServiceSettings, telemetry: Telemetry) -> None:
    """Send the process's log records to standard output and, with an endpoint, to OTLP."""
    output = logging.StreamHandler(sys.stdout)
    output.setFormatter(
        PlainFormatter() if settings.debug_mode else JsonFormatter(telemetry.service)
    )
    root = logging.getLogger()
    root.handlers = [output, LoggingHandler(logger_provider=telemetry.logger_provider)]
    root.setLevel("DEBUG" if settings.debug_mode else settings.log_level)
    for noisy in NOISY:
        logging.getLogger(noisy).setLevel("WARNING")
