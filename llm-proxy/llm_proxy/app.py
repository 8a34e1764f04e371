"""Wires llm-proxy."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from functools import partial

import httpx2
from fastapi import FastAPI

from accounting.settings import ledger as ledger_of
from llm_proxy import api
from llm_proxy.calls import Calls
from llm_proxy.provider import Provider
from llm_proxy.proxies import UnsupportedProxy
from llm_proxy.routing import Routing
from llm_proxy.settings import Settings
from llm_proxy.spending import Spending, estimate
from o11y.openai.operations import OPERATIONS
from o11y.telemetry.signals import Telemetry
from o11y.web.body_limit import LARGE_BODY
from o11y.web.problems import Problem
from o11y.web.service import Service, StartError, create_app, metrics_router


def build(
    settings: Settings, telemetry: Telemetry, transport: httpx2.AsyncBaseTransport | None = None
) -> Service:
    """The application; `transport` replaces the network to the providers in tests."""
    inference_url = str(settings.inference_url)
    try:
        providers = [
            Provider(each, inference_url, telemetry, transport, settings.internal_token)
            for each in settings.providers()
        ]
    except UnsupportedProxy as error:
        raise StartError(str(error)) from error
    routing = Routing(providers)
    ledger = ledger_of(settings, partial(estimate, providers))
    spending = Spending(ledger, telemetry, passes=settings.budget_unknown_price == "pass")
    calls = Calls(routing, telemetry, spending, settings.llm_time_chunks)
    if ledger:
        ledger.on_untold = calls.meters.recover

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with ledger.running() if ledger else nullcontext():
            yield
        for provider in providers:
            await provider.aclose()

    async def ready() -> str | None:
        try:
            await routing.learn_models()
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
        routes=api.routes(calls, settings.stream_timeout_seconds),
        body_limits=dict.fromkeys(OPERATIONS, LARGE_BODY),
        internal_token=settings.internal_token,
    )
