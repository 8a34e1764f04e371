"""The LLM provider behind the proxy: OpenAI, anything that speaks its API, or the local service."""

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai
from opentelemetry import propagate
from pydantic import BaseModel, ValidationError

from llm_proxy import pricing
from llm_proxy.settings import Settings
from o11y import deadline
from o11y.balancer import Balancer, BalancingTransport
from o11y.hop import UNTRACED
from o11y.problems import Problem, out_of_time, unavailable

LOCAL = "o11y-local"
CONNECT_SECONDS = 2.0
MODELS_SECONDS = 2.0


@dataclass(frozen=True)
class Models:
    """The models a caller gets who names none."""

    chat: str
    embedding: str


@dataclass(frozen=True)
class Upstream:
    """A provider's answer: its body untouched, and what it says of itself."""

    content: bytes
    body: dict[str, Any]
    cost_usd: float | None
    replica: str | None = None
    """Host of the replica that answered, where the proxy chose one."""


class _Model(BaseModel):
    id: str
    kind: str


class _Listed(BaseModel):
    """What is read of the local service's list of models."""

    data: list[_Model]


class Refused(Exception):
    """The provider answered with an error that is the caller's to read: status and body as they
    came.
    """

    def __init__(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        super().__init__(f"the provider answered {status}")
        self.status = status
        self.content = content
        self.headers = dict(headers)


class Provider:
    """One upstream with its credentials, models and prices."""

    def __init__(
        self, settings: Settings, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        key, base = settings.openai_api_key, settings.openai_base_url
        self.is_local = key is None and base is None
        if self.is_local:
            self.name = LOCAL
            url = f"{str(settings.inference_url).rstrip('/')}/v1"
            self._models = None
        else:
            self.name = settings.openai_pricing or "openai"
            url = str(base).rstrip("/") if base else "https://api.openai.com/v1"
            self._models = Models(settings.openai_model, settings.openai_embedding_model)
        self.url = url
        self.address = urlsplit(url).hostname
        self.port = urlsplit(url).port or (443 if url.startswith("https") else 80)
        self.title = (
            "inference-svc" if self.is_local else f"the LLM provider at {self.address}:{self.port}"
        )
        self._pricing = settings.openai_pricing
        self._client = openai.AsyncOpenAI(
            api_key=key.get_secret_value() if key else "none",
            base_url=url,
            max_retries=0,
            http_client=httpx2.AsyncClient(
                transport=transport
                or (BalancingTransport(Balancer(url)) if self.is_local else None),
                follow_redirects=False,
            ),
        )

    async def models(self) -> Models:
        """The default models; the local service is asked once which ones it has."""
        if self._models is None:
            listing = self._client.get(
                "/models", cast_to=httpx2.Response, options={"headers": UNTRACED}
            )
            try:
                answer = await self._answer(listing, MODELS_SECONDS, "/models")
                listed = _Listed.model_validate_json(answer.content)
                kinds = {model.kind: model.id for model in listed.data}
                self._models = Models(kinds["chat"], kinds["embedding"])
            except (Refused, ValidationError, KeyError) as error:
                raise unavailable("inference-svc does not say which models it has") from error
        return self._models

    async def post(self, path: str, body: dict[str, Any], flavor: pricing.Flavor) -> Upstream:
        """One call. Its context is that of the span now current: the provider becomes its child.

        Raises Refused for what the caller did wrong, Problem 502 to 504 for the rest.
        """
        seconds = deadline.remaining()
        if seconds is not None and seconds <= 0:
            raise out_of_time("no time left to call the LLM provider")
        headers: dict[str, str] = {}
        if self.is_local:
            propagate.inject(headers)
            if seconds is not None:
                headers[deadline.HEADER] = f"{seconds:.3f}"
        else:
            propagate.inject(headers)
            headers.pop("baggage", None)  # who the user is stays in the house
        response = await self._answer(
            self._client.post(
                path,
                cast_to=httpx2.Response,
                body=body,
                options={
                    "headers": headers,
                    "timeout": httpx2.Timeout(seconds, connect=CONNECT_SECONDS),
                },
            ),
            seconds,
            path,
        )
        return self._upstream(response, flavor)

    async def _answer(
        self, call: Awaitable[httpx2.Response], seconds: float | None, path: str
    ) -> httpx2.Response:
        """A good answer of the provider, and ours for every way it can fail."""
        try:
            async with asyncio.timeout(seconds):
                return await call
        except openai.APIConnectionError as error:
            if isinstance(error, openai.APITimeoutError) and not isinstance(
                error.__cause__, httpx2.ConnectTimeout
            ):
                raise out_of_time(f"{self.title} did not answer {path} in time") from error
            raise unavailable(f"{self.title} can't be reached") from error
        except TimeoutError as error:
            raise out_of_time(f"{self.title} did not answer {path} in time") from error
        except openai.APIStatusError as error:
            raise self._refusal(error) from error

    async def get_models(self) -> Upstream:
        """The provider's own list of models."""
        response = await self._answer(
            self._client.get("/models", cast_to=httpx2.Response), deadline.remaining(), "/models"
        )
        return Upstream(response.content, {}, 0.0)

    async def close(self) -> None:
        await self._client.close()

    def _upstream(self, response: httpx2.Response, flavor: pricing.Flavor) -> Upstream:
        try:
            body = response.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise Problem(502, "the LLM provider's answer is no JSON object", code="bad_upstream")
        if self.is_local:
            return Upstream(response.content, body, 0.0, response.extensions.get("replica"))
        cost = pricing.cost_usd(body, flavor, self._pricing, self.url)
        return Upstream(response.content, body, cost)

    def _refusal(self, error: openai.APIStatusError) -> Exception:
        status = error.status_code
        if status in (401, 403):
            return Problem(
                502,
                f"the LLM provider refused our credentials ({status}); check OPENAI_API_KEY",
                code="provider_credentials",
            )
        if (status < 400 or status >= 500) and not (self.is_local and status in (503, 504)):
            return Problem(502, f"the LLM provider answered {status}", code="provider_error")
        kept = ("content-type", "retry-after")
        headers = {k: v for k in kept if (v := error.response.headers.get(k)) is not None}
        return Refused(status, error.response.content, headers)
