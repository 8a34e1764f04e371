"""Settings of the gateway, read from the environment."""

import re
from pathlib import Path

from pydantic import Field, HttpUrl, SecretStr, field_validator

from accounting.database import DatabaseUrl
from gateway.keys.directory import Auth
from gateway.limits.limiter import Failure
from gateway.trust_boundary import TraceContext
from o11y.settings import ServiceSettings


class Settings(ServiceSettings):
    """Addresses of the services behind the gateway, its time limits in seconds, and its callers.

    `auth` "auto" asks for keys once there is one. `admin_key` opens `/admin/…`. `keys_file` has
    keys that are to be there, see `gateway.keys.bootstrap`.
    """

    app_port: int = Field(8080, ge=1, le=65535)
    llm_proxy_url: HttpUrl = HttpUrl("http://127.0.0.1:8081")
    vector_url: HttpUrl = HttpUrl("http://127.0.0.1:8082")
    inference_url: HttpUrl = HttpUrl("http://127.0.0.1:8083")
    request_timeout_seconds: float = Field(60, gt=0)
    stream_timeout_seconds: float = Field(600, gt=0)
    seed_corpus: bool = True
    trace_context: TraceContext = "continue"
    auth: Auth = "auto"
    admin_key: SecretStr | None = Field(None, min_length=16)
    metrics_public: bool = True
    database_url: DatabaseUrl = SecretStr("sqlite:///.local/o11y.db")
    keys_file: Path | None = None
    tempo_url: HttpUrl | None = None
    """Tempo's HTTP API, or that of the embedded trace store: the console shows traces from it."""
    grafana_url: HttpUrl | None = None
    """Grafana's address for browsers: the console links each trace to it."""
    limits_url: SecretStr = SecretStr("memory://")
    """The store of the limits."""
    limits_failure: Failure = "pass"
    """`refuse`: calls of limited keys get 503 while the store is away."""
    budget_warn_ratio: float = Field(0.8, gt=0, le=1)
    """The part of a budget from which answers warn that it is nearly used up."""

    @field_validator("limits_url")
    @classmethod
    def is_a_store(cls, value: SecretStr) -> SecretStr:
        if not re.match(r"memory://$|(redis|valkey)s?://.", value.get_secret_value()):
            raise ValueError("should be memory://, redis://HOST:PORT or valkey://HOST:PORT")
        return value
