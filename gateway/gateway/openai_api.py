"""OpenAI's API at the gateway: `/v1` goes to llm-proxy as it came."""

from fastapi import APIRouter, Request, Response

from gateway.backends import Backends
from gateway.who import caller

KEPT = frozenset({"content-type", "retry-after", "x-o11y-provider", "x-o11y-cost-usd"})
"""Answer headers that reach the client; the rest belong to the hop."""


def router(backends: Backends) -> APIRouter:
    api = APIRouter(prefix="/v1")

    async def forward(request: Request) -> Response:
        content = await request.body()
        with caller(request):
            response = await backends.llm.request(
                request.method,
                request.url.path,
                content=content or None,
                headers={"content-type": request.headers.get("content-type", "application/json")},
            )
        headers = {key: value for key, value in response.headers.items() if key in KEPT}
        return Response(response.content, response.status_code, headers)

    for path in ("/chat/completions", "/completions", "/embeddings"):
        api.add_api_route(path, forward, methods=["POST"])
    api.add_api_route("/models", forward, methods=["GET"])
    return api
