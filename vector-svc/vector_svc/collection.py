"""One Chroma collection that belongs to the embedding model that filled it first.

Chroma checks the dimension of a vector but knows no model: two models of equal dimension would mix
without a word. The first store writes model and dimension into the collection's metadata; every
later store and search must match them.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from chromadb.api import AsyncClientAPI, ClientAPI
from chromadb.errors import ChromaError, NotFoundError

from o11y.contracts import Metadata, SearchResult
from o11y.web.problems import Problem, unavailable

MODEL_KEY = "embedding_model"
DIMENSION_KEY = "dimension"
TEXT_KEY = "text_sha256"
"""Key of a text's hash in its metadata: Chroma needs at least one entry for each document."""

T = TypeVar("T")

Connect = Callable[[], Awaitable[ClientAPI | AsyncClientAPI]]
"""Opens Chroma's client, for the event loop that calls it."""


@dataclass(frozen=True)
class Binding:
    """The embedding model and the dimension of all vectors in a collection."""

    model: str
    dimension: int


class OtherVectors(Problem):
    """409: vectors of another model or dimension than the collection's."""


class VectorCollection:
    """Stores and searches the documents of one collection.

    Calls may run at the same time, and be cancelled: a call to a server then ends, a call to a
    folder goes on in its thread. A collection that somebody removes, or that a new server lacks, is
    empty until something is stored, which makes it anew.

    Besides what is said of each, methods raise Problem 503 where Chroma fails.
    """

    def __init__(self, connect: Connect, name: str) -> None:
        self.name = name
        self._connect = connect
        self._client: ClientAPI | AsyncClientAPI | None = None
        self._lock = asyncio.Lock()
        self._bound: tuple[Any, Binding] | None = None

    @property
    def model(self) -> str | None:
        """The model of the collection, as far as it is known by now."""
        return self._bound[1].model if self._bound else None

    async def binding(self) -> Binding | None:
        """The model and dimension of the collection; None while nothing was ever stored."""
        await self.count()  # Chroma is asked whether it still has the collection
        return self._bound[1] if self._bound else None

    async def count(self) -> int:
        async def work(collection: Any, _: Binding) -> int:
            return int(await self._call(collection.count))

        return await self._within(work) or 0

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
        unique = list(rows)
        texts, embeddings, metadatas = zip(*rows.values(), strict=True)

        async def work(collection: Any, binding: Binding) -> int:
            self._check(binding, given)
            known = set((await self._call(collection.get, ids=unique, include=[]))["ids"])
            await self._call(
                collection.upsert,
                ids=unique,
                documents=list(texts),
                embeddings=list(embeddings),
                metadatas=list(metadatas),
            )
            return len(unique) - len(known)

        async with self._lock:
            added = await self._within(work)
            if added is None:
                added = await work(*await self._create(given))
        return names, added

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

        async def work(collection: Any, binding: Binding) -> Any:
            self._check(binding, Binding(model, len(vector)))
            try:
                return await self._call(
                    collection.query,
                    query_embeddings=[list(vector)],
                    n_results=limit,
                    where=_conjunction(where),
                    include=["documents", "metadatas", "distances"],
                )
            except (ValueError, ChromaError) as error:
                if where is None or _is_not_about_the_call(error):
                    raise
                raise Problem(
                    422,
                    f"filter_metadata: {error}",
                    code="invalid_input",
                    field="filter_metadata",
                    log_detail="filter_metadata can't be read",
                ) from error

        found = await self._within(work)
        if found is None:
            return []
        columns = (found["ids"], found["documents"], found["metadatas"], found["distances"])
        rows = zip(*(column[0] for column in columns), strict=True)
        return [_result(rank, *row) for rank, row in enumerate(rows, 1)]

    async def _within(self, work: Callable[[Any, Binding], Awaitable[T]]) -> T | None:
        """Do work on the collection and return its result; None where Chroma has none of its name.

        Chroma knows a collection by an id, which is another one when it was made anew.
        """
        try:
            try:
                opened = await self._open()
                return await work(*opened) if opened else None
            except (NotFoundError, OtherVectors):  # it may be another one by now
                self._bound = None
                opened = await self._open()
                return await work(*opened) if opened else None
        except ChromaError as error:
            raise unavailable(f"Chroma can't do its work: {error.name()}") from error

    async def _call(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a method of Chroma's: a server's client awaits it, a folder's needs a thread."""
        if not isinstance(self._client, AsyncClientAPI):
            return await asyncio.to_thread(method, *args, **kwargs)
        try:
            return await method(*args, **kwargs)
        except Exception as error:
            if type(error) is not Exception:  # as the client raises for an answer it doesn't know
                raise
            raise unavailable("Chroma answered with an error") from error

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
            raise OtherVectors(
                409,
                f"collection '{self.name}' holds vectors of {binding.model} "
                f"({binding.dimension} dimensions), not of {given.model} ({given.dimension}); "
                "use that model, or another CHROMA_COLLECTION_NAME",
                code="embedding_model_mismatch",
                field="embedding_model",
            )


def _is_not_about_the_call(error: Exception) -> bool:
    return isinstance(error, ChromaError) and error.code() not in (400, 422)


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
