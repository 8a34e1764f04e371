"""Settings of llm-proxy, read from the environment."""

import re
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

import msgspec
from genai_prices.data import providers as price_lists
from genai_prices.types import ModelPrice
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    SecretStr,
    StringConstraints,
    field_validator,
    model_validator,
)
from pydantic_settings import NoDecode

from accounting.settings import LedgerSettings
from llm_proxy.pricing import NO_LIST

LOCAL = "o11y-local"
"""Name of the local inference service as a provider; without a `base_url` it is INFERENCE_URL."""

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$")]
HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]
HeaderValue = Annotated[str, StringConstraints(pattern=r"^[\x20-\x7e]*$")]


def _has_prices(value: str | None) -> str | None:
    known = [provider.id for provider in price_lists]
    if value is not None and value not in (NO_LIST, *known):
        names = ", ".join(known)
        raise ValueError(f"genai-prices has no such provider; {NO_LIST}, or one of {names}")
    return value


def _fits_a_header(value: SecretStr | None) -> SecretStr | None:
    if value is not None and not re.fullmatch(r"[\x21-\x7e]+", value.get_secret_value()):
        raise ValueError("a key is printable ASCII without spaces or line ends")
    return value


class ModelPrices(BaseModel):
    """Prices of a model in US dollars for a million tokens. Without `cached`, cached input costs as
    much as input.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: Decimal = Field(ge=0)
    output: Decimal = Field(Decimal(0), ge=0)
    cached: Decimal | None = Field(None, ge=0)

    @property
    def listed(self) -> ModelPrice:
        """The prices as an entry of genai-prices."""
        cached = self.input if self.cached is None else self.cached
        return ModelPrice(input_mtok=self.input, output_mtok=self.output, cache_read_mtok=cached)


class ProviderSettings(BaseModel):
    """One provider: its address, key, models, prices and limits. Times are in seconds.

    `models` has the provider's name for each model that callers ask for, under `*` that for any
    other; a name that isn't there goes through as it is. `pricing` names the price list (a provider
    of genai-prices) for a base URL that genai-prices doesn't know, where a model would be priced by
    its name; with "none" no list is used. `prices` are one's own, by the name the provider answers
    with, and come before the list. `stream_usage` is false for a provider that refuses
    `stream_options`. `max_output_tokens` is the most that its models write in one answer: what a
    call may cost that doesn't say itself.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    base_url: HttpUrl | None = None
    api_key: SecretStr | None = None
    api_key_header: HeaderName = "authorization"
    headers: dict[HeaderName, HeaderValue] = {}
    query: dict[str, str] = {}
    models: dict[str, str] = {}
    chat_model: str | None = None
    embedding_model: str | None = None
    pricing: str | None = None
    prices: dict[str, ModelPrices] = {}
    connect_seconds: float = Field(5, gt=0, le=60)
    first_byte_seconds: float = Field(60, gt=0)
    idle_seconds: float = Field(30, gt=0)
    retries: int = Field(2, ge=0, le=10)
    max_concurrency: int = Field(256, ge=1)
    queue_seconds: float = Field(5, ge=0)
    breaker_failures: int = Field(5, ge=1)
    breaker_seconds: float = Field(10, gt=0)
    stream_usage: bool = True
    max_output_tokens: int | None = Field(None, ge=1)

    _has_prices = field_validator("pricing")(_has_prices)
    _fits_a_header = field_validator("api_key")(_fits_a_header)

    @model_validator(mode="after")
    def has_an_address(self) -> Self:
        if self.base_url is None and self.name != LOCAL:
            raise ValueError(f"base_url is missing (only {LOCAL} needs none)")
        return self


class Settings(LedgerSettings):
    """The providers in their order, and the proxy's own settings.

    `llm_providers` is a JSON list of ProviderSettings. Without it there is one: the OPENAI_*
    variables' and, with neither key nor base URL, the local inference service.
    """

    app_port: int = Field(8081, ge=1, le=65535)
    openai_api_key: SecretStr | None = None
    openai_base_url: HttpUrl | None = None
    openai_model: str = "gpt-4o-mini"
    openai_embedding_model: str = "text-embedding-3-small"
    openai_pricing: str | None = None
    llm_providers: Annotated[list[ProviderSettings] | None, NoDecode] = None
    llm_time_chunks: bool = False
    """True: the time between the chunks of streams is measured, a value for each chunk."""
    inference_url: HttpUrl = HttpUrl("http://127.0.0.1:8083")
    request_timeout_seconds: float = Field(60, gt=0)
    stream_timeout_seconds: float = Field(600, gt=0)
    budget_unknown_price: Literal["refuse", "pass"] = "refuse"
    """`pass`: a call whose price isn't known may be made where a budget holds, and counts 0."""

    _has_prices = field_validator("openai_pricing")(_has_prices)
    _fits_a_header = field_validator("openai_api_key")(_fits_a_header)

    @field_validator("llm_providers", mode="before")
    @classmethod
    def is_a_list(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            return msgspec.json.decode(value, type=list[dict[str, Any]])
        except msgspec.DecodeError as error:
            raise ValueError(f"not a JSON list of providers: {error}") from None

    @field_validator("llm_providers")
    @classmethod
    def has_names(cls, value: list[ProviderSettings] | None) -> list[ProviderSettings] | None:
        names = [provider.name for provider in value or ()]
        if value is not None and not names:
            raise ValueError("no provider is in the list")
        if len(set(names)) < len(names):
            raise ValueError("two providers have the same name")
        return value

    def providers(self) -> list[ProviderSettings]:
        """The providers in their order."""
        if self.llm_providers is not None:
            return self.llm_providers
        if self.openai_api_key is None and self.openai_base_url is None:
            return [ProviderSettings(name=LOCAL)]
        return [
            ProviderSettings(
                name="openai" if self.openai_pricing in (None, NO_LIST) else self.openai_pricing,
                base_url=self.openai_base_url or HttpUrl("https://api.openai.com/v1"),
                api_key=self.openai_api_key,
                chat_model=self.openai_model,
                embedding_model=self.openai_embedding_model,
                pricing=self.openai_pricing,
            )
        ]
