"""Settings from environment variables, and the one line that says which of them is wrong."""

import sys
from typing import Literal, TypeVar, get_args
from urllib.parse import unquote, urlsplit

from dotenv import load_dotenv
from pydantic import BaseModel, Field, FilePath, SecretStr, ValidationError, field_validator
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
    otel_exporter_otlp_compression: Literal["none", "gzip"] = "none"
    otel_exporter_otlp_certificate: FilePath | None = None
    otel_exporter_otlp_client_certificate: FilePath | None = None
    otel_exporter_otlp_client_key: FilePath | None = None
    otel_traces_exporter: Literal["otlp", "none"] = "otlp"
    otel_metrics_exporter: Literal["otlp", "none"] = "otlp"
    otel_logs_exporter: Literal["otlp", "none"] = "otlp"
    otel_exporter_otlp_metrics_temporality_preference: str = "cumulative"
    otel_instrumentation_genai_capture_message_content: Literal[
        "NO_CONTENT", "SPAN_ONLY", "EVENT_ONLY", "SPAN_AND_EVENT"
    ] = "NO_CONTENT"
    otel_traces_sampler: Literal[
        "always_on",
        "always_off",
        "traceidratio",
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
    ] = "parentbased_always_on"
    otel_traces_sampler_arg: float = Field(1.0, ge=0, le=1)
    otel_bsp_schedule_delay: float = Field(1000, gt=0)
    """Milliseconds a finished span waits for its batch: who looks at once should find it."""
    otel_bsp_max_queue_size: int = Field(2048, ge=1)
    otel_bsp_max_export_batch_size: int = Field(512, ge=1)
    otel_blrp_schedule_delay: float = Field(1000, gt=0)
    otel_blrp_max_queue_size: int = Field(2048, ge=1)
    otel_blrp_max_export_batch_size: int = Field(512, ge=1)
    otel_metric_export_interval: float = Field(10_000, gt=0)

    @field_validator("otel_exporter_otlp_endpoint")
    @classmethod
    def has_a_host(cls, value: str | None) -> str | None:
        if value is not None:
            url = urlsplit(value if "://" in value else f"//{value}")
            if not url.hostname or url.port == 0:
                raise ValueError("not an address")
        return value

    @field_validator("otel_instrumentation_genai_capture_message_content", mode="before")
    @classmethod
    def is_in_any_case(cls, value: object) -> object:
        """As the GenAI utilities read it."""
        return value.strip().upper() if isinstance(value, str) else value

    @field_validator("otel_exporter_otlp_metrics_temporality_preference")
    @classmethod
    def is_cumulative(cls, value: str) -> str:
        if value.strip().lower() != "cumulative":
            raise ValueError(
                "sums are sent cumulative; the Collector's cumulativetodelta processor converts"
            )
        return value

    @field_validator("otel_exporter_otlp_headers")
    @classmethod
    def can_be_sent(cls, value: SecretStr | None) -> SecretStr | None:
        text = unquote(value.get_secret_value()) if value else ""
        if not (text.isascii() and text.isprintable()):
            raise ValueError("a header holds a character that cannot be sent")
        return value

    @field_validator("otel_traces_sampler", mode="before")
    @classmethod
    def in_any_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value


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
        field, *inner = (str(part) for part in item["loc"] or ("settings",))
        known = settings_class.model_fields.get(field)
        hidden = known is None or _has_secrets(known.annotation) or item["type"] == "missing"
        shown = "" if hidden else f" (got {item['input']!r})"
        reason = item["msg"].removeprefix("Value error, ")
        variable = field.upper() if item["loc"] else field
        lines.append(f"{'.'.join((variable, *inner))}: {reason}{shown}")
    return lines


def _has_secrets(annotation: object) -> bool:
    """Whether a value of this type is a secret or holds one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return any(_has_secrets(field.annotation) for field in annotation.model_fields.values())
    return annotation is SecretStr or any(_has_secrets(each) for each in get_args(annotation))
