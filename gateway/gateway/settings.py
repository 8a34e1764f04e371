"""Settings of the gateway, read from the environment."""

from pydantic import Field, HttpUrl

from gateway.trust_boundary import TraceContext
from o11y.settings import ServiceSettings


class Settings(ServiceSettings):
    """Addresses of the services behind the gateway, and its time limits in seconds."""

    app_port: int = Field(8080, ge=1, le=65535)
    llm_proxy_url: HttpUrl = HttpUrl("http://127.0.0.1:8081")
    vector_url: HttpUrl = HttpUrl("http://127.0.0.1:8082")
    inference_url: HttpUrl = HttpUrl("http://127.0.0.1:8083")
    request_timeout_seconds: float = Field(60, gt=0)
    stream_timeout_seconds: float = Field(600, gt=0)
    seed_corpus: bool = True
    trace_context: TraceContext = "continue"
