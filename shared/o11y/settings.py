"""Settings from environment variables, and the one line that says which of them is wrong."""

import sys
from typing import Literal, TypeVar

from dotenv import load_dotenv
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict


class ServiceSettings(BaseSettings):
    """What every service reads. A service subclasses it with its own port and variables."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", frozen=True)

    app_host: str = Field("127.0.0.1", min_length=1)
    app_port: int = Field(ge=1, le=65535)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    debug_mode: bool = False
    otel_service_name: str | None = None
    otel_exporter_otlp_endpoint: str | None = None
    otel_exporter_otlp_protocol: Literal["http/protobuf", "grpc"] | None = None
    otel_exporter_otlp_headers: SecretStr | None = None
    otel_traces_exporter: Literal["otlp", "none"] = "otlp"
    otel_metrics_exporter: Literal["otlp", "none"] = "otlp"
    otel_logs_exporter: Literal["otlp", "none"] = "otlp"


S = TypeVar("S", bound=ServiceSettings)


def load(settings_class: type[S]) -> S:
    """Read the environment; on a bad value print one line a variable on stderr and exit with 2.

    `.env` of the working directory fills in what the environment lacks; it is put there, because
    OpenTelemetry reads its own variables from nowhere else. A value is shown unless it is a secret.
    """
    load_dotenv(".env")
    try:
        return settings_class()
    except ValidationError as error:
        for line in describe(error, settings_class):
            print(line, file=sys.stderr)
        raise SystemExit(2) from None


def describe(error: ValidationError, settings_class: type[ServiceSettings]) -> list[str]:
    """One plain line for each variable the error is about."""
    lines = []
    for item in error.errors(include_url=False, include_context=False):
        field = str(item["loc"][0]) if item["loc"] else ""
        annotation = settings_class.model_fields.get(field)
        secret = annotation is not None and "SecretStr" in str(annotation.annotation)
        shown = "" if secret or item["type"] == "missing" else f" (got {item['input']!r})"
        reason = item["msg"].removeprefix("Value error, ")
        lines.append(f"{field.upper() or 'settings'}: {reason}{shown}")
    return lines
