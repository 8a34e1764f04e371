"""/health and /stats: the state of the whole pipeline in one answer."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, ConfigDict

from gateway.backends import Backends
from gateway.caller import query_identity
from gateway.contracts import HealthAnswer, StatsAnswer
from gateway.service_client import ServiceClient
from o11y.contracts import ServiceHealth
from o11y.web.problems import Problem

HEALTH_SECONDS = 2.0
"""Seconds a service has to state its health; a slower one counts as unavailable."""

ANSWERING = ("openai_service", "local_model")
"""The services that can produce an answer: without any of them the pipeline is of no use."""


class _Stats(BaseModel):
    model_config = ConfigDict(extra="allow")


class Health:
    """Asks the services how they are."""

    def __init__(self, backends: Backends) -> None:
        self._services = {
            "openai_service": backends.llm,
            "vector_database": backends.vector,
            "local_model": backends.inference,
        }

    async def services(self) -> dict[str, dict[str, Any]]:
        """Each service's own words, or `unavailable` with the reason."""
        states = await asyncio.gather(*(_ask(client) for client in self._services.values()))
        return dict(zip(self._services, states, strict=True))

    async def can_answer(self) -> bool:
        """True if any service that produces answers is ready; asked outside of traces."""
        clients = [self._services[name] for name in ANSWERING]
        return any(await asyncio.gather(*(_is_ready(client) for client in clients)))

    @staticmethod
    def overall(services: dict[str, dict[str, Any]]) -> str:
        if all(state["status"] == "available" for state in services.values()):
            return "healthy"
        answers = any(services[name]["status"] == "available" for name in ANSWERING)
        return "degraded" if answers else "unhealthy"


async def _ask(client: ServiceClient) -> dict[str, Any]:
    try:
        health = await client.call(ServiceHealth, "GET", "/health", seconds=HEALTH_SECONDS)
        return health.model_dump(exclude_unset=True)
    except Problem as problem:
        return {"status": "unavailable", "reason": problem.detail}


async def _is_ready(client: ServiceClient) -> bool:
    answer = await client.probe("/readyz", HEALTH_SECONDS)
    return answer is not None and answer.status_code == 200


def router(health: Health, backends: Backends) -> APIRouter:
    api = APIRouter(dependencies=[Depends(query_identity)], tags=["operations"])
    started = time.monotonic()

    @api.get(
        "/health",
        response_model=HealthAnswer,
        response_model_exclude_unset=True,
        responses={503: {"model": HealthAnswer, "description": "Nothing can answer."}},
    )
    async def get_health(response: Response) -> dict[str, Any]:
        """The state of the pipeline, and of each service behind it."""
        services = await health.services()
        status = health.overall(services)
        response.status_code = 503 if status == "unhealthy" else 200
        return {"status": status, "timestamp": _now(), "services": services}

    @api.get("/stats", response_model=StatsAnswer)
    async def get_stats() -> dict[str, Any]:
        """Figures of the collection, the local model and this process."""

        async def stats(client: ServiceClient) -> dict[str, Any]:
            try:
                found = await client.call(_Stats, "GET", "/stats", seconds=HEALTH_SECONDS)
                return found.model_dump()
            except Problem as problem:
                return {"error": problem.detail}

        vector, local = await asyncio.gather(stats(backends.vector), stats(backends.inference))
        return {
            "vector_database": vector,
            "local_model": local,
            "system": {"timestamp": _now(), "uptime_seconds": time.monotonic() - started},
        }

    return api


def _now() -> str:
    return datetime.now(UTC).isoformat()
