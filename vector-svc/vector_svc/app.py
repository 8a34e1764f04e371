"""Wires vector-svc."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import chromadb
import httpx
from chromadb.api import ClientAPI
from chromadb.errors import ChromaError
from fastapi import FastAPI

from o11y.problems import Problem
from o11y.service import StartError, create_app, metrics_router
from o11y.telemetry import Telemetry
from vector_svc import api
from vector_svc.collection import VectorCollection
from vector_svc.retrieval import Retrieval
from vector_svc.settings import Settings


def connect(settings: Settings) -> ClientAPI:
    """Chroma's client: of a server, or of a folder. Raises StartError."""
    options = chromadb.Settings(anonymized_telemetry=False)
    url = settings.chroma_url
    folder = settings.chroma_persist_directory.expanduser()
    try:
        if url is not None:
            secure = url.scheme == "https"
            remote = chromadb.HttpClient(str(url.host), url.port or 80, secure, settings=options)
            # Chroma's client waits without limit, and has no setting for it.
            remote._server._session.timeout = httpx.Timeout(settings.request_timeout_seconds)
            return remote
        folder.mkdir(parents=True, exist_ok=True)
        return chromadb.PersistentClient(str(folder), options)
    except (OSError, ValueError, ChromaError) as error:
        where = f"CHROMA_URL={url}" if url else f"CHROMA_PERSIST_DIRECTORY={folder}"
        raise StartError(f"{where}: {error}") from error


def build(settings: Settings, telemetry: Telemetry) -> FastAPI:
    """Open the database and build the application. Raises StartError when it can't be opened."""
    client = connect(settings)
    collection = VectorCollection(client, settings.chroma_collection_name)
    retrieval = Retrieval(collection, telemetry)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield

    async def ready() -> str | None:
        try:
            await retrieval.count()
        except Problem as problem:
            return problem.detail
        return None

    return create_app(
        "vector-svc",
        telemetry,
        [api.router(retrieval), metrics_router(telemetry.registry)],
        lifespan,
        ready,
        timeout_seconds=settings.request_timeout_seconds,
    )
