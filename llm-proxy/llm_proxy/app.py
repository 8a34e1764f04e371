"""Wires llm-proxy."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
from fastapi import FastAPI

from llm_proxy import api
from llm_proxy.calls import Calls
from llm_proxy.provider import Provider
from llm_proxy.settings import Settings
from o11y.problems import Problem
from o11y.service import create_app, metrics_router
from o11y.telemetry import Telemetry


def build(
    settings: Settings,
    telemetry: Telemetry,
    transport: httpx2.AsyncBaseTransport | None = None,
) -> FastAPI:
    """The application; `transport` replaces the network to the provider in tests."""
    provider = Provider(settings, transport)
    calls = Calls(provider, telemetry)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await provider.close()

    async def ready() -> str | None:
        try:
            await provider.models()
        except Problem as problem:
            return problem.detail
        return None

    return create_app(
        "llm-proxy",
        telemetry,
        [api.router(calls), metrics_router(telemetry.registry)],
        lifespan,
        ready,
        timeout_seconds=settings.request_timeout_seconds,
    )
