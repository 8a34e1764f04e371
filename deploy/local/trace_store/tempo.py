"""The part of Tempo's HTTP API that reads traces (grafana.com/docs/tempo/latest/api_docs)."""

import json
import re
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped, unused-ignore]
from google.protobuf.wrappers_pb2 import BytesValue  # type: ignore[import-untyped, unused-ignore]
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from .store import Store
from .traceql import QUOTED, Condition, duration, unquote

PROTOBUF = "application/protobuf"
REFUSED = (ValueError, OverflowError, re.error, sqlite3.Error)
SEARCH = Path(__file__).with_name("search.sql").read_text()


def create_app(store: Store) -> Starlette:
    """The application for port 3200: Tempo's API."""

    def trace(request: Request) -> Response:
        data, v2 = store.trace(trace_id(request)), request.url.path.startswith("/api/v2")
        if not data.resource_spans and not v2:
            raise HTTPException(404, "trace not found")
        body, document = data.SerializeToString(), MessageToDict(data)
        if PROTOBUF not in request.headers.get("accept", ""):
            v1 = {"batches": document.get("resourceSpans")}
            return JSONResponse({"trace": document, "metrics": {}} if v2 else v1)
        if v2:  # a TraceByIDResponse has the trace as its field 1, as this has the trace's bytes
            body = BytesValue(value=body).SerializeToString() or b"\n\0"
        return Response(body, media_type=PROTOBUF)

    def refuse(_: Request, error: Exception) -> Response:
        return PlainTextResponse(str(error), 503 if isinstance(error, sqlite3.Error) else 400)

    return Starlette(
        routes=[
            Route("/api/traces/{trace_id}", trace),
            Route("/api/v2/traces/{trace_id}", trace),
            Route("/api/search", lambda request: JSONResponse(find(store, request.query_params))),
            Route("/api/echo", lambda _: PlainTextResponse("echo")),
            Route("/ready", lambda _: PlainTextResponse("ready")),
        ],
        exception_handlers=dict.fromkeys(REFUSED, refuse),
    )


def trace_id(request: Request) -> bytes:
    """The trace id of a path, whose leading zeros may be missing. Raises ValueError."""
    found = bytes.fromhex(request.path_params["trace_id"].zfill(32))
    if len(found) != 16:
        raise ValueError("a trace id has at most 32 hexadecimal digits")
    return found


def find(store: Store, asked: Mapping[str, str]) -> dict[str, object]:
    """The answer to a search. Raises ValueError, OverflowError or re.error for a bad query."""
    query, tags = asked.get("q"), parse_tags(asked.get("tags", ""))
    condition = Condition(query or "{}")
    start, end = whole(asked, "start", 0), whole(asked, "end", 0)
    if query and tags:
        raise ValueError("q and tags exclude each other")
    if start >= end and (start or end):
        raise ValueError("start must be before end")
    parameters = condition.parameters | {
        "is_query": bool(query),
        "fields": json.dumps(condition.fields),
        "tags": json.dumps(tags),
        "start": start * 10**9,
        "end": (end or 9 * 10**9) * 10**9,  # the year 2255, near SQLite's largest integer
        "shortest": duration(asked.get("minDuration") or "0s"),
        "longest": duration(asked.get("maxDuration") or "1000000h"),
        "traces": whole(asked, "limit", 20),
        "spans": whole(asked, "spss", 3),
    }
    rows = store.read(SEARCH.replace("{condition}", condition.sql), parameters)
    return {"traces": [json.loads(row["answer"]) for row in rows], "metrics": {}}


def whole(asked: Mapping[str, str], name: str, otherwise: int) -> int:
    text = asked.get(name) or str(otherwise)
    least = min(otherwise, 1)
    if not re.fullmatch(r"\d{1,10}", text) or int(text) < least:
        raise ValueError(f"{name} must be a whole number, at least {least}")
    return int(text)


def parse_tags(logfmt: str) -> dict[str, str]:
    """Parse tags such as `a=b c="d e"`. Raises ValueError."""
    pair = re.compile(rf'\s*([^\s="]+)=({QUOTED}|[^\s"]*)')
    if pair.sub("", logfmt).strip():
        raise ValueError('tags must look like key=value key="another value"')
    return {key: unquote(value) for key, value in pair.findall(logfmt)}
