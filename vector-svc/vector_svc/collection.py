"""One Chroma collection that belongs to the embedding model that filled it first.

Chroma checks the dimension of a vector but knows no model: two models of equal dimension would mix
without a word. The first store writes model and dimension into the collection's metadata; every
later store and search must match them.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chromadb.api import AsyncClientAPI, ClientAPI
from chromadb.errors import ChromaError, NotFoundError

from o11y.contracts import Metadata, SearchResult
from o11y.web.problems import Problem

MODEL_KEY = "embedding_model"
DIMENSION_KEY = "dimension"
TEXT_KEY = "text_sha256"
"""Key of a text's hash in its metadata: Chroma needs at least one entry for each document."""

Connect = Callable[[], Awaitable[ClientAPI | AsyncClientAPI]]
"""Opens Chroma's client, for the event loop that calls it."""


@dataclass(frozen=True)
class Binding:
    """The embedding model and the dimension of all vectors in a collection."""

    model: str
    dimension: int


class VectorCollection:
    """Stores and searches the documents of one collection.

    Calls may run at the same time, and be cancelled: a call to a server then ends, a call to a
    folder goes on in its thread.
    """

    def __init__(self, connect: Connect, name: str) -> None:
        self.name = name
        self._connect = connect
        self._client: ClientAPI | AsyncClientAPI | None = None
        self._lock = asyncio.Lock()
        self._bound: tuple[Any, Binding] | None = None

    async def binding(self) -> Binding | None:
        """The model and dimension of the collection; None while nothing was ever stored."""
        opened = await self._open()
        return opened[1] if opened else None

    async def count(self) -> int:
        opened = await self._open()
        return int(await self._call(opened[0].count)) if opened else 0

    async def store(
        self,
        documents: Sequence[str],
        vectors: Sequence[Sequence[float]],
        model: str,
        metadata: Sequence[Metadata] | None,
        ids: Sequence[str] | None,
    ) -> tuple[list[str], int]:
        """Write documents; return their ids and the number of new ones.

        Without ids a document's id is the hash of its text, so that storing it again changes
        nothing. The same id twice in one call is one document, the later one. Raises Problem 409
        for vectors of another model or dimension than the collection's.
        """
        names = list(ids) if ids else [document_id(document) for document in documents]
        rows = {
            name: (document, list(vector), {**extra, TEXT_KEY: text_hash(document)})
            for name, document, vector, extra in zip(
                names, documents, vectors, metadata or [{}] * len(documents), strict=True
            )
        }
        given = Binding(model, len(vectors[0]))
        async with self._lock:
            collection, binding = await self._open() or await self._create(given)
            self._check(binding, given)
            unique = list(rows)
            known = set((await self._call(collection.get, ids=unique, include=[]))["ids"])
            texts, embeddings, metadatas = zip(*rows.values(), strict=True)
            await self._call(
                collection.upsert,
                ids=unique,
                documents=list(texts),
                embeddings=list(embeddings),
                metadatas=list(metadatas),
            )
        return names, len(unique) - len(known)

    async def search(
        self,
        vector: Sequence[float],
        model: str,
        limit: int,
        where: dict[str, Any] | None,
    ) -> list[SearchResult]:
        """The nearest documents by cosine, best first. `where` is Chroma's metadata filter,
        or several equalities.

        Raises Problem 409 for a vector of another model or dimension, 422 for a filter that Chroma
        can't read.
        """
        opened = await self._open()
        if opened is None:
            return []
        collection, binding = opened
        self._check(binding, Binding(model, len(vector)))
        try:
            found = await self._call(
                collection.query,
                query_embeddings=[list(vector)],
                n_results=limit,
                where=_conjunction(where),
                include=["documents", "metadatas", "distances"],
            )
        except (ValueError, ChromaError) as error:
            raise Problem(
                422,
                f"filter_metadata: {error}",
                code="invalid_input",
                field="filter_metadata",
                log_detail="filter_metadata can't be read",
            ) from error
        columns = (found["ids"], found["documents"], found["metadatas"], found["distances"])
        rows = zip(*(column[0] for column in columns), strict=True)
        return [_result(rank, *row) for rank, row in enumerate(rows, 1)]

    async def _call(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a method of Chroma's: a server's client awaits it, a folder's needs a thread."""
        if isinstance(self._client, AsyncClientAPI):
            return await method(*args, **kwargs)
        return await asyncio.to_thread(method, *args, **kwargs)

    async def _open(self) -> tuple[Any, Binding] | None:
        if self._bound is None:
            client = self._client = self._client or await self._connect()
            try:
                collection = await self._call(
                    client.get_collection, self.name, embedding_function=None
                )
            except NotFoundError:
                return None
            self._bound = (collection, _binding(collection))
        return self._bound

    async def _create(self, given: Binding) -> tuple[Any, Binding]:
        assert self._client  # `_open` has set it
        collection = await self._call(
            self._client.get_or_create_collection,
            self.name,
            metadata={MODEL_KEY: given.model, DIMENSION_KEY: given.dimension},
            configuration={"hnsw": {"space": "cosine"}},
            embedding_function=None,
        )
        # Another process may have been first: the collection's own metadata counts.
        self._bound = (collection, _binding(collection))
        return self._bound

    def _check(self, binding: Binding, given: Binding) -> None:
        if given != binding:
            raise Problem(
                409,
                f"collection '{self.name}' holds vectors of {binding.model} "
                f"({binding.dimension} dimensions), not of {given.model} ({given.dimension}); "
                "use that model, or another CHROMA_COLLECTION_NAME",
                code="embedding_model_mismatch",
                field="embedding_model",
            )


def text_hash(document: str) -> str:
    return hashlib.sha256(document.encode()).hexdigest()


def document_id(document: str) -> str:
    """The id of a document that is stored without one."""
    return f"doc-{text_hash(document)[:32]}"


def _binding(collection: Any) -> Binding:
    extra = collection.metadata or {}
    return Binding(str(extra.get(MODEL_KEY, "an unknown model")), int(extra.get(DIMENSION_KEY, 0)))


def _conjunction(where: dict[str, Any] | None) -> dict[str, Any] | None:
    """The filter as Chroma takes it, with exactly one key: several conditions must all hold."""
    if not where or len(where) == 1:
        return where or None
    return {"$and": [{key: value} for key, value in where.items()]}


def _result(
    rank: int, name: str, document: str, extra: Mapping[str, Any], found: float
) -> SearchResult:
    """A document as it was found. Its distance is rounded: that of equal vectors may lie below 0,
    which is no distance, and which a histogram of Prometheus can't add up.
    """
    distance = min(max(0.0, float(found)), 2.0)
    return SearchResult(
        document=document,
        similarity=1.0 - distance,
        distance=distance,
        metadata={key: value for key, value in extra.items() if key != TEXT_KEY},
        id=name,
        rank=rank,
    )
