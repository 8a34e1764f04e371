"""Builds the application of vector-svc: database, routes and metrics."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import chromadb
from chromadb.api import AsyncClientAPI, ClientAPI
from chromadb.errors import ChromaError
from fastapi import FastAPI

from o11y.telemetry.signals import Telemetry
from o11y.web.body_limit import LARGE_BODY
from o11y.web.problems import Problem, unavailable
from o11y.web.service import StartError, create_app, metrics_router
from vector_svc import api
from vector_svc.collection import Connect
from vector_svc.collections import Collections
from vector_svc.retrieval import Retrieval
from vector_svc.settings import Settings


def connect(settings: Settings) -> Connect:
    """Try the Chroma server or folder of the settings, and return the function that opens its
    client. Raises StartError when it can't be opened.
    """
    url = settings.chroma_url
    folder = settings.chroma_persist_directory.expanduser()
    try:
        if url is not None:
            server = (str(url.host), url.port or 80, url.scheme == "https")
            chromadb.HttpClient(*server, settings=_options()).close()
            return partial(_of_server, *server)
        folder.mkdir(parents=True, exist_ok=True)
        client = chromadb.PersistentClient(str(folder), _options())
    except (OSError, ValueError, ChromaError) as error:
        where = f"CHROMA_URL={url}" if url else f"CHROMA_PERSIST_DIRECTORY={folder}"
        raise StartError(f"{where}: {error}") from error
    return partial(_of_folder, client)


async def _of_server(host: str, port: int, secure: bool) -> AsyncClientAPI:
    """Open the asynchronous client of a server. Raises Problem 503.

    Chroma's clients wait without limit, and have no setting for it: this one can be cancelled.
    """
    try:
        return await chromadb.AsyncHttpClient(host, port, secure, settings=_options())
    except ValueError as error:
        raise unavailable("Chroma can't be reached") from error


async def _of_folder(client: ClientAPI) -> ClientAPI:
    return client


def _options() -> chromadb.Settings:
    # The asynchronous client verifies certificates only with this setting.
    return chromadb.Settings(anonymized_telemetry=False, chroma_server_ssl_verify=True)


def build(settings: Settings, telemetry: Telemetry) -> FastAPI:
    """Open the database and build the application. Raises StartError when it can't be opened."""
    collections = Collections(connect(settings), settings.chroma_collection_name)
    retrieval = Retrieval(collections, telemetry, settings.request_timeout_seconds)

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
        body_limits={"/documents": LARGE_BODY},
        internal_token=settings.internal_token,
    )
