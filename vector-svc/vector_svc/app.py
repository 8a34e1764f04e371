"""Wires vector-svc."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import chromadb
from chromadb.errors import ChromaError
from fastapi import FastAPI

from o11y.service import StartError, create_app, metrics_router
from o11y.telemetry import Telemetry
from vector_svc import api
from vector_svc.collection import VectorCollection
from vector_svc.retrieval import Retrieval
from vector_svc.settings import Settings


def build(settings: Settings, telemetry: Telemetry) -> FastAPI:
    """Open the database and build the application. Raises StartError when it can't be opened."""
    folder = settings.chroma_persist_directory.expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        client = chromadb.PersistentClient(
            str(folder), chromadb.Settings(anonymized_telemetry=False)
        )
    except (OSError, ValueError, ChromaError) as error:
        raise StartError(f"CHROMA_PERSIST_DIRECTORY={folder}: {error}") from error
    collection = VectorCollection(client, settings.chroma_collection_name)
    retrieval = Retrieval(collection, telemetry)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await retrieval.count()
        yield

    async def ready() -> str | None:
        try:
            await asyncio.to_thread(client.heartbeat)
        except (ChromaError, OSError) as error:
            return f"Chroma: {error}"
        return None

    return create_app(
        "vector-svc",
        telemetry,
        [api.router(retrieval), metrics_router(telemetry.registry)],
        lifespan,
        ready,
        timeout_seconds=settings.request_timeout_seconds,
    )
