"""The OpenAI API of the proxy.

Bodies go through as they came, in both directions; what the proxy adds are headers:
`X-O11y-Provider` and, when the price is known, `X-O11y-Cost-Usd`. A stream's cost is known at its
end: who sends `X-O11y-Stream-Summary: 1` is told it then, by a last chunk with a field `o11y`.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import httpx2
import msgspec
from fastapi import APIRouter, Response
from starlette.types import Receive, Scope, Send

from llm_proxy import requests
from llm_proxy.calls import Calls, Whole
from llm_proxy.failures import Failed, Refused, judged, verdict
from llm_proxy.provider import Provider
from llm_proxy.requests import Operation
from llm_proxy.stream import Stream
from o11y.contracts import COST_HEADER, PROVIDER_HEADER, SUMMARY_HEADER
from o11y.http import deadline
from o11y.http.transport import nothing_was_sent
from o11y.openai.headers import passed, raw
from o11y.openai.models import one
from o11y.telemetry import schema
from o11y.web.events import Last, ending
from o11y.web.problems import Problem, out_of_time, unavailable
from o11y.web.server import Endpoint, read_body, send_whole

logger = logging.getLogger(__name__)

MODELS_SECONDS = 5.0

_PROVIDER = PROVIDER_HEADER.lower().encode()
_COST = COST_HEADER.lower().encode()
_SUMMARY = SUMMARY_HEADER.lower().encode()


def endpoints(calls: Calls, stream_timeout_seconds: float) -> dict[str, Endpoint]:
    """The hot paths, without a router between."""

    def endpoint(operation: Operation) -> Endpoint:
        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            request = requests.read(operation, await read_body(receive))
            if request.stream:
                deadline.stream(stream_timeout_seconds)
            try:
                given = await calls.make(request)
            except Refused as refused:
                headers = [*raw(refused.headers)]
                if refused.provider:
                    headers.append((_PROVIDER, refused.provider.encode()))
                await send_whole(send, refused.status, headers, refused.content)
                return
            if isinstance(given, Whole):
                await _answer_whole(send, given)
            else:
                wants_summary = any(name == _SUMMARY for name, _ in scope["headers"])
                await _answer_stream(send, given, wants_summary)

        return answer

    return {
        "/v1/chat/completions": endpoint(Operation.CHAT),
        "/v1/completions": endpoint(Operation.COMPLETION),
        "/v1/embeddings": endpoint(Operation.EMBEDDINGS),
    }


async def _answer_whole(send: Send, whole: Whole) -> None:
    headers = [
        (b"content-type", whole.headers.get("content-type", "application/json").encode()),
        (_PROVIDER, whole.provider.name.encode()),
        *raw(passed(whole.headers)),
    ]
    if whole.cost_usd is not None:
        headers.append((_COST, format(whole.cost_usd, ".12f").encode()))
    await send_whole(send, 200, headers, whole.content)


async def _answer_stream(send: Send, stream: Stream, wants_summary: bool) -> None:
    headers = [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-cache"),
        (b"x-accel-buffering", b"no"),
        (_PROVIDER, stream.provider.name.encode()),
        *raw(passed(stream.headers)),
    ]
    left = deadline.remaining()
    try:
        # a second more than the stream itself has: it is cut only if the caller doesn't read
        async with asyncio.timeout(None if left is None else left + 1):
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            last = Last()
            async with aclosing(stream.events(summary=wants_summary)) as events:
                async for event in events:
                    if isinstance(event, Last):
                        last = event
                        break
                    await send({"type": "http.response.body", "body": event, "more_body": True})
            await send(ending(last, broken=last.broken))
    except TimeoutError:
        logger.warning("a caller did not read its stream")
    finally:
        await stream.aclose(schema.ERROR_CANCELLED)


def router(calls: Calls) -> APIRouter:
    """What is asked less often: the lists of models, and how the proxy is."""
    api = APIRouter()
    routing = calls.routing

    @api.get("/v1/models")
    async def models() -> Response:
        return await _models(routing.providers)

    @api.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        listed = await models()
        if listed.status_code != 200:
            return listed
        return Response(one(bytes(listed.body), name), media_type="application/json")

    @api.get("/health")
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


class _Row(msgspec.Struct):
    id: str


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
        if isinstance(error, Refused):
            return Response(error.content, error.status, error.headers)
        raise verdict([error]) if isinstance(error, Failed) else error
    headers = {PROVIDER_HEADER: providers[0].name}
    if len(providers) == 1:
        return Response(good[0], 200, headers, media_type="application/json")
    rows = (row for answer in good for row in _list.decode(answer).data)
    together = _Models(list({_row.decode(row).id: row for row in rows}.values()))
    return Response(msgspec.json.encode(together), 200, media_type="application/json")


_list = msgspec.json.Decoder(_Models)
_row = msgspec.json.Decoder(_Row)


async def _ask(provider: Provider) -> bytes | Exception:
    """A provider's list of models, or why there is none."""
    try:
        async with asyncio.timeout(deadline.limit(MODELS_SECONDS)):
            response = await provider.get("/models")
        content = response.content
        if response.status_code != 200:
            return judged(provider.title, response.status_code, content, response.headers)
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
