"""The calls of vector-svc: /documents, /search, /health, /stats."""

import asyncio
from typing import Any

from chromadb.errors import ChromaError
from fastapi import APIRouter

from o11y.contracts import StoreAnswer, StoreRequest, VectorSearchAnswer, VectorSearchRequest
from vector_svc.retrieval import Retrieval


def router(retrieval: Retrieval) -> APIRouter:
    api = APIRouter()
    collection = retrieval.collection

    @api.post("/documents")
    async def store(body: StoreRequest) -> StoreAnswer:
        return await retrieval.store(body)

    @api.post("/search")
    async def search(body: VectorSearchRequest) -> VectorSearchAnswer:
        return await retrieval.search(body)

    @api.get("/health")
    async def health() -> dict[str, Any]:
        try:
            count = await retrieval.count()
        except (ChromaError, OSError) as error:
            return {"status": "unavailable", "reason": str(error), "document_count": None}
        return {"status": "available", "document_count": count}

    @api.get("/stats")
    async def stats() -> dict[str, Any]:
        binding = await asyncio.to_thread(collection.binding)
        return {
            "collection_name": collection.name,
            "document_count": await retrieval.count(),
            "embedding_model": binding.model if binding else None,
            "dimension": binding.dimension if binding else None,
            "distance": "cosine",
        }

    return api
