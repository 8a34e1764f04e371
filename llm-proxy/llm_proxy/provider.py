"""A provider of models: its address, its client, and the state it keeps between calls."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import httpx2
import msgspec
from opentelemetry import baggage, context
from opentelemetry.context import Context
from pydantic import SecretStr

from accounting.caller import with_charged
from llm_proxy.breaker import Breaker
from llm_proxy.pricing import NO_LIST, PriceList
from llm_proxy.proxies import proxy_for
from llm_proxy.settings import LOCAL, ProviderSettings
from llm_proxy.typical import TypicalOutputs
from o11y.http.attempts import CALL, Call, traced
from o11y.http.balancer import RESEND_COUNT, Balancer, BalancingTransport, as_is, resolve
from o11y.http.headers import JSON, UNTRACED, USER_AGENT
from o11y.http.transport import NetworkTransport, no_cookies, port_of, read_and_close
from o11y.telemetry import schema
from o11y.telemetry.signals import Telemetry
from o11y.web.internal_token import sent
from o11y.web.problems import unavailable

logger = logging.getLogger(__name__)

MODELS_SECONDS = 2.0
ANY = "*"

WELL_KNOWN = {
    **{name: name for name in ("anthropic", "cohere", "deepseek", "groq", "openai", "perplexity")},
    "aws": "aws.bedrock",
    "azure": "azure.ai.openai",
    "google": "gcp.gen_ai",
    "mistral": "mistral_ai",
    "moonshotai": "moonshot_ai",
    "x-ai": "x_ai",
}
"""Values of `gen_ai.provider.name` that the conventions list (semconv gen-ai/client-inference), by
the ids that genai-prices has for the same.
"""


class _Model(msgspec.Struct):
    id: str
    kind: str | None = None


class _Models(msgspec.Struct):
    data: list[_Model]


_models = msgspec.json.Decoder(_Models)


class Provider:
    """One upstream with its credentials, models, prices, breaker and limit of calls at once."""

    def __init__(
        self,
        settings: ProviderSettings,
        inference_url: str,
        telemetry: Telemetry,
        transport: httpx2.AsyncBaseTransport | None = None,
        internal_token: SecretStr | None = None,
    ) -> None:
        self.settings = settings
        self.name = settings.name
        self.is_local = settings.name == LOCAL
        self.charges = self.is_local and not settings.prices
        """True for the local service, which charges its calls itself, by the machine's price; not
        where the settings have prices for it.
        """
        base = str(settings.base_url) if settings.base_url else f"{inference_url.rstrip('/')}/v1"
        self.url = httpx2.URL(base.rstrip("/")).copy_merge_params(settings.query)
        self._auth = _credentials(self.url)
        self.url = self.url.copy_with(userinfo=b"")
        self.address = self.url.host
        self.port = port_of(self.url)
        own = {model: price.listed for model, price in settings.prices.items()}
        # local weights may have the name of a model that is sold, and don't cost what that does
        pricing = settings.pricing or (NO_LIST if self.is_local else None)
        self.prices = PriceList(pricing, base, own)
        self.kind = WELL_KNOWN.get(self.prices.seller or self.name, self.name)
        """`gen_ai.provider.name`: the conventions' word for who is at the address, or our name."""
        self.attributes: Mapping[str, str | int] = {
            schema.PROVIDER: self.kind,
            schema.SERVER_ADDRESS: self.address,
            schema.SERVER_PORT: self.port,
        }
        """Attributes of the spans and metrics of calls."""
        self.title = (
            "inference-svc" if self.is_local else f"the LLM provider at {self.address}:{self.port}"
        )
        if self.prices.guesses:
            logger.info(
                "%s is in no price list: models without `prices` cost what those sold under their "
                "names do; `pricing` (OPENAI_PRICING) names a list, or %s",
                self.title,
                NO_LIST,
            )
        self.breaker = Breaker(settings.breaker_failures, settings.breaker_seconds)
        self.slots = asyncio.BoundedSemaphore(settings.max_concurrency)
        self.chat_model = settings.chat_model
        self.embedding_model = settings.embedding_model
        self.typical = TypicalOutputs()
        self._urls: dict[str, httpx2.URL] = {}
        self.balancer = (
            Balancer(str(self.url), as_is if transport else resolve) if self.is_local else None
        )
        # not to an address of one's own, whoever answers there
        ours = sent(internal_token) if self.is_local and settings.base_url is None else {}
        self._client = self._connected(telemetry, transport, ours)

    def model(self, model_name: str) -> str:
        """The provider's name for the model that is asked for."""
        models = self.settings.models
        return models.get(model_name) or models.get(ANY) or model_name

    def is_configured(self, model: str) -> bool:
        """True for a model that the settings name, or the local service has."""
        named = self.settings
        return (
            model in (self.chat_model, self.embedding_model)
            or model in named.prices
            or model in named.models
            or model in named.models.values()
        )

    async def learn_models(self) -> None:
        """Ask the local service once which models it has. Raises Problem 503."""
        if not self.is_local or self.chat_model:
            return
        try:
            async with asyncio.timeout(MODELS_SECONDS):
                listed = _models.decode((await self.get("/models")).content)
        except (httpx2.HTTPError, TimeoutError) as error:
            raise unavailable("inference-svc can't be reached") from error
        except msgspec.DecodeError as error:
            raise unavailable("inference-svc does not say which models it has") from error
        kinds = {model.kind: model.id for model in listed.data}
        if not kinds.get("chat") or not kinds.get("embedding"):
            raise unavailable("inference-svc does not say which models it has")
        self.chat_model, self.embedding_model = kinds["chat"], kinds["embedding"]

    def path(self, path: str) -> str:
        """The provider's full path for one below its base URL."""
        return self.url.path.rstrip("/") + path

    def shown_url(self, path: str) -> str:
        """The URL of a path without the query that the settings add, which may be secret."""
        return f"{self.url.scheme}://{self.url.netloc.decode('ascii')}{self.path(path)}"

    async def send(
        self, path: str, body: bytes, call: Call, parent: Context, resends: int
    ) -> httpx2.Response:
        """POST to a path; the response has its head, and must be closed. Raises httpx2.HTTPError.

        The attempt's span is a child of the one in `parent`. Its baggage, with user and session, is
        sent to the local service only.
        """
        extensions = {CALL: call, RESEND_COUNT: resends}
        if not self.is_local:
            parent = baggage.clear(parent)
        elif not self.charges:
            parent = with_charged(parent)
        token = context.attach(parent)
        try:
            return await self._send("POST", path, extensions, content=body)
        finally:
            context.detach(token)

    async def _send(
        self, method: str, path: str, extensions: dict[str, Any], **options: Any
    ) -> httpx2.Response:
        url = self._urls.get(path)
        if url is None:
            url = self._urls[path] = self.url.copy_with(path=self.path(path))
        request = self._client.build_request(method, url, extensions=extensions, **options)
        return await self._client.send(request, stream=True)

    async def get(self, path: str) -> httpx2.Response:
        """The whole response of a GET outside any trace. Raises httpx2.HTTPError."""
        response = await self._send("GET", path, {}, headers=UNTRACED)
        await read_and_close(response)
        return response

    async def aclose(self) -> None:
        await self._client.aclose()

    def _connected(
        self,
        telemetry: Telemetry,
        transport: httpx2.AsyncBaseTransport | None,
        ours: Mapping[str, str],
    ) -> httpx2.AsyncClient:
        """The HTTP client: balanced for the local service, else through the proxy of the
        environment.
        """
        headers = {**_headers(self.settings), **ours}
        name = "inference-svc" if self.is_local else self.name
        proxy = None if transport or self.is_local else proxy_for(self.url)
        tls = self.url.scheme == "https" or (proxy or "").startswith("https:")
        network = traced(name, telemetry, transport or NetworkTransport(tls=tls, proxy=proxy))
        return httpx2.AsyncClient(
            headers=headers,
            auth=None if "authorization" in headers else self._auth,
            timeout=httpx2.Timeout(None, connect=self.settings.connect_seconds),
            cookies=no_cookies(),
            transport=BalancingTransport(self.balancer, network) if self.balancer else network,
        )


def _credentials(url: httpx2.URL) -> httpx2.BasicAuth | None:
    """The credentials in a URL, for basic authentication; None without any."""
    return httpx2.BasicAuth(url.username, url.password) if url.userinfo else None


def _headers(settings: ProviderSettings) -> dict[str, str]:
    headers = {**JSON, **USER_AGENT}
    if settings.api_key is not None:
        key = settings.api_key.get_secret_value()
        name = settings.api_key_header.lower()
        headers[name] = f"Bearer {key}" if name == "authorization" else key
    return headers | {name.lower(): value for name, value in settings.headers.items()}
