"""OpenAI's API at the gateway: `/v1` goes to llm-proxy as it came, streams included."""

import re
from collections.abc import Mapping
from contextlib import aclosing

from fastapi import APIRouter, Depends, Request, Response
from starlette.types import Receive, Scope, Send

from gateway.backends import Backends
from gateway.relay import openai_ending, relayed
from gateway.who import asked, by_openai_body, by_query
from o11y.contracts import COST_HEADER, PROVIDER_HEADER
from o11y.http import deadline
from o11y.http.client import StreamedResponse
from o11y.openai.headers import passed, raw
from o11y.openai.models import one
from o11y.web import problems
from o11y.web.events import Last, ending, event
from o11y.web.problems import Problem, openai_error
from o11y.web.server import Endpoint, read_body, send_whole

OURS = ("content-type", PROVIDER_HEADER, COST_HEADER)
"""Answer headers that reach the client beside the provider's; the rest belong to the hop."""

STREAMS = re.compile(rb'"stream"\s*:\s*true')
"""A body that asks for a stream, or talks of one: enough to allow for the time a stream takes."""


def endpoints(backends: Backends) -> dict[str, Endpoint]:
    """The hot paths, without a router between and without reading what goes by."""

    async def forward(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        content = await read_body(receive)
        request = Request(scope)
        headers = {"content-type": request.headers.get("content-type", "application/json")}
        by_query(scope)
        by_openai_body(content)
        if not STREAMS.search(content):
            answer = await backends.llm.request("POST", path, content=content, headers=headers)
            await send_whole(
                send, answer.status_code, [*raw(_kept(answer.headers))], answer.content
            )
            return
        deadline.stream(backends.stream_timeout_seconds)
        opened = await backends.llm.open(
            "POST",
            path,
            content=content,
            headers=headers,
            seconds=backends.stream_timeout_seconds,
        )
        try:
            await _relay(opened, send)
        finally:
            await opened.aclose()

    return dict.fromkeys(("/v1/chat/completions", "/v1/completions", "/v1/embeddings"), forward)


async def _relay(opened: StreamedResponse, send: Send) -> None:
    if "event-stream" not in opened.headers.get("content-type", ""):
        whole = await opened.read()
        await send_whole(send, whole.status_code, [*raw(_kept(whole.headers))], whole.content)
        return
    headers = [*raw(_kept(opened.headers)), (b"cache-control", b"no-cache")]
    await send({"type": "http.response.start", "status": opened.status_code, "headers": headers})
    try:
        async with aclosing(relayed(opened, openai_ending)) as pieces:
            async for events in pieces:
                body = events[0] if len(events) == 1 else b"".join(events)
                if isinstance(body, Last):
                    await send(ending(body, broken=body.broken))
                    return
                await send({"type": "http.response.body", "body": body, "more_body": True})
    except Problem as problem:  # too late for a status: in the form OpenAI's clients raise
        problems.report(problem)
        await send(ending(event(openai_error(problem)), broken=True))
        return
    await send(ending())


def router(backends: Backends) -> APIRouter:
    api = APIRouter(prefix="/v1", dependencies=[Depends(asked)])

    @api.get("/models")
    async def models() -> Response:
        answer = await backends.llm.request("GET", "/v1/models")
        return Response(answer.content, answer.status_code, _kept(answer.headers))

    @api.get("/models/{name:path}")
    async def model(name: str) -> Response:
        listed = await models()
        if listed.status_code != 200:
            return listed
        return Response(one(bytes(listed.body), name), media_type="application/json")

    return api


def _kept(headers: Mapping[str, str]) -> dict[str, str]:
    ours = {name.lower(): value for name in OURS if (value := headers.get(name)) is not None}
    return ours | passed(headers)
