"""The OpenAI API of the proxy.

Bodies go through as they came, in both directions; what the proxy adds are headers:
`X-O11y-Provider` and, when the price is known, `X-O11y-Cost-Usd`.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Body, Response

from llm_proxy.calls import Calls
from llm_proxy.provider import Refused, Upstream
from o11y.contracts import COST_HEADER, PROVIDER_HEADER, require_json
from o11y.problems import Problem

JsonObject = Annotated[dict[str, Any], Body()]


def router(calls: Calls) -> APIRouter:
    api = APIRouter()
    provider = calls.provider

    async def answer(call: Callable[[], Awaitable[Upstream]]) -> Response:
        headers = {PROVIDER_HEADER: provider.name}
        try:
            upstream = await call()
        except Refused as refused:
            return Response(refused.content, refused.status, {**refused.headers, **headers})
        if upstream.cost_usd is not None:
            headers[COST_HEADER] = format(upstream.cost_usd, ".12f")
        return Response(upstream.content, 200, headers, media_type="application/json")

    @api.post("/v1/chat/completions")
    async def chat(body: JsonObject) -> Response:
        _require(body, "messages")
        return await answer(lambda: calls.chat(body))

    @api.post("/v1/completions")
    async def completions(body: JsonObject) -> Response:
        _require(body, "prompt")
        return await answer(lambda: calls.complete(body))

    @api.post("/v1/embeddings")
    async def embeddings(body: JsonObject) -> Response:
        _require(body, "input")
        return await answer(lambda: calls.embed(body))

    @api.get("/v1/models")
    async def models() -> Response:
        return await answer(provider.get_models)

    @api.get("/health")
    async def health() -> dict[str, Any]:
        try:
            known = await provider.models()
        except Problem as problem:
            return {
                "status": "unavailable",
                "provider": provider.name,
                "reason": problem.detail,
            }
        return {
            "status": "available",
            "provider": provider.name,
            "model": known.chat,
            "embedding_model": known.embedding,
        }

    return api


def _require(body: dict[str, Any], field: str) -> None:
    try:
        require_json(body)
    except ValueError as error:
        raise Problem(422, f"body: {error}", code="invalid_input") from error
    if not body.get(field):
        raise Problem(422, f"{field}: required", code="invalid_input", field=field)
    if body.get("stream"):
        raise Problem(
            422, "stream: streaming is not supported yet", code="unsupported", field="stream"
        )
    model = body.get("model")
    if model is not None and not isinstance(model, str):
        raise Problem(422, "model: must be a string", code="invalid_input", field="model")
