"""The collections of tenants: one client for all of them, and a bounded number kept ready."""

import asyncio
from pathlib import Path

import chromadb
import pytest
from chromadb.api import ClientAPI
from opentelemetry import context
from opentelemetry.context import Context

from accounting.caller import with_key
from vector_svc.collection import VectorCollection
from vector_svc.collections import MOST_OPEN, Collections


class Database:
    """A folder of Chroma's, which counts how often it is opened."""

    def __init__(self, folder: Path) -> None:
        self.opened = 0
        self._client = chromadb.PersistentClient(
            str(folder), chromadb.Settings(anonymized_telemetry=False)
        )

    async def connect(self) -> ClientAPI:
        self.opened += 1
        await asyncio.sleep(0)  # others may ask meanwhile
        return self._client


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(tmp_path)


def of(collections: Collections, tenant: str) -> VectorCollection:
    token = context.attach(with_key(Context(), tenant, "k", None))
    try:
        return collections.current()
    finally:
        context.detach(token)


async def test_all_collections_use_one_client(database: Database) -> None:
    collections = Collections(database.connect, "documents")
    tenants = [of(collections, f"t{number}") for number in range(5)]
    counts = await asyncio.gather(*(each.count() for each in (collections.shared, *tenants)))
    assert (counts, database.opened) == ([0] * 6, 1)


async def test_a_collection_that_is_no_longer_ready_is_found_again(database: Database) -> None:
    collections = Collections(database.connect, "documents")
    first, kept = of(collections, "first"), of(collections, "kept")
    await first.store(["a"], [[1.0]], "m", None, None)
    for number in range(MOST_OPEN - 1):  # one more than there is room for
        of(collections, f"t{number}")
        assert of(collections, "kept") is kept
    again = of(collections, "first")
    assert again is not first
    assert await again.count() == 1
    assert database.opened == 1
