"""The factory every service is built with, and the process around it."""

import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar
from urllib.parse import parse_qsl, quote

import uvicorn
from fastapi import APIRouter, FastAPI, Response
from opentelemetry import trace
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from o11y import deadline, logs, problems, schema
from o11y.logs import trace_ids
from o11y.settings import ServiceSettings, load
from o11y.telemetry import Telemetry

access = logging.getLogger("o11y.access")

PROBES = frozenset({"/livez", "/readyz", "/metrics"})
"""Paths that machines poll: no span, no access line."""

DRAIN_SECONDS = 5
"""How long a stopping process lets the requests in flight finish."""

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]
S = TypeVar("S", bound=ServiceSettings)


class StartError(Exception):
    """The service can't start; its message is the one line the person at the terminal sees."""


class RequestContext:
    """ASGI middleware inside the server span: deadline in, `X-Trace-Id` out, one access line."""

    def __init__(self, app: ASGIApp, timeout_seconds: float) -> None:
        self.app = app
        self.timeout_seconds = timeout_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        _redact_query(scope)
        trace_id = trace_ids().get("trace_id")
        status, told = 500, False

        def tell() -> None:
            """The access line, once, before the end of the answer ends the span."""
            nonlocal told
            if told:
                return
            told = True
            route = getattr(scope.get("route"), "path", scope["path"])
            access.info(
                f"{scope['method']} {route} {status}",
                extra={
                    "method": scope["method"],
                    "route": route,
                    "status": status,
                    "duration_seconds": round(time.perf_counter() - started, 6),
                },
            )

        async def send_with_trace(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if trace_id:
                    MutableHeaders(scope=message)[problems.TRACE_HEADER] = trace_id
            elif message["type"] == "http.response.body" and not message.get("more_body"):
                tell()
            await send(message)

        asked = deadline.parse(Headers(scope=scope).get(deadline.HEADER))
        seconds = self.timeout_seconds if asked is None else min(asked, self.timeout_seconds)
        try:
            with deadline.within(seconds):
                await self.app(scope, receive, send_with_trace)
        finally:
            tell()


def _redact_query(scope: Scope) -> None:
    """A query string holds prompts and user ids: the span keeps the names of its parameters."""
    if scope["query_string"]:
        names = (key for key, _ in parse_qsl(scope["query_string"].decode("latin-1"), True))
        redacted = "&".join(f"{quote(name)}=REDACTED" for name in names)
        trace.get_current_span().set_attribute(schema.URL_QUERY, redacted)


def create_app(
    title: str,
    telemetry: Telemetry,
    routers: Iterable[APIRouter],
    lifespan: Lifespan,
    ready: Callable[[], Awaitable[str | None]],
    timeout_seconds: float,
) -> FastAPI:
    """A service: its routers, probes, metrics, errors and server telemetry.

    `ready` returns None or the reason why the service can't do its work now; `timeout_seconds` is
    the deadline of a request that brings none, and the longest one it may bring.
    """

    @asynccontextmanager
    async def until_flushed(app: FastAPI) -> AsyncIterator[None]:
        # Here and not after the server has run: uvicorn ends the process by the signal it was sent.
        try:
            async with lifespan(app):
                yield
        finally:
            await asyncio.to_thread(telemetry.shutdown)

    app = FastAPI(
        title=title,
        lifespan=until_flushed,
        telemetry={
            "tracer_provider": telemetry.tracer_provider,
            "meter_provider": telemetry.meter_provider,
            "logs": False,
            "operation_spans": False,
            "exclude": lambda scope: scope["path"] in PROBES,
        },
    )
    problems.install(app)
    app.add_middleware(RequestContext, timeout_seconds=timeout_seconds)
    for router in routers:
        app.include_router(router)

    @app.get("/livez", include_in_schema=False)
    async def livez() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz", include_in_schema=False)
    async def readyz() -> dict[str, str]:
        if reason := await ready():
            raise problems.unavailable(reason)
        return {"status": "ready"}

    return app


def metrics_router(registry: CollectorRegistry) -> APIRouter:
    """`GET /metrics`: this process's metrics as OpenMetrics text."""
    router = APIRouter()

    @router.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(
            await asyncio.to_thread(generate_latest, registry), media_type=CONTENT_TYPE_LATEST
        )

    return router


def run(
    service: str,
    settings_class: type[S],
    build: Callable[[S, Telemetry], ASGIApp],
) -> None:
    """Read the settings, start telemetry and serve until told to stop."""
    settings = load(settings_class)
    telemetry = Telemetry(service, settings)
    logs.configure(settings, telemetry)
    try:
        app = build(settings, telemetry)
    except StartError as error:
        telemetry.shutdown()
        print(f"{service}: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=settings.app_host,
            port=settings.app_port,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=DRAIN_SECONDS,
            server_header=False,
        )
    )
    server.run()
    if not server.started:
        raise SystemExit(1)
