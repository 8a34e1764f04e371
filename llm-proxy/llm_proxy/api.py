"""The OpenAI API of the proxy.

Bodies go through as they came, in both directions; what the proxy adds are headers:
`X-O11y-Provider` and, when the price is known, `X-O11y-Cost-Usd`. A stream's cost is known at its
end: who sends `X-O11y-Stream-Summary: 1` is told it then, by a last chunk with a field `o11y`, and
of a whole answer in the header `X-O11y-Summary`.
"""

import asyncio
import json
from collections.abc import Sequence
from functools import partial
from typing import Any

import httpx2
import msgspec
from fastapi import APIRouter, Request, Response

from llm_proxy import requests
from llm_proxy.calls import Calls
from llm_proxy.failures import AttemptFailed, CallRejected, classify_response, client_error
from llm_proxy.provider import Provider
from llm_proxy.sending import WholeResponse
from llm_proxy.stream import Stream
from o11y.contracts import (
    COST_HEADER,
    PROVIDER_HEADER,
    SUMMARY_HEADER,
    WHOLE_SUMMARY_HEADER,
    ServiceHealth,
)
from o11y.http import deadline
from o11y.http.transport import nothing_was_sent
from o11y.openai.headers import passed
from o11y.openai.models import one, rows
from o11y.openai.operations import OPERATIONS, Operation
from o11y.telemetry import schema
from o11y.web.events import EventStream
from o11y.web.openapi import errors
from o11y.web.problems import Problem, out_of_time, unavailable
from o11y.web.routes import PlainRoute

MODELS_SECONDS = 5.0


def routes(calls: Calls, stream_timeout_seconds: float) -> list[PlainRoute]:
    """The calls to models."""

    def route(operation: Operation, path: str) -> PlainRoute:
        async def answer(request: Request) -> Response:
            call = requests.read(operation, await request.body())
            if call.stream:
                deadline.stream(stream_timeout_seconds)
            try:
                response = await calls.make(call)
            except CallRejected as refused:
                headers = dict(refused.headers)
                if refused.provider:
                    headers[PROVIDER_HEADER] = refused.provider
                return Response(refused.content, refused.status, headers)
            summed_up = SUMMARY_HEADER in request.headers
            if isinstance(response, WholeResponse):
                return _whole(response, summed_up=summed_up)
            return _stream(response, summed_up=summed_up)

        return PlainRoute(path, answer, operation.described)

    return [route(operation, path) for path, operation in OPERATIONS.items()]


def _whole(whole: WholeResponse, *, summed_up: bool) -> Response:
    headers = {
        "content-type": whole.headers.get("content-type", "application/json"),
        PROVIDER_HEADER: whole.provider.name,
        **passed(whole.headers),
    }
    if whole.cost_usd is not None:
        headers[COST_HEADER] = format(whole.cost_usd, ".12f")
    if summed_up:
        headers[WHOLE_SUMMARY_HEADER] = json.dumps(whole.summary.model_dump())
    return Response(whole.content, 200, headers)


def _stream(stream: Stream, *, summed_up: bool) -> Response:
    headers = {PROVIDER_HEADER: stream.provider.name, **passed(stream.headers)}
    close = partial(stream.aclose, schema.ERROR_CANCELLED)
    return EventStream(stream.events(summed_up=summed_up), close, headers)


def router(calls: Calls) -> APIRouter:
    """The calls that are made less often: the lists of models, and the proxy's state."""
    api = APIRouter()
    routing = calls.routing
    failures = errors(404, 429, 502)

    @api.get("/v1/models", tags=["openai"], responses=failures)
    async def models() -> Response:
        return await _models(routing.providers)

    @api.get("/v1/models/{name:path}", tags=["openai"], responses=failures)
    async def model(name: str) -> Response:
        listed = await models()
        if listed.status_code != 200:
            return listed
        return Response(one(bytes(listed.body), name), media_type="application/json")

    @api.get(
        "/health",
        tags=["operations"],
        response_model=ServiceHealth,
        response_model_exclude_unset=True,
    )
    async def health() -> dict[str, Any]:
        first = routing.providers[0]
        state: dict[str, Any] = {"provider": first.name}
        try:
            await routing.learn_models()
        except Problem as problem:
            return {"status": "unavailable", **state, "reason": problem.detail}
        return {
            "status": "available",
            **state,
            "model": first.chat_model,
            "embedding_model": first.embedding_model,
            "providers": [
                {"name": provider.name, "circuit": provider.breaker.state.name.lower()}
                for provider in routing.providers
            ],
        }

    return api


class _Models(msgspec.Struct):
    data: list[msgspec.Raw]
    object: str = "list"


async def _models(providers: Sequence[Provider]) -> Response:
    """One provider's list as it came; the lists of several as one, of those that answer."""
    answers = await asyncio.gather(*(_ask(provider) for provider in providers))
    good = [answer for answer in answers if isinstance(answer, bytes)]
    if not good:
        error = answers[0]
        assert isinstance(error, Exception)
        if isinstance(error, CallRejected):
            return Response(error.content, error.status, error.headers)
        raise client_error([error]) if isinstance(error, AttemptFailed) else error
    headers = {PROVIDER_HEADER: providers[0].name}
    if len(providers) == 1:
        return Response(good[0], 200, headers, media_type="application/json")
    together = _Models(list({name: row for each in good for name, row in rows(each)}.values()))
    return Response(msgspec.json.encode(together), 200, media_type="application/json")


_list = msgspec.json.Decoder(_Models)


async def _ask(provider: Provider) -> bytes | Exception:
    """A provider's list of models, or why there is none."""
    try:
        async with asyncio.timeout(deadline.limit(MODELS_SECONDS)):
            response = await provider.get("/models")
        content = response.content
        if response.status_code != 200:
            return classify_response(
                provider.title, response.status_code, content, response.headers
            )
        _list.decode(content)
        return content
    except TimeoutError:
        return out_of_time(f"{provider.title} did not answer /models in time")
    except msgspec.DecodeError:
        return Problem(502, f"{provider.title} has no list of models", code="bad_upstream")
    except httpx2.HTTPError as error:
        if nothing_was_sent(error) or isinstance(error, httpx2.NetworkError):
            return unavailable(f"{provider.title} can't be reached: {error}")
        return Problem(502, f"{provider.title} has no list of models", code="bad_upstream")
