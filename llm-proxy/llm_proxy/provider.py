"""A provider: where it is, how it is asked, how it is doing."""

import asyncio
import logging
from collections.abc import Mapping
from importlib.metadata import version

import msgspec
from opentelemetry import propagate
from opentelemetry.context import Context
from yarl import URL

from llm_proxy.breaker import Breaker
from llm_proxy.pricing import NO_LIST, PriceList
from llm_proxy.settings import LOCAL, ProviderSettings
from o11y import deadline
from o11y.balancer import Balancer, Replica, as_is, resolve
from o11y.hop import JSON, UNTRACED
from o11y.http1 import Http1Wire
from o11y.problems import unavailable
from o11y.wire import (
    Broken,
    ProxiedWire,
    Reply,
    Unreadable,
    Unsent,
    Wire,
    authority,
    proxy_from_environment,
)

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
        self, settings: ProviderSettings, inference_url: str, wire: Wire | None = None
    ) -> None:
        self.settings = settings
        self.name = settings.name
        self.is_local = settings.name == LOCAL
        self.is_free = self.is_local and not settings.prices
        base = str(settings.base_url) if settings.base_url else f"{inference_url.rstrip('/')}/v1"
        self.url = URL(base.rstrip("/")).update_query(settings.query)
        self.address = self.url.host
        self.port = self.url.port
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
        self.slots = asyncio.Semaphore(settings.max_concurrency)
        self.chat_model = settings.chat_model
        self.embedding_model = settings.embedding_model
        self._headers = _headers(settings)
        self._urls: dict[str, URL] = {}
        self._wire = wire or _network(settings, self.url)
        self._balancer = (
            Balancer(str(self.url.origin()), as_is if wire else resolve) if self.is_local else None
        )

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
                reply = await self.send("GET", "/models", None, UNTRACED)
                listed = _models.decode(await reply.read())
        except (Unsent, Broken, Unreadable, TimeoutError) as error:
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
    ) -> Reply:
        """Send a request below the base URL. Raises what the wire raises."""
        url = self._urls.get(path)
        if url is None:
            url = self._urls[path] = self.url.with_path(
                self.url.path.rstrip("/") + path, keep_query=True
            )
        headers = {**self._headers, **carrier}
        if self._balancer is None:
            return await self._wire.send(method, url, headers, body)
        return await self._balanced(self._balancer, method, url, headers, body)

    async def _balanced(
        self,
        balancer: Balancer,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        body: bytes | None,
    ) -> Reply:
        """The same, at the replica whose turn it is; at another while none can be connected to."""
        tried: list[Replica] = []
        while True:
            try:
                replica = await balancer.acquire(tried)
            except OSError as error:
                raise Unsent(str(error)) from error
            tried.append(replica)
            try:
                there = url.with_host(replica.host)
                reply = await self._wire.send(
                    method,
                    there,
                    {"host": authority(url), **headers},
                    body,
                    server_hostname=balancer.host,
                )
            except BaseException as error:
                balancer.release(replica)
                if not isinstance(error, Unsent):
                    raise
                replica.failed()
                if len(tried) >= len(balancer.replicas):
                    raise
            else:
                return _FromReplica(reply, balancer, replica)

    async def close(self) -> None:
        if self._balancer is not None:
            await self._balancer.close()
        await self._wire.close()


class _FromReplica:
    """A reply that occupies its replica until it is closed or read."""

    def __init__(self, reply: Reply, balancer: Balancer, replica: Replica) -> None:
        self.status = reply.status
        self.headers = reply.headers
        self.replica = replica
        self._reply = reply
        self._balancer = balancer
        self._released = False

    async def read(self) -> bytes:
        try:
            return await self._reply.read()
        finally:
            self._release()

    async def chunk(self) -> bytes:
        return await self._reply.chunk()

    def close(self) -> None:
        self._reply.close()
        self._release()

    def _release(self) -> None:
        if not self._released:
            self._released = True
            self._balancer.release(self.replica)


def replica_of(reply: Reply) -> str | None:
    """Host of the replica that answered, where the proxy chose one."""
    return reply.replica.host if isinstance(reply, _FromReplica) else None


def _network(settings: ProviderSettings, url: URL) -> Wire:
    proxy = None if settings.name == LOCAL else proxy_from_environment(url)
    seconds = settings.connect_seconds
    return ProxiedWire(seconds, proxy) if proxy else Http1Wire(seconds)


def _headers(settings: ProviderSettings) -> dict[str, str]:
    headers = {**JSON, "user-agent": f"o11y-4-ai/{version('o11y')}", "accept-encoding": "identity"}
    if settings.api_key is not None:
        key = settings.api_key.get_secret_value()
        name = settings.api_key_header.lower()
        headers[name] = f"Bearer {key}" if name == "authorization" else key
    return headers | {name.lower(): value for name, value in settings.headers.items()}
