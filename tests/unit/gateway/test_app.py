"""The gateway as it is built: over sockets, behind its border, with its life from start to end."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx2
import pytest
import uvicorn
from httpx2 import Response
from pydantic import HttpUrl
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway import corpus
from gateway.app import build
from gateway.settings import Settings
from tests.support.gateway_services import (
    CHAT,
    EMBED,
    INFERENCE,
    LLM,
    STORE,
    VECTOR,
    Held,
    Services,
    problem,
)
from tests.support.recorded import Recorded, http

PATIENCE_SECONDS = 5


class OnSockets:
    """The stand-ins as an application: the first part of the path says which is meant."""

    def __init__(self, services: Services) -> None:
        self.services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        content, more = b"", True
        while more:
            message = await receive()
            content += message.get("body", b"")
            more = message.get("more_body", False)
        url = f"http:/{scope['path']}"
        request = httpx2.Request(scope["method"], url, headers=scope["headers"], content=content)
        response = await self.services(request)
        assert isinstance(response, httpx2.Response)
        start = {"status": response.status_code, "headers": response.headers.raw}
        await send({"type": "http.response.start", **start})
        await send({"type": "http.response.body", "body": response.content})


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[str]:
    """The URL of an application on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(app, log_config=None, lifespan="off")
        server = uvicorn.Server(config)
        config.load()
        server.lifespan = config.lifespan_class(config)
        await server.startup([listening])
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        await server.shutdown()


@pytest.fixture
def nobody() -> Iterator[str]:
    """A URL where nobody listens, and nobody else will."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


class Built:
    """A built gateway and the services it was pointed at."""

    def __init__(self, url: str, services: Services, seed_corpus: bool) -> None:
        settings = Settings(
            llm_proxy_url=HttpUrl(f"{url}/{LLM}"),
            vector_url=HttpUrl(f"{url}/{VECTOR}"),
            inference_url=HttpUrl(f"{url}/{INFERENCE}"),
            seed_corpus=seed_corpus,
        )
        self.services = services
        self.recorded = Recorded("gateway", settings)
        self.app = build(settings, self.recorded.telemetry)
        self.client = http(self.app)

    async def ready(self) -> None:
        """Ask as a machine does, until it says so."""
        for _ in range(PATIENCE_SECONDS * 1000):
            if (await self.client.get("/readyz")).status_code == 200:
                return
            await asyncio.sleep(0.001)
        raise TimeoutError

    def alive(self) -> AbstractAsyncContextManager[object]:
        """Its life, from startup to shutdown."""
        return self.app.router.lifespan_context(self.app)


@asynccontextmanager
async def built(url: str, services: Services, seed_corpus: bool = False) -> AsyncIterator[Built]:
    made = Built(url, services, seed_corpus)
    async with asyncio.timeout(PATIENCE_SECONDS), made.alive(), made.client:
        yield made


@pytest.fixture
async def services() -> Services:
    return Services()


@pytest.fixture
async def url(services: Services) -> AsyncIterator[str]:
    async with serving(OnSockets(services)) as url:
        yield url


async def test_a_pipeline_call_goes_through(url: str, services: Services) -> None:
    async with built(url, services) as gateway:
        response = await gateway.client.post("/full-pipeline?query=a")
    assert response.json()["summary"]["steps_completed"] == 6


async def test_baggage_from_outside_ends_at_the_gateway(url: str, services: Services) -> None:
    headers = {"baggage": "user.id=mallory", "X-Session-Id": "s1"}
    async with built(url, services) as gateway:
        await gateway.client.post("/chat", json={"message": "a"}, headers=headers)
    assert services.asked(CHAT).who == {"session.id": "s1"}


async def test_it_starts_and_answers_when_nobody_else_is_there(nobody: str) -> None:
    async with built(nobody, Services()) as gateway:
        paths = ("/livez", "/readyz", "/health", "/stats", "/metrics")
        found = {path: (await gateway.client.get(path)).status_code for path in paths}
        chat = await gateway.client.post("/chat", json={"message": "a"})
    assert found == {"/livez": 200, "/readyz": 503, "/health": 503, "/stats": 200, "/metrics": 200}
    assert (chat.status_code, chat.json()["detail"]) == (503, "llm-proxy can't be reached")


@pytest.mark.parametrize(
    ("unready", "status"), [([], 200), ([LLM], 200), ([INFERENCE], 200), ([LLM, INFERENCE], 503)]
)
async def test_it_is_ready_when_any_model_is(
    unready: list[str], status: int, url: str, services: Services
) -> None:
    services.answers = {f"{name}/readyz": problem(503) for name in unready}
    async with built(url, services) as gateway:
        assert (await gateway.client.get("/readyz")).status_code == status


async def test_it_loads_its_corpus_and_is_ready_then(url: str, services: Services) -> None:
    loading, settled = Held(), asyncio.Event()
    services.answers[EMBED] = loading

    def storing(_: object) -> Response | None:
        settled.set()
        return None

    services.answers[STORE] = storing
    async with built(url, services, seed_corpus=True) as gateway:
        await loading.asked.wait()
        response = await gateway.client.get("/readyz")
        assert response.json()["detail"] == "the corpus is being loaded"
        loading.let_go.set()
        await settled.wait()
        await gateway.ready()


async def test_it_loads_no_corpus_when_told_not_to(url: str, services: Services) -> None:
    async with built(url, services, seed_corpus=False) as gateway:
        assert (await gateway.client.get("/readyz")).status_code == 200
    assert STORE not in services.calls()


async def test_it_stops_at_once_while_the_corpus_waits_for_its_services(nobody: str) -> None:
    async with built(nobody, Services(), seed_corpus=True) as gateway:
        response = await gateway.client.get("/readyz")
    assert response.json()["detail"] == "the corpus is being loaded"


@pytest.mark.parametrize("answer", [problem(503), Response(200, content=b"<html>")])
async def test_it_lives_on_when_the_corpus_cannot_be_loaded(
    answer: Response, url: str, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "PAUSE_SECONDS", 0)
    monkeypatch.setattr(corpus, "ATTEMPTS", 2)
    services.answers[f"{VECTOR}/stats"] = answer
    async with built(url, services, seed_corpus=True) as gateway:
        await gateway.ready()
