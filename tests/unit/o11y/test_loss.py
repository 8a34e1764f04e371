"""People are told once that telemetry is lost and why, and once that it arrives again."""

import logging
import sys
from collections.abc import Iterator

import pytest

from o11y.telemetry import loss
from o11y.telemetry.loss import LossReports

ADDRESS = "http://collector:4317"
exporter = logging.getLogger("opentelemetry.exporter.otlp.thing")
processor = logging.getLogger("opentelemetry.sdk.thing")


@pytest.fixture
def reports() -> Iterator[LossReports]:
    reports = LossReports()
    reports.listen()
    yield reports
    reports.stop()


def fail(reports: LossReports, signal: str = "TRACES", code: object = 503) -> None:
    with loss.hearing() as records:
        exporter.error("Failed to export %s, code: %s", signal, code)
    reports.failed(signal, ADDRESS, records)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name == "o11y.export"]


def test_a_failure_of_all_signals_is_told_once_with_the_exporters_words(
    reports: LossReports, caplog: pytest.LogCaptureFixture
) -> None:
    for signal in ("TRACES", "LOGS", "METRICS"):
        fail(reports, signal)
    for signal in ("TRACES", "LOGS"):
        reports.arrived(signal, ADDRESS)
    assert told(caplog) == [
        f"telemetry is being lost: {ADDRESS}: Failed to export TRACES, code: 503"
    ]
    reports.arrived("METRICS", ADDRESS)
    assert told(caplog)[1:] == [f"telemetry arrives again at {ADDRESS}"]


@pytest.mark.parametrize("code", [401, 403])
def test_bad_credentials_name_their_variable(
    code: int, reports: LossReports, caplog: pytest.LogCaptureFixture
) -> None:
    fail(reports, code=code)
    assert told(caplog)[0].endswith("; see OTEL_EXPORTER_OTLP_HEADERS")


def test_a_trouble_that_comes_and_goes_is_not_told_again_and_again(
    reports: LossReports, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        fail(reports)
        reports.arrived("TRACES", ADDRESS)
    assert len(told(caplog)) == 2
    monkeypatch.setattr(loss, "REMIND_SECONDS", 0.0)
    fail(reports)
    assert len(told(caplog)) == 3


def test_a_queue_that_is_full_though_exports_succeed_is_told(
    reports: LossReports, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor.warning("Queue full, dropping %s.", "Span")
    assert told(caplog) == []
    reports.arrived("TRACES", ADDRESS)
    reports.arrived("TRACES", ADDRESS)
    assert told(caplog) == [f"telemetry is being lost: more is waiting than {ADDRESS} takes"]
    monkeypatch.setattr(loss, "REMIND_SECONDS", 0.0)  # a minute later
    reports.arrived("TRACES", ADDRESS)
    assert told(caplog)[1:] == [f"telemetry arrives again at {ADDRESS}"]


def test_a_queue_that_is_full_because_exports_fail_is_no_trouble_of_its_own(
    reports: LossReports, caplog: pytest.LogCaptureFixture
) -> None:
    processor.warning("Queue full, dropping %s.", "Log")
    fail(reports, "LOGS")
    processor.warning("Queue full, dropping %s.", "Log")
    reports.arrived("LOGS", ADDRESS)
    assert [message[:24] for message in told(caplog)] == [
        "telemetry is being lost:",
        "telemetry arrives again ",
    ]


@pytest.mark.usefixtures("reports")
def test_other_lines_of_the_sdk_go_their_way(capsys: pytest.CaptureFixture[str]) -> None:
    output = logging.StreamHandler(sys.stdout)
    logging.getLogger().addHandler(output)
    processor.warning("A value is of the wrong type")
    exporter.warning("no export is under way")
    logging.getLogger().removeHandler(output)
    assert capsys.readouterr().out.splitlines() == [
        "A value is of the wrong type",
        "no export is under way",
    ]


@pytest.mark.usefixtures("reports")
def test_of_two_in_a_process_neither_passes_on_what_the_others_exporter_says(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = logging.StreamHandler(sys.stdout)
    logging.getLogger().addHandler(output)
    other = LossReports()
    other.listen()
    fail(other)
    other.stop()
    fail(other)
    logging.getLogger().removeHandler(output)
    assert [line[:24] for line in capsys.readouterr().out.splitlines()] == [
        "telemetry is being lost:"
    ]


def test_an_address_is_told_without_the_user_in_it() -> None:
    assert loss.without_user("https://user:secret@host:4318/v1/traces") == "https://host:4318"
