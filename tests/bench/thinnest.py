"""The thinnest hop of the standard parts: FastAPI, httpx2 on aiohttp's connections, OpenTelemetry's
SDK and exporters, the instrumentation of FastAPI and of httpx2, and nothing of this project.

`uvicorn tests.bench.thinnest:app` under `opentelemetry-instrument` passes chat completions on to
UPSTREAM_URL, whole or streamed.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from httpx_aiohttp.httpx2 import AiohttpTransport
from opentelemetry.instrumentation.httpx import AsyncOpenTelemetryTransportHttpx2
from starlette.background import BackgroundTask

client = httpx2.AsyncClient(
    transport=AsyncOpenTelemetryTransportHttpx2(AiohttpTransport()),  # type: ignore[arg-type]
    base_url=os.environ.get("UPSTREAM_URL", ""),
    timeout=60,
)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with client:
        yield


app = FastAPI(lifespan=lifespan, telemetry={"operation_spans": False})


@app.get("/livez")
async def livez() -> dict[str, str]:
    return {"status": "alive"}


@app.post("/v1/chat/completions")
async def chat(request: Request) -> Response:
    sent = client.build_request(
        "POST",
        "/chat/completions",
        content=await request.body(),
        headers={"content-type": "application/json"},
    )
    response = await client.send(sent, stream=True)
    media_type = response.headers.get("content-type")
    if "event-stream" in (media_type or ""):
        return StreamingResponse(
            response.aiter_bytes(),
            response.status_code,
            media_type=media_type,
            background=BackgroundTask(response.aclose),
        )
    content = await response.aread()
    return Response(content, response.status_code, media_type=media_type)
