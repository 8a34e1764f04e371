"""Wires the gateway."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
from fastapi import FastAPI

from gateway import api, federation, health, openai_api
from gateway.backends import Backends
from gateway.caller import PARAMETERS
from gateway.corpus import Corpus
from gateway.health import Health
from gateway.pipeline import Pipeline
from gateway.settings import Settings
from gateway.trust_boundary import TrustBoundary
from o11y.openai.operations import OPERATIONS
from o11y.telemetry.signals import Telemetry
from o11y.web.body_limit import LARGE_BODY
from o11y.web.service import Service, create_app


def build(
    settings: Settings, telemetry: Telemetry, transport: httpx2.AsyncBaseTransport | None = None
) -> Service:
    """The application; `transport` replaces the network to the services behind it in tests."""
    backends = Backends(settings, telemetry, transport)
    services = [backends.llm, backends.vector, backends.inference]
    corpus = Corpus(backends, telemetry)
    state = Health(backends)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as background:
            if settings.seed_corpus:
                loading = background.create_task(corpus.load())
            yield
            if settings.seed_corpus:
                loading.cancel()
        await backends.aclose()

    async def ready() -> str | None:
        if settings.seed_corpus and not corpus.settled.is_set():
            return "the corpus is being loaded"
        if await state.can_answer():
            return None
        return "neither llm-proxy nor inference-svc is ready"

    return create_app(
        "gateway",
        telemetry,
        [
            api.router(backends, Pipeline(backends, telemetry)),
            openai_api.router(backends),
            health.router(state, backends),
            federation.router(telemetry.service, telemetry.registry, services),
        ],
        lifespan,
        ready,
        timeout_seconds=settings.request_timeout_seconds,
        routes=openai_api.routes(backends),
        extract=TrustBoundary(settings.trace_context),
        parameters=PARAMETERS,
        body_limits=dict.fromkeys((*OPERATIONS, "/embed"), LARGE_BODY),
    )
