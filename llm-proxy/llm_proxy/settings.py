"""What llm-proxy reads from the environment."""

from genai_prices.data import providers
from pydantic import Field, HttpUrl, SecretStr, field_validator

from o11y.settings import ServiceSettings


class Settings(ServiceSettings):
    """Which provider, which models.

    With neither key nor base URL the provider is the local inference service. `openai_pricing`
    names the price list (a provider id of genai-prices) for a base URL it doesn't know by itself.
    """

    app_port: int = Field(8081, ge=1, le=65535)
    openai_api_key: SecretStr | None = None
    openai_base_url: HttpUrl | None = None
    openai_model: str = "gpt-4o-mini"
    openai_embedding_model: str = "text-embedding-3-small"
    openai_pricing: str | None = None
    inference_url: HttpUrl = HttpUrl("http://127.0.0.1:8083")
    request_timeout_seconds: float = Field(60, gt=0)

    @field_validator("openai_pricing")
    @classmethod
    def has_prices(cls, value: str | None) -> str | None:
        known = [provider.id for provider in providers]
        if value is not None and value not in known:
            raise ValueError(f"genai-prices has no such provider; it has {', '.join(known)}")
        return value
