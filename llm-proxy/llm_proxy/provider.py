"""A provider: where it is, how it is asked, how it is doing."""

import asyncio
import logging
from collections.abc import Mapping

import httpx2
import msgspec
from opentelemetry import propagate
from opentelemetry.context import Context

from llm_proxy.breaker import Breaker
from llm_proxy.pricing import NO_LIST, PriceList
from llm_proxy.settings import LOCAL, ProviderSettings
from o11y import deadline
from o11y.balancer import REPLICA, Balancer, BalancingTransport, Replica, as_is, resolve
from o11y.hop import JSON, UNTRACED, USER_AGENT
from o11y.problems import unavailable
from o11y.transport import NetworkTransport, no_cookies, port_of, proxies

logger = logging.getLogger(__name__)

MODELS_SECONDS = 2.0
ANY = "*"


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
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self.settings = settings
        self.name = settings.name
        self.is_local = settings.name == LOCAL
        self.is_free = self.is_local and not settings.prices
        base = str(settings.base_url) if settings.base_url else f"{inference_url.rstrip('/')}/v1"
        self.url = httpx2.URL(base.rstrip("/")).copy_merge_params(settings.query)
        self._auth = _credentials(self.url)
        self.url = self.url.copy_with(userinfo=b"")
        self.address = self.url.host
        self.port = port_of(self.url)
        self.title = (
            "inference-svc" if self.is_local else f"the LLM provider at {self.address}:{self.port}"
        )
        own = {model: price.listed for model, price in settings.prices.items()}
        # local weights may have the name of a model that is sold: they are not priced by it
        pricing = settings.pricing or (NO_LIST if self.is_local else None)
        self.prices = PriceList(pricing, base, own)
        if self.prices.guesses:
            logger.info(
                "%s is in no price list: its models cost what those sold under their names do; "
                "`pricing` (OPENAI_PRICING) names a list, or %s",
                self.title,
                NO_LIST,
            )
        self.breaker = Breaker(settings.breaker_failures, settings.breaker_seconds)
        self.slots = asyncio.BoundedSemaphore(settings.max_concurrency)
        self.chat_model = settings.chat_model
        self.embedding_model = settings.embedding_model
        self._urls: dict[str, httpx2.URL] = {}
        self.balancer = (
            Balancer(str(self.url), as_is if transport else resolve) if self.is_local else None
        )
        self._client = self._connected(transport)

    def model(self, asked: str) -> str:
        """What this provider calls the model that is asked for."""
        models = self.settings.models
        return models.get(asked) or models.get(ANY) or asked

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

    def carrier(self, context: Context, seconds: float) -> dict[str, str]:
        """Headers that carry the trace; who the user is, and the deadline, stay in the house."""
        carrier: dict[str, str] = {}
        propagate.inject(carrier, context)
        if self.is_local:
            carrier[deadline.HEADER] = f"{seconds:.3f}"
        else:
            carrier.pop("baggage", None)
        return carrier

    async def send(
        self, method: str, path: str, body: bytes | None, carrier: Mapping[str, str]
    ) -> httpx2.Response:
        """Send a request below the base URL; the response has its head. Raises httpx2.HTTPError.

        It must be closed.
        """
        url = self._urls.get(path)
        if url is None:
            url = self._urls[path] = self.url.copy_with(path=self.url.path.rstrip("/") + path)
        request = self._client.build_request(method, url, headers=carrier, content=body)
        return await self._client.send(request, stream=True)

    async def get(self, path: str) -> httpx2.Response:
        """The whole response of a GET outside any trace. Raises httpx2.HTTPError."""
        response = await self.send("GET", path, None, UNTRACED)
        try:
            await response.aread()
        finally:
            await response.aclose()
        return response

    async def aclose(self) -> None:
        await self._client.aclose()

    def _connected(self, transport: httpx2.AsyncBaseTransport | None) -> httpx2.AsyncClient:
        """The client: balanced in the house, and outside through the proxies of the environment."""
        headers = _headers(self.settings)
        network = transport or NetworkTransport(tls=self.url.scheme == "https")
        return httpx2.AsyncClient(
            headers=headers,
            auth=None if "authorization" in headers else self._auth,
            timeout=httpx2.Timeout(None, connect=self.settings.connect_seconds),
            cookies=no_cookies(),
            transport=BalancingTransport(self.balancer, network) if self.balancer else network,
            mounts={} if transport or self.is_local else proxies(),
        )


def _credentials(url: httpx2.URL) -> httpx2.BasicAuth | None:
    """Those in an address."""
    return httpx2.BasicAuth(url.username, url.password) if url.userinfo else None


def replica_of(response: httpx2.Response) -> str | None:
    """Host of the replica that answered, where the proxy chose one."""
    replica: Replica | None = response.extensions.get(REPLICA)
    return replica.host if replica else None


def _headers(settings: ProviderSettings) -> dict[str, str]:
    headers = {**JSON, **USER_AGENT}
    if settings.api_key is not None:
        key = settings.api_key.get_secret_value()
        name = settings.api_key_header.lower()
        headers[name] = f"Bearer {key}" if name == "authorization" else key
    return headers | {name.lower(): value for name, value in settings.headers.items()}
