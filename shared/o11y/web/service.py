"""The factory every service is built with, and the process around it."""

import asyncio
import gc
import logging
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Any, TypeVar

import uvicorn
from fastapi import APIRouter, FastAPI, Request, Response
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from starlette.types import ASGIApp, Receive, Scope, Send

from o11y.settings import ServiceSettings, load
from o11y.telemetry import distribution, logs
from o11y.telemetry.signals import Telemetry
from o11y.web import api_docs, openapi, problems, server_span
from o11y.web.access_log import AccessLogMiddleware
from o11y.web.body_limit import BodyLimitMiddleware
from o11y.web.deadline import DeadlineMiddleware
from o11y.web.disconnect import DisconnectMiddleware
from o11y.web.exposition import exposed
from o11y.web.http_protocol import HttpProtocol
from o11y.web.internal_token import InternalTokenMiddleware
from o11y.web.routes import PlainRoute
from o11y.web.server_span import ExtractContext, ServerSpanMiddleware, extract_trusted

DRAIN_SECONDS = 5
"""Seconds that requests in flight have to finish when the process stops."""

KEEP_ALIVE_SECONDS = 75
"""Longer than clients keep an unused connection: the one that closes it must be the client."""

UNOBSERVED = re.compile(rf"/(livez|readyz|metrics|console/.*)?|{re.escape(api_docs.FAVICON)}")
"""Paths that machines ask for by themselves, browsers too: no span, no metric, no access line."""

logger = logging.getLogger(__name__)

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]
S = TypeVar("S", bound=ServiceSettings)


class StartError(Exception):
    """The service can't start; its message is the one line the person at the terminal sees."""


class Service(FastAPI):
    """An application whose requests run within `surrounding`, the outermost first: around its own
    handling of errors, which `add_middleware` would leave outside. What machines ask for by
    themselves (`UNOBSERVED`) passes them by. `parameters` are those of every operation.
    """

    failed = False
    end: Callable[[], None]
    """Begins the stop of the process; set by `run`."""

    def __init__(
        self,
        surrounding: Iterable[Callable[[ASGIApp], ASGIApp]],
        parameters: Sequence[Mapping[str, Any]],
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._surrounding = list(surrounding)
        self._parameters = parameters
        self._described: dict[str, Any] | None = None

    def fail(self, reason: str) -> None:
        """End this process, which can't do its work any more: its supervisor starts another."""
        logger.critical("this process ends: %s", reason)
        self.failed = True
        self.end()

    def build_middleware_stack(self) -> ASGIApp:
        """The application within its middleware, and that within `surrounding`."""
        plain = surrounded = super().build_middleware_stack()
        for middleware in reversed(self._surrounding):
            surrounded = middleware(surrounded)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            observed = scope["type"] == "http" and not UNOBSERVED.fullmatch(scope["path"])
            await (surrounded if observed else plain)(scope, receive, send)

        return app

    def openapi(self) -> dict[str, Any]:
        """The description of all routes, which FastAPI makes anew when they change."""
        document = super().openapi()
        if document is not self._described:
            openapi.complete(document, self.routes, self._parameters)
            self._described = document
        return document


def create_app(
    title: str,
    telemetry: Telemetry,
    routers: Iterable[APIRouter],
    lifespan: Lifespan,
    ready: Callable[[], Awaitable[str | None]],
    timeout_seconds: float,
    routes: Iterable[PlainRoute] = (),
    extract: ExtractContext = extract_trusted,
    parameters: Sequence[Mapping[str, Any]] = (),
    body_limits: Mapping[str, int] | None = None,
    internal_token: SecretStr | None = None,
) -> Service:
    """A service: its routers, probes, metrics, errors, server telemetry and API documentation.

    `ready` returns None or the reason why the service can't do its work now; `timeout_seconds` is
    the deadline of a request that brings none, and the longest one it may bring; `routes` are
    asked so often that they come first, and are spared FastAPI's parsing; `extract` says what is
    believed of headers; `parameters` are described for every operation, as OpenAPI has them;
    `body_limits` has the bytes that bodies of some paths may have, where `MAX_BODY` is too few;
    `internal_token` must come with every request but those for probes and metrics.
    """

    @asynccontextmanager
    async def until_flushed(app: FastAPI) -> AsyncIterator[None]:
        # Here and not after the server has run: uvicorn ends the process by the signal it was sent.
        try:
            async with lifespan(app):
                yield
        finally:
            await asyncio.to_thread(telemetry.shutdown)

    if internal_token:
        extract = server_span.extract_with(internal_token)
    app = Service(
        [
            partial(ServerSpanMiddleware, telemetry=telemetry, extract=extract),
            AccessLogMiddleware,
            partial(DeadlineMiddleware, timeout_seconds=timeout_seconds),
            DisconnectMiddleware,
            *([partial(InternalTokenMiddleware, token=internal_token)] if internal_token else []),
            partial(BodyLimitMiddleware, limits=body_limits or {}),
        ],
        parameters,
        title=title,
        version=version("o11y"),
        lifespan=until_flushed,
        docs_url=None,
        redoc_url=None,
        # ours ends with the response, and keeps what was asked out of the query
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.routes.extend(routes)
    problems.install(app)
    api_docs.install(app)
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
    """`GET /metrics`: this process's metrics."""
    router = APIRouter()

    @router.get("/metrics", include_in_schema=False)
    async def metrics(request: Request) -> Response:
        return await asyncio.to_thread(exposed, registry, request.headers.get("accept", ""))

    return router


def run(
    service: str,
    settings_class: type[S],
    build: Callable[[S, Telemetry], ASGIApp],
) -> None:
    """Read the settings, start telemetry and serve until told to stop.

    OpenTelemetry's variables are prepared: that comes before anything of it is imported.
    """
    settings = load(settings_class)
    telemetry = Telemetry(service, settings, providers=distribution.start(service))
    logs.configure(settings, telemetry)
    try:
        app = build(settings, telemetry)
    except StartError as error:
        telemetry.shutdown()
        print(f"{service}: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    gc.collect()
    gc.freeze()  # what is here now stays: collections needn't look at it
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=settings.app_host,
            port=settings.app_port,
            http=HttpProtocol,
            ws="none",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=DRAIN_SECONDS,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            proxy_headers=False,
            server_header=False,
        )
    )
    if isinstance(app, Service):
        app.end = partial(setattr, server, "should_exit", True)
    server.run()
    if isinstance(app, Service) and app.failed:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)  # a thread that hangs in native code aborts an interpreter that ends in order
    if not server.started:
        raise SystemExit(1)
