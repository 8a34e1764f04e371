"""Log lines: their fields, the trace they belong to, and where they go."""

import json
import logging
import sys
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from opentelemetry._logs import SeverityNumber

from o11y.settings import ServiceSettings
from o11y.telemetry import logs
from o11y.telemetry.logs import JsonFormatter, OtlpHandler, PlainFormatter
from o11y.telemetry.signals import Telemetry
from tests.support.collectors import HttpCollector
from tests.support.recorded import Recorded, identity
from tests.support.telemetry_variables import set_variables
from tests.support.whose import identified


def record(message: str = "hello", /, **extra: object) -> logging.LogRecord:
    made = logging.makeLogRecord(
        {"name": "things", "levelname": "INFO", "levelno": logging.INFO, "msg": message, **extra}
    )
    made.created = 1_790_000_000.25
    return made


def line(made: logging.LogRecord) -> dict[str, Any]:
    text = JsonFormatter("thing-svc").format(made)
    assert "\n" not in text
    found: dict[str, Any] = json.loads(text)
    return found


def failure() -> dict[str, object]:
    """The extra of a record about an exception."""
    try:
        raise ValueError("out of things")
    except ValueError:
        return {"exc_info": sys.exc_info()}


def test_a_line_says_when_how_bad_who_and_what() -> None:
    assert line(record()) == {
        "timestamp": "2026-09-21T14:13:20.250000+00:00",
        "level": "INFO",
        "service": "thing-svc",
        "logger": "things",
        "message": "hello",
    }


def test_a_line_within_a_span_carries_its_ids(recorded: Recorded) -> None:
    with recorded.telemetry.tracer.start_as_current_span("work") as span:
        found = line(record())
    own = span.get_span_context()
    assert found["trace_id"] == f"{own.trace_id:032x}"
    assert found["span_id"] == f"{own.span_id:016x}"


def test_a_line_says_whose_request_it_is() -> None:
    with identified("ann", "s1"):
        found = line(record())
    assert (found["user.id"], found["session.id"]) == ("ann", "s1")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (3, 3),
        ("é\n", "é\n"),
        (None, None),
        ([1], [1]),
        ("a\ud800", "a\ud800"),
        (1 << 70, 1 << 70),
        ({1: {2}}, {"1": [2]}),
        (Decimal("0.10"), "0.10"),
        (datetime(2026, 1, 2), "2026-01-02T00:00:00"),
    ],
)
def test_extra_fields_are_fields_of_the_line(value: object, shown: object) -> None:
    assert line(record(documents=value))["documents"] == shown


def test_arguments_are_part_of_the_message() -> None:
    assert line(record("%s of %d", args=("one", 2)))["message"] == "one of 2"


def test_an_exception_is_one_field() -> None:
    found = line(record(**failure()))
    assert found["exception"].startswith("Traceback")
    assert found["exception"].endswith("ValueError: out of things")


def test_uvicorns_second_form_of_its_message_is_left_out() -> None:
    assert "color_message" not in line(record(color_message="\x1b[32mhello"))


def test_a_plain_line_is_for_people(recorded: Recorded) -> None:
    with recorded.telemetry.tracer.start_as_current_span("work") as span:
        text = PlainFormatter().format(record(documents=3))
    trace_id = f"{span.get_span_context().trace_id:032x}"
    assert text.endswith(f"INFO    things hello documents=3 {trace_id}")


@pytest.mark.parametrize(
    ("extra", "command"),
    [
        ({"status": 200, "duration_seconds": 0.1}, False),
        ({"status": 404, "duration_seconds": 4.9}, False),
        ({"status": 502, "duration_seconds": 0.1}, True),
        ({"status": 200, "duration_seconds": 5.0}, True),
        ({"levelname": "WARNING", "levelno": logging.WARNING}, True),
    ],
)
def test_a_plain_line_of_a_failed_or_slow_call_has_the_command_that_shows_it(
    extra: dict[str, object], command: bool, recorded: Recorded
) -> None:
    with recorded.telemetry.tracer.start_as_current_span("work") as span:
        text = PlainFormatter().format(record(**extra))
    trace_id = f"{span.get_span_context().trace_id:032x}"
    assert text.endswith(f" make trace ID={trace_id}") == command
    assert text.endswith(trace_id)
    assert "make trace" not in PlainFormatter().format(record(**extra))


def test_a_plain_line_shows_the_exception_below() -> None:
    first, *below = PlainFormatter().format(record(**failure())).splitlines()
    assert first.endswith("things hello")
    assert below[-1] == "ValueError: out of things"


def configured(recorded: Recorded, root: logging.Logger, **given: object) -> logging.Logger:
    logs.configure(ServiceSettings.model_validate({"app_port": 8000, **given}), recorded.telemetry)
    return root


@pytest.mark.parametrize(
    ("given", "level", "formatter"),
    [
        ({}, logging.INFO, JsonFormatter),
        ({"log_level": "WARNING"}, logging.WARNING, JsonFormatter),
        ({"debug_mode": True}, logging.DEBUG, PlainFormatter),
        ({"debug_mode": True, "log_level": "ERROR"}, logging.DEBUG, PlainFormatter),
    ],
)
def test_level_and_form_follow_the_settings(
    given: dict[str, object],
    level: int,
    formatter: type[logging.Formatter],
    recorded: Recorded,
    root: logging.Logger,
) -> None:
    configured(recorded, root, **given)
    assert root.level == level
    assert formatter in {type(handler.formatter) for handler in root.handlers}


def test_lines_go_to_standard_output(
    recorded: Recorded, root: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    configured(recorded, root).warning("hello", extra={"documents": 3})
    found = json.loads(capsys.readouterr().out)
    assert (found["message"], found["documents"]) == ("hello", 3)


def otlp(recorded: Recorded) -> logging.Logger:
    logger = logging.Logger("things")
    logger.addHandler(OtlpHandler(recorded.telemetry.logger_provider))
    return logger


def test_records_go_to_otlp_with_their_trace_and_user(recorded: Recorded) -> None:
    logger = otlp(recorded)
    with recorded.telemetry.tracer.start_as_current_span("work"), identified("ann", "s1"):
        logger.warning("hello %d", 3, extra={"documents": 3})
    logger.error("bye")
    first, second = recorded.logs()
    assert (first.log_record.body, first.log_record.severity_number) == (
        "hello 3",
        SeverityNumber.WARN,
    )
    assert first.instrumentation_scope
    assert first.instrumentation_scope.name == "things"
    own = identity(recorded.span("work"))
    assert (first.log_record.trace_id, first.log_record.span_id) == (own.trace_id, own.span_id)
    attributes = first.log_record.attributes or {}
    assert (attributes["user.id"], attributes["session.id"]) == ("ann", "s1")
    assert attributes["documents"] == 3
    assert first.resource.attributes["service.name"] == "thing-svc"
    assert (dict(second.log_record.attributes or {}), second.log_record.trace_id) == ({}, 0)


def test_an_exception_goes_to_otlp_by_the_conventions(recorded: Recorded) -> None:
    logger = otlp(recorded)
    try:
        raise ValueError("out of things")
    except ValueError:
        logger.exception("no more")
    logger.error("no exception", exc_info=True)
    told, without = (each.log_record.attributes or {} for each in recorded.logs())
    assert (told["exception.type"], told["exception.message"]) == ("ValueError", "out of things")
    assert str(told["exception.stacktrace"]).endswith("ValueError: out of things\n")
    assert not without


def test_a_line_that_cannot_be_sent_is_no_error_of_who_wrote_it(
    recorded: Recorded, capsys: pytest.CaptureFixture[str]
) -> None:
    otlp(recorded).warning("%d things", "many")
    assert "--- Logging error ---" in capsys.readouterr().err


def test_with_an_endpoint_records_go_to_otlp_too(
    collector: HttpCollector,
    settings: ServiceSettings,
    root: logging.Logger,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    endpoint = f"http://127.0.0.1:{collector.server_port}/otlp"
    set_variables(monkeypatch, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint)
    telemetry = Telemetry("thing-svc", settings)
    logs.configure(settings, telemetry)
    assert [type(handler) for handler in root.handlers] == [logging.StreamHandler, OtlpHandler]
    telemetry.shutdown()
