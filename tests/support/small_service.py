"""A small service of the factory, for the tests of what every service does."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Annotated

import httpx2
from fastapi import APIRouter, FastAPI
from pydantic import BaseModel, Field

from o11y.http import deadline
from o11y.telemetry.signals import Telemetry
from o11y.web.problems import Problem
from o11y.web.routes import PlainRoute
from o11y.web.service import create_app, metrics_router
from tests.support.recorded import Recorded, http

TIMEOUT_SECONDS = 30.0

logger = logging.getLogger(__name__)


class Part(BaseModel):
    size: int = Field(ge=1)


class Thing(BaseModel):
    name: str = Field(max_length=5)
    parts: list[Part] = []
    labels: dict[str, str | int] = {}
    alias: Annotated[str, Field(min_length=1)] | list[str] | None = None


def things() -> APIRouter:
    router = APIRouter()

    @router.post("/things")
    @router.post("/v1/things")
    async def create(thing: Thing) -> Thing:
        return thing

    @router.get("/things/{number}")
    async def read(number: int) -> dict[str, int]:
        logger.info("reading")
        return {"number": number}

    @router.get("/left")
    async def left() -> float | None:
        return deadline.remaining()

    @router.get("/busy")
    @router.get("/v1/busy")
    async def busy() -> None:
        raise Problem(429, "too busy", code="busy", headers={"Retry-After": "3"}, field="load")

    @router.get("/down")
    @router.get("/v1/down")
    async def down() -> None:
        raise Problem(503, "the disk is full")

    @router.get("/boom")
    @router.get("/v1/boom")
    async def boom() -> None:
        raise RuntimeError("hunter2 in words of no one's business")

    return router


async def always() -> str | None:
    return None


def application(
    telemetry: Telemetry,
    ready: Callable[[], Awaitable[str | None]] = always,
    routes: Iterable[PlainRoute] = (),
    body_limits: Mapping[str, int] | None = None,
) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield

    routers = [things(), metrics_router(telemetry.registry)]
    return create_app(
        *("things", telemetry, routers, lifespan, ready, TIMEOUT_SECONDS, routes),
        body_limits=body_limits,
    )


def service(
    recorded: Recorded, ready: Callable[[], Awaitable[str | None]] = always
) -> httpx2.AsyncClient:
    """A client of the service."""
    return http(application(recorded.telemetry, ready))
