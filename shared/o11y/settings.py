"""Settings from environment variables, and the one line that says which of them is wrong."""

import re
import sys
from typing import Literal, TypeVar, get_args

from dotenv import load_dotenv
from pydantic import BaseModel, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class ServiceSettings(BaseSettings):
    """Settings of every service, which subclasses it with its own port and variables."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", frozen=True)

    app_host: str = Field("127.0.0.1", min_length=1)
    app_port: int = Field(ge=1, le=65535)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    debug_mode: bool = False
    internal_token: SecretStr | None = Field(None, min_length=16)
    """The token that services send each other; those behind the gateway then ask for it."""
    otel_service_name: str | None = None
    otel_instrumentation_genai_capture_message_content: Literal[
        "NO_CONTENT", "SPAN_ONLY", "EVENT_ONLY", "SPAN_AND_EVENT"
    ] = "NO_CONTENT"

    @field_validator("internal_token")
    @classmethod
    def fits_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        if value and not re.fullmatch(r"[\x21-\x7e]+", value.get_secret_value()):
            raise ValueError("should be printable ASCII without spaces")
        return value

    @field_validator("otel_instrumentation_genai_capture_message_content", mode="before")
    @classmethod
    def is_in_any_case(cls, value: object) -> object:
        """The mode in upper case: the GenAI utilities read it in any."""
        return value.strip().upper() if isinstance(value, str) else value


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
    """True for a type whose values are secrets or hold one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return any(_has_secrets(field.annotation) for field in annotation.model_fields.values())
    return annotation is SecretStr or any(_has_secrets(each) for each in get_args(annotation))
