"""Wires the gateway."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
from fastapi import FastAPI
from sqlalchemy.exc import SQLAlchemyError

from gateway import admin_api, api, federation, health, openai_api
from gateway.admission import AdmissionMiddleware
from gateway.backends import Backends
from gateway.caller import PARAMETERS
from gateway.console import budgets, pages, traces
from gateway.console.traces import TraceReader
from gateway.corpus import Corpus
from gateway.health import Health
from gateway.keys import bootstrap
from gateway.keys.bootstrap import BadKeysFile
from gateway.keys.directory import KeyDirectory
from gateway.limits.limiter import Limiter
from gateway.pipeline import Pipeline
from gateway.settings import Settings
from gateway.spending import Spending
from gateway.trust_boundary import TrustBoundary
from gateway.usage import api as usage_api
from o11y.openai.operations import OPERATIONS
from o11y.telemetry.signals import Telemetry
from o11y.web.body_limit import LARGE_BODY
from o11y.web.service import Service, StartError, create_app


def build(
    settings: Settings, telemetry: Telemetry, transport: httpx2.AsyncBaseTransport | None = None
) -> Service:
    """The application; `transport` replaces the network to the services behind it in tests."""
    backends = Backends(settings, telemetry, transport)
    services = [backends.llm, backends.vector, backends.inference]
    corpus = Corpus(backends, telemetry)
    state = Health(backends)
    reader = TraceReader(settings.tempo_url, transport)
    directory = KeyDirectory(settings.auth, settings.database_url.get_secret_value())
    spending = Spending(
        directory.engine,
        lambda: directory.keys,
        lambda: {name: tenant.budgets for name, tenant in directory.tenants.items()},
        telemetry,
        settings.budget_warn_ratio,
    )
    limiter = Limiter(settings.limits_url.get_secret_value(), settings.limits_failure, telemetry)
    if settings.keys_file is not None:
        _load_keys(settings.keys_file, directory)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await directory.refresh()
        async with limiter.running(), asyncio.TaskGroup() as background:
            tasks = [
                background.create_task(directory.watch()),
                background.create_task(spending.watch()),
            ]
            if settings.seed_corpus:
                tasks.append(background.create_task(corpus.load()))
            yield
            for task in tasks:
                task.cancel()
        await backends.aclose()
        await reader.aclose()
        await asyncio.to_thread(directory.engine.dispose)

    async def ready() -> str | None:
        if directory.failure:
            return directory.failure
        if settings.seed_corpus and not corpus.settled.is_set():
            return "the corpus is being loaded"
        if await state.can_answer():
            return None
        return "neither llm-proxy nor inference-svc is ready"

    app = create_app(
        "gateway",
        telemetry,
        [
            api.router(backends, Pipeline(backends, telemetry)),
            admin_api.router(directory),
            usage_api.router(directory.engine),
            openai_api.router(backends),
            health.router(state, backends),
            pages.router(settings.grafana_url),
            traces.router(reader),
            budgets.router(directory, spending),
            federation.router(telemetry.service, telemetry.registry, services),
        ],
        lifespan,
        ready,
        timeout_seconds=settings.request_timeout_seconds,
        routes=openai_api.routes(backends),
        extract=TrustBoundary(settings.trace_context, lambda: not directory.required),
        parameters=PARAMETERS,
        body_limits=dict.fromkeys((*OPERATIONS, "/embed"), LARGE_BODY),
    )
    app.add_middleware(
        AdmissionMiddleware,
        directory=directory,
        spending=spending,
        limits=limiter,
        admin_key=settings.admin_key,
        telemetry=telemetry,
        metrics_are_public=settings.metrics_public,
    )
    return app


def _load_keys(file: Path, directory: KeyDirectory) -> None:
    """Bring the database to what a file says. Raises StartError."""
    try:
        bootstrap.load(file, directory.store)
    except BadKeysFile as error:
        raise StartError(f"KEYS_FILE: {error}") from error
    except (SQLAlchemyError, OSError) as error:
        raise StartError(
            f"DATABASE_URL: the keys of KEYS_FILE can't be stored: {type(error).__name__}"
        ) from error
