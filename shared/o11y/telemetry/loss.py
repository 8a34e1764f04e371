"""Tells people once that telemetry is lost and why, and once that it arrives again.

The SDK logs every failed attempt of every exporter, and that a queue is full, again and again; an
exporter's answer says only whether it failed. `LossReports` hears what they log, keeps it from the
service's own log, and tells what a person needs to know.
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

REMIND_SECONDS = 60.0
"""Pause before the same trouble is reported again, and after which a queue that was full is well.
"""

EXPORTERS = "opentelemetry.exporter"
SDK = "opentelemetry.sdk"
QUEUE_FULL = "Queue full"
"""The beginning of the batch processors' line that a record is dropped."""

PASSED_ON = "o11y_passed_on"
"""Attribute of a log record that went on to the service's own log."""

SIGNALS = {"Span": "TRACES", "Log": "LOGS"}
"""By the word for what is dropped in that line."""

FAILING = "failing"
CREDENTIALS = "credentials"
TOO_MUCH = "too much"
"""The kinds of trouble."""

_CREDENTIALS = frozenset({401, 403, "UNAUTHENTICATED", "PERMISSION_DENIED"})
LONGEST = 400
"""Most characters that a line repeats of an exporter's words."""

logger = logging.getLogger("o11y.export")

_exports = threading.local()
"""`records`: what was logged by the export that runs in a thread. All `LossReports` of a process
know it: none of them may pass on what another one's exporter logs.
"""


class LossReports(logging.Handler):
    """Hears the SDK's and its exporters' loggers from `listen` to `stop`.

    All signals report through one: when all of them suffer, it is told once.
    """

    def __init__(self) -> None:
        super().__init__()
        self._failing: dict[str, dict[str, float]] = {}
        self._told: set[str] = set()
        self._told_at: dict[str, float] = {}
        self._changing = threading.Lock()

    def listen(self) -> None:
        for name in (EXPORTERS, SDK):
            heard = logging.getLogger(name)
            heard.addHandler(self)
            heard.propagate = False

    def stop(self) -> None:
        for name in (EXPORTERS, SDK):
            heard = logging.getLogger(name)
            heard.removeHandler(self)
            heard.propagate = not any(isinstance(each, LossReports) for each in heard.handlers)

    def emit(self, record: logging.LogRecord) -> None:
        records = getattr(_exports, "records", None)
        if records is not None and record.name.startswith(EXPORTERS):
            if record.levelno >= logging.WARNING and record not in records:
                records.append(record)
        elif str(record.msg).startswith(QUEUE_FULL) and isinstance(record.args, tuple):
            self._overflowed(SIGNALS.get(str(record.args[0]), str(record.args[0])))
        elif not hasattr(record, PASSED_ON):  # by another one that listens
            setattr(record, PASSED_ON, True)
            logging.getLogger().handle(record)

    def failed(self, signal: str, address: str, records: list[logging.LogRecord]) -> None:
        """An export of the signal to this address failed, and this is what was logged of it."""
        words = "; ".join(dict.fromkeys(record.getMessage() for record in records))
        why = f"{address}: {words[:LONGEST]}"
        kind = FAILING
        if any(_is_about_credentials(record) for record in records):
            kind = CREDENTIALS
            why += "; see OTEL_EXPORTER_OTLP_HEADERS"
        with self._changing:
            self._failing[signal] = {kind: time.monotonic()}  # why a queue is full, too
        self._tell(kind, why)

    def arrived(self, signal: str, address: str) -> None:
        """An export of the signal succeeded."""
        if signal not in self._failing:
            return
        with self._changing:
            troubles = self._failing.pop(signal, {})
            dropped_at = troubles.get(TOO_MUCH, -REMIND_SECONDS)
            overflows = time.monotonic() - dropped_at < REMIND_SECONDS
            if overflows:
                self._failing[signal] = {TOO_MUCH: dropped_at}
            over = self._told - {kind for kinds in self._failing.values() for kind in kinds}
            self._told -= over
        if overflows:
            self._tell(TOO_MUCH, f"more is waiting than {address} takes")
        if over:
            logger.warning("telemetry arrives again at %s", address)

    def _overflowed(self, signal: str) -> None:
        """A queue is full: the end of the export under way shows whether that is the trouble."""
        with self._changing:
            troubles = self._failing.setdefault(signal, {})
            if not troubles.keys() - {TOO_MUCH}:
                troubles[TOO_MUCH] = time.monotonic()

    def _tell(self, kind: str, why: str) -> None:
        now = time.monotonic()
        with self._changing:
            told_at = self._told_at.get(kind, -REMIND_SECONDS)
            if kind in self._told or now - told_at < REMIND_SECONDS:
                return
            self._told.add(kind)
            self._told_at[kind] = now
        logger.warning("telemetry is being lost: %s", why)


def _is_about_credentials(record: logging.LogRecord) -> bool:
    found = record.args if isinstance(record.args, tuple) else ()
    return any(getattr(each, "name", each) in _CREDENTIALS for each in found if _is_plain(each))


def _is_plain(value: object) -> bool:
    return isinstance(getattr(value, "name", value), str | int)


@contextmanager
def hearing() -> Iterator[list[logging.LogRecord]]:
    """Collect the log records of the exporters in this thread, while the block runs."""
    records: list[logging.LogRecord] = []
    _exports.records = records
    try:
        yield records
    finally:
        _exports.records = None


class Reporting:
    """Makes an exporter report how its exports end; a class to inherit from before the exporter's.

    `report_to` says to whom.
    """

    _reports: LossReports
    _signal: str
    _address: str

    def report_to(self, reports: LossReports, signal: str, endpoint: str) -> None:
        self._reports, self._signal, self._address = reports, signal, without_user(endpoint)
        for kind in type(self).__mro__:
            loud = logging.getLogger(kind.__module__)
            if loud.name.startswith(EXPORTERS):
                # those that keep an exporter from repeating itself would hide what we ask for
                for quieting in list(loud.filters):
                    loud.removeFilter(quieting)

    def export(self, *arguments: Any, **options: Any) -> Any:
        exporter: Any = super()
        with hearing() as records:
            result = exporter.export(*arguments, **options)
        if result.name == "SUCCESS":
            self._reports.arrived(self._signal, self._address)
        else:
            self._reports.failed(self._signal, self._address, records)
        return result


def without_user(endpoint: str) -> str:
    """Scheme, host and port of an endpoint: no credentials, no path."""
    url = urlsplit(endpoint)
    return f"{url.scheme}://{url.netloc.rpartition('@')[2]}"
