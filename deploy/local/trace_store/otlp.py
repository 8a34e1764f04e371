"""The OTLP/HTTP receiver (opentelemetry.io/docs/specs/otlp, 1.x), which drops all but traces.

Exports are protobuf or JSON, plain or gzip, at most `MAX_BYTES` before and after decompression. A
refusal is a google.rpc.Status in the content type of the request.
"""

import base64
import gzip
import io
import json
import sqlite3
import zlib

from google.protobuf.json_format import ParseDict, ParseError  # type: ignore[import-untyped, unused-ignore]
from google.protobuf.message import DecodeError  # type: ignore[import-untyped, unused-ignore]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped, unused-ignore]
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .store import Store

MAX_BYTES = 16 * 2**20
PROTOBUF, JSON = "application/x-protobuf", "application/json"
GARBLED = (DecodeError, ParseError, RecursionError, TypeError, ValueError)
NOT_GZIP = (EOFError, OSError, zlib.error)
REFUSED = (HTTPException, ClientDisconnect, OverflowError, sqlite3.Error)


def create_app(store: Store) -> Starlette:
    """The receiver's application, for port 4318."""

    async def take(request: Request) -> Response:
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type not in (PROTOBUF, JSON):
            raise HTTPException(415, f"the content type must be {PROTOBUF} or {JSON}")
        body, size = bytearray(), 0
        # Read to the end even when it is too much: a sender cut off never sees the answer.
        async for chunk in request.stream():
            size += len(chunk)
            body += chunk if size <= MAX_BYTES else b""
        if size > MAX_BYTES:
            raise HTTPException(413, f"an export may have {MAX_BYTES} bytes")
        if request.url.path == "/v1/traces":
            encoding = request.headers.get("content-encoding", "identity")
            await run_in_threadpool(lambda: store.add(decode(bytes(body), content_type, encoding)))
        return Response(b"{}" if content_type == JSON else b"", media_type=content_type)

    paths = ("/v1/traces", "/v1/metrics", "/v1/logs")
    return Starlette(
        routes=[Route(path, take, methods=["POST"]) for path in paths],
        exception_handlers=dict.fromkeys(REFUSED, refuse),
    )


async def refuse(request: Request, error: Exception) -> Response:
    otherwise = 400 if isinstance(error, (sqlite3.IntegrityError, OverflowError)) else 503
    status, reason = getattr(error, "status_code", otherwise), getattr(error, "detail", str(error))
    if PROTOBUF not in request.headers.get("content-type", ""):
        return JSONResponse({"message": reason}, status)
    body = Status(message=reason).SerializeToString()
    return Response(body, status, media_type=PROTOBUF)


def decode(body: bytes, content_type: str, encoding: str) -> TracesData:
    """Parse an ExportTraceServiceRequest, in the form of TracesData. Raises HTTPException."""
    if encoding not in ("identity", "gzip"):
        raise HTTPException(415, "the content encoding must be gzip or none")
    try:
        if encoding == "gzip":
            body = gzip.GzipFile(fileobj=io.BytesIO(body)).read(MAX_BYTES + 1)
        if len(body) > MAX_BYTES:
            raise HTTPException(413, f"an export may have {MAX_BYTES} bytes once decompressed")
        export = TracesData()
        if content_type == PROTOBUF:
            export.ParseFromString(body)
        else:
            document = dict(json.loads(body, object_hook=hex_to_base64))
            ParseDict(document, export, ignore_unknown_fields=True)
        return export
    except (*NOT_GZIP, *GARBLED) as error:
        raise HTTPException(400, f"the body isn't a trace export: {error}") from error


def hex_to_base64(document: dict[str, str]) -> dict[str, str]:
    """Convert the ids of OTLP's JSON, which are hexadecimal, to the base64 of protobuf's JSON."""
    ids = document.keys() & {"traceId", "spanId", "parentSpanId"}
    return document | {key: base64.b64encode(bytes.fromhex(document[key])).decode() for key in ids}
