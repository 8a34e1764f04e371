"""Store and search under their spans, with duration and quality counted."""

import asyncio
import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import httpx
from opentelemetry.metrics import Observation
from opentelemetry.trace import SpanKind
from opentelemetry.util.genai.types import RetrievalDocument

from o11y.contracts import StoreAnswer, VectorSearchAnswer
from o11y.http import deadline
from o11y.telemetry import schema
from o11y.telemetry.bounded import OVERFLOW, Bounded
from o11y.telemetry.genai import Operation
from o11y.telemetry.signals import Telemetry
from o11y.web.problems import out_of_time, unavailable
from vector_svc.collection import Binding, VectorCollection
from vector_svc.collections import Collections
from vector_svc.requests import StoreRequest, VectorSearchRequest

DB_SYSTEM = "chroma"

RETRIEVAL = "retrieval"
"""`gen_ai.operation.name` of a search."""

MAX_COLLECTIONS = 100
"""Collections of tenants that are metric labels; the shared one always is."""

T = TypeVar("T")


class Retrieval:
    """The caller's collection as the service offers it: async, traced, measured."""

    def __init__(
        self, collections: Collections, telemetry: Telemetry, timeout_seconds: float
    ) -> None:
        self._collections = collections
        self._names = Bounded(MAX_COLLECTIONS)
        self._timeout_seconds = timeout_seconds
        self.documents: int | None = None
        self._tracer = telemetry.tracer
        self._capture = telemetry.capture
        self._operation_duration = telemetry.histogram(schema.GEN_AI_RETRIEVAL_DURATION)
        self._duration = telemetry.histogram(schema.VECTOR_OPERATION_DURATION)
        self._similarity = telemetry.histogram(schema.VECTOR_SIMILARITY)
        self._distance = telemetry.histogram(schema.VECTOR_DISTANCE)
        self._top_similarity = telemetry.histogram(schema.VECTOR_TOP_SIMILARITY)
        self._empty = telemetry.counter(schema.VECTOR_EMPTY)
        telemetry.observable_gauge(schema.VECTOR_DOCUMENTS, self._observed)

    @property
    def collection(self) -> VectorCollection:
        """The collection of the current request."""
        return self._collections.current()

    def _observed(self) -> list[Observation]:
        """The last count of the shared collection: reading one would block that of metrics."""
        shared = {schema.LABEL_COLLECTION: self._collections.shared.name}
        return [] if self.documents is None else [Observation(self.documents, shared)]

    def _label(self) -> dict[str, str]:
        name = self.collection.name
        is_shared = self.collection is self._collections.shared
        return {schema.LABEL_COLLECTION: name if is_shared else self._names(name)}

    async def count(self) -> int:
        """Documents in the collection, read from Chroma. Raises Problem 503 or 504."""
        count = await self._in_time(self.collection.count())
        if self.collection is self._collections.shared:
            self.documents = count
        return count

    async def binding(self) -> Binding | None:
        """The model the collection belongs to. Raises Problem 503 or 504."""
        return await self._in_time(self.collection.binding())

    async def store(self, request: StoreRequest) -> StoreAnswer:
        """Write documents; durable when this returns."""
        started = time.perf_counter()
        operation = Operation(
            self._tracer,
            f"upsert {self.collection.name}",
            {
                schema.DB_SYSTEM: DB_SYSTEM,
                schema.DB_OPERATION: "upsert",
                schema.DB_COLLECTION: self.collection.name,
                schema.EMBEDDING_MODEL: request.embedding_model,
                schema.DOCUMENT_COUNT: len(request.documents),
            },
            SpanKind.CLIENT,
        )
        with operation.running():
            ids, added = await self._timed(
                "store",
                self.collection.store(
                    request.documents,
                    request.embeddings,
                    request.embedding_model,
                    request.metadata,
                    request.ids,
                ),
            )
        return StoreAnswer(
            documents_added=added,
            total_documents=await self.count(),
            ids=ids,
            duration_seconds=time.perf_counter() - started,
        )

    async def search(self, request: VectorSearchRequest) -> VectorSearchAnswer:
        """The nearest documents, best first."""
        started = time.perf_counter()
        label = self._label()
        labels = {schema.OPERATION: RETRIEVAL, schema.PROVIDER: DB_SYSTEM}
        operation = Operation(
            self._tracer,
            f"{RETRIEVAL} {self.collection.name}",
            {
                **labels,
                schema.REQUEST_MODEL: request.embedding_model,
                schema.DB_SYSTEM: DB_SYSTEM,
                schema.DATA_SOURCE: self.collection.name,
                schema.RETRIEVAL_TOP_K: request.n_results,
            },
            SpanKind.CLIENT,
            self._operation_duration,
            labels,
        )
        with operation.running():
            try:
                results = await self._timed(
                    "search",
                    self.collection.search(
                        request.embedding,
                        request.embedding_model,
                        request.n_results,
                        request.filter_metadata,
                    ),
                )
            finally:  # only the collection's own model is a label: a caller may name any
                known = request.embedding_model == self.collection.model
                labels[schema.REQUEST_MODEL] = request.embedding_model if known else OVERFLOW
            if self._capture:
                found = [RetrievalDocument(each.id, each.similarity) for each in results]
                self._capture.record_documents(operation.span, found)
            operation.span.set_attribute(schema.RESULT_COUNT, len(results))
            if results:
                operation.span.set_attribute(schema.TOP_SIMILARITY, results[0].similarity)
                self._top_similarity.record(max(0.0, results[0].similarity), label)
            # Nothing is added, too: a share of empty searches needs a series before the first.
            chosen = {schema.LABEL_FILTER: "caller" if request.caller_filters else "none"}
            self._empty.add(0 if results else 1, {**label, **chosen})
            for result in results:
                # A histogram's sum must not fall: readers of OpenMetrics refuse the page then.
                self._similarity.record(max(0.0, result.similarity), label)
                self._distance.record(result.distance, label)
        return VectorSearchAnswer(results=results, duration_seconds=time.perf_counter() - started)

    async def _timed(self, operation: str, call: Awaitable[T]) -> T:
        with self._measured(operation):
            return await self._in_time(call)

    async def _in_time(self, call: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(deadline.limit(self._timeout_seconds)):
                return await call
        except TimeoutError as error:
            raise out_of_time("Chroma did not answer in time") from error
        except httpx.HTTPError as error:
            raise unavailable("Chroma can't be reached") from error

    @contextmanager
    def _measured(self, operation: str) -> Iterator[None]:
        labels = {schema.LABEL_OPERATION: operation, **self._label()}
        started = time.perf_counter()
        status = "error"
        try:
            yield
            status = "ok"
        finally:
            seconds = time.perf_counter() - started
            self._duration.record(seconds, {**labels, schema.LABEL_STATUS: status})
