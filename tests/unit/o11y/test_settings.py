"""A bad setting stops the process with one line that names it and tells no secret."""

from pathlib import Path
from typing import Self

import pytest
from pydantic import Field, SecretStr, model_validator

from o11y.settings import ServiceSettings, load

SECRET = "hunter2"


class Settings(ServiceSettings):
    app_port: int = Field(8000, ge=1, le=65535)
    request_timeout_seconds: float = Field(60, gt=0)
    api_key: SecretStr | None = Field(None, min_length=20)
    mirror: bool = False

    @model_validator(mode="after")
    def mirror_is_not_here(self) -> Self:
        if self.mirror and self.app_host == "127.0.0.1":
            raise ValueError("a mirror needs APP_HOST")
        return self


class NeedsPort(ServiceSettings):
    pass


def refused(
    capsys: pytest.CaptureFixture[str], settings: type[ServiceSettings] = Settings
) -> list[str]:
    """The lines on stderr of a start that settings prevent."""
    with pytest.raises(SystemExit) as stopped:
        load(settings)
    assert stopped.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    return output.err.splitlines()


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("APP_PORT", "http", "unable to parse string as an integer (got 'http')"),
        ("APP_PORT", "70000", "less than or equal to 65535 (got '70000')"),
        ("LOG_LEVEL", "LOUD", "'ERROR' (got 'LOUD')"),
        ("DEBUG_MODE", "perhaps", "(got 'perhaps')"),
        ("REQUEST_TIMEOUT_SECONDS", "0", "greater than 0 (got '0')"),
        (
            "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT",
            "true",
            "'NO_CONTENT', 'SPAN_ONLY', 'EVENT_ONLY' or 'SPAN_AND_EVENT' (got 'TRUE')",
        ),
        ("LOG_LEVEL", "two\nlines", r"(got 'two\nlines')"),
    ],
)
def test_a_bad_value_stops_the_start_with_one_line_that_names_the_variable(
    variable: str,
    value: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(variable, value)
    [line] = refused(capsys)
    assert line.startswith(f"{variable}: ")
    assert words in line


def test_each_bad_variable_gets_its_own_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("APP_PORT", "0")
    monkeypatch.setenv("DEBUG_MODE", "perhaps")
    assert [line.split(":")[0] for line in refused(capsys)] == ["APP_PORT", "DEBUG_MODE"]


def test_a_missing_variable_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, NeedsPort) == ["APP_PORT: Field required"]


def test_the_value_of_a_secret_is_never_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("API_KEY", SECRET)
    [line] = refused(capsys)
    assert line.startswith("API_KEY: ")
    assert SECRET not in line


def test_an_error_about_several_variables_shows_no_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("API_KEY", f"{SECRET} and some more")
    monkeypatch.setenv("MIRROR", "true")
    [line] = refused(capsys)
    assert line.startswith("settings: a mirror needs APP_HOST")
    assert SECRET not in line


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "")
    monkeypatch.setenv("APP_PORT", "")
    settings = load(Settings)
    assert (settings.otel_service_name, settings.app_port) == (None, 8000)


@pytest.mark.parametrize(("variable", "port"), [(None, 8001), ("8002", 8002)])
def test_a_file_fills_in_what_the_environment_lacks(
    variable: str | None, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APP_PORT", variable or "")
    if not variable:
        monkeypatch.delenv("APP_PORT")
    Path(".env").write_text("APP_PORT=8001\n")
    assert load(Settings).app_port == port


def test_a_secret_is_hidden_from_whoever_prints_the_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("API_KEY", f"{SECRET} and some more")
    assert SECRET not in repr(load(Settings))
