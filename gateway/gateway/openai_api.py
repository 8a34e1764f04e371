"""OpenAI's API at the gateway: `/v1` goes to llm-proxy as it came, streams included."""

import re
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing

import httpx2
import msgspec
from fastapi import APIRouter, Depends, Request, Response

from gateway.backends import Backends
from gateway.caller import identify_by_openai_body, identify_by_query, query_identity
from gateway.limits import tokens
from gateway.relay import openai_ending, relayed
from gateway.service_client import StreamedResponse
from o11y.contracts import (
    BUDGET_HEADER,
    COST_HEADER,
    PROVIDER_HEADER,
    SUMMARY_FIELD,
    SUMMARY_HEADER,
    WHOLE_SUMMARY_HEADER,
    CallSummary,
)
from o11y.http import deadline, sse
from o11y.openai.headers import passed
from o11y.openai.models import one
from o11y.openai.operations import OPERATIONS
from o11y.web import problems
from o11y.web.events import EventStream, LastError, event
from o11y.web.openapi import errors
from o11y.web.problems import Problem, openai_error
from o11y.web.routes import PlainRoute

OURS = ("content-type", PROVIDER_HEADER, COST_HEADER, BUDGET_HEADER)
"""Answer headers that reach the client beside the provider's; the rest belong to the hop."""

_SUMMARY = f'"{SUMMARY_FIELD}":'.encode()

STREAMS = re.compile(rb'"stream"\s*:\s*true')
"""A body that asks for a stream, or talks of one: enough to allow for the time a stream takes."""


def routes(backends: Backends) -> list[PlainRoute]:
    """The calls to models, which llm-proxy reads."""

    async def forward(request: Request) -> Response:
        path = request.url.path
        content = await request.body()
        headers = {"content-type": request.headers.get("content-type", "application/json")}
        identify_by_query(request.scope)
        identify_by_openai_body(content)
        if tokens.is_counted():
            headers[SUMMARY_HEADER] = "1"
        if not STREAMS.search(content):
            response = await backends.llm.request("POST", path, content=content, headers=headers)
            return _whole(response)
        deadline.stream(backends.stream_timeout_seconds)
        opened = await backends.llm.open(
            "POST",
            path,
            content=content,
            headers=headers,
            seconds=backends.stream_timeout_seconds,
        )
        if "event-stream" not in opened.headers.get("content-type", ""):
            return _whole(await opened.read())
        response_headers = _response_headers(opened.headers)
        return EventStream(_events(opened), opened.aclose, response_headers, opened.status_code)

    return [PlainRoute(path, forward, each.described) for path, each in OPERATIONS.items()]


def _whole(response: httpx2.Response) -> Response:
    if summary := response.headers.get(WHOLE_SUMMARY_HEADER):
        tokens.add(CallSummary.model_validate_json(summary).usage.total_tokens)
    return Response(response.content, response.status_code, _response_headers(response.headers))


async def _events(opened: StreamedResponse) -> AsyncGenerator[bytes, None]:
    try:
        async with aclosing(relayed(opened, openai_ending)) as pieces:
            async for events in pieces:
                if tokens.is_counted():
                    for each in _without_summary(events):
                        yield each
                else:
                    yield events[0] if len(events) == 1 else b"".join(events)
    except Problem as problem:  # too late for a status: in the form OpenAI's clients raise
        problems.report(problem)
        yield LastError(event(openai_error(problem)))


def _without_summary(events: Sequence[bytes]) -> Iterator[bytes]:
    """The events without the summary, which is the gateway's: its tokens are counted."""
    for given in events:
        kind = type(given)
        splitter = sse.Splitter()
        kept = [each for each in splitter.feed(given) if not _is_summary(each)]
        if kept or kind is not bytes:
            yield kind(b"".join(kept) + splitter.rest())


def _is_summary(event: bytes) -> bool:
    if _SUMMARY not in event:
        return False
    try:
        chunk = msgspec.json.decode(sse.data(event) or b"")
        summary = CallSummary.model_validate(chunk[SUMMARY_FIELD])
    except (ValueError, TypeError, LookupError):
        return False  # somebody's text
    tokens.add(summary.usage.total_tokens)
    return True


def router(backends: Backends) -> APIRouter:
    api = APIRouter(
        prefix="/v1",
        dependencies=[Depends(query_identity)],
        tags=["openai"],
        responses=errors(401, 403, 404, 429, 502),
    )

    @api.get("/models")
    async def models() -> Response:
        return _whole(await backends.llm.request("GET", "/v1/models"))

    @api.get("/models/{name:path}")
    async def model(name: str) -> Response:
        listed = await models()
        if listed.status_code != 200:
            return listed
        return Response(one(bytes(listed.body), name), media_type="application/json")

    return api


def _response_headers(headers: Mapping[str, str]) -> dict[str, str]:
    ours = {name.lower(): value for name in OURS if (value := headers.get(name)) is not None}
    return ours | passed(headers)
