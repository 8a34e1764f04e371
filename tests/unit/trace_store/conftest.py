from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from deploy.local.trace_store import otlp, tempo
from deploy.local.trace_store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path, max_bytes=64 * 2**20)
    yield store
    store.close()


@pytest.fixture
async def receiver(store: Store) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(otlp.create_app(store))
    async with httpx.AsyncClient(transport=transport, base_url="http://otlp") as client:
        yield client


@pytest.fixture
async def api(store: Store) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(tempo.create_app(store))
    async with httpx.AsyncClient(transport=transport, base_url="http://tempo") as client:
        yield client
