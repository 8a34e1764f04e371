"""The calls of vector-svc: /documents, /search, /health, /stats."""

from typing import Any

from fastapi import APIRouter

from o11y.contracts import ServiceHealth, StoreAnswer, VectorSearchAnswer
from o11y.web.openapi import errors
from o11y.web.problems import Problem
from vector_svc.requests import StoreRequest, VectorSearchRequest
from vector_svc.retrieval import Retrieval


def router(retrieval: Retrieval) -> APIRouter:
    api = APIRouter(responses=errors(409, 429))

    @api.post("/documents", tags=["vectors"])
    async def store(body: StoreRequest) -> StoreAnswer:
        return await retrieval.store(body)

    @api.post("/search", tags=["vectors"])
    async def search(body: VectorSearchRequest) -> VectorSearchAnswer:
        return await retrieval.search(body)

    @api.get(
        "/health",
        tags=["operations"],
        response_model=ServiceHealth,
        response_model_exclude_unset=True,
    )
    async def health() -> dict[str, Any]:
        try:
            count = await retrieval.count()
        except Problem as problem:
            return {"status": "unavailable", "reason": problem.detail, "document_count": None}
        return {"status": "available", "document_count": count}

    @api.get("/stats", tags=["operations"])
    async def stats() -> dict[str, Any]:
        binding = await retrieval.binding()
        return {
            "collection_name": retrieval.collection.name,
            "document_count": await retrieval.count(),
            "embedding_model": binding.model if binding else None,
            "dimension": binding.dimension if binding else None,
            "distance": "cosine",
        }

    return api
