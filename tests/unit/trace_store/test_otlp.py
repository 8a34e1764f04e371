"""What the receiver takes, and how it refuses the rest."""

import gzip
import json
from typing import Any

import httpx
import pytest
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped, unused-ignore]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from deploy.local.trace_store.otlp import MAX_BYTES
from deploy.local.trace_store.store import Store
from tests.support.trace_samples import export, span, spans_of

PROTOBUF = {"Content-Type": "application/x-protobuf"}
JSON = {"Content-Type": "application/json"}
TRACE = "5b8efff798038103d269b633813fc60c"


def document(**changes: object) -> dict[str, Any]:
    """An export in OTLP's JSON, after the example of the specification."""
    fields = {
        "traceId": TRACE.upper(),
        "spanId": "eee19b7ec3c1b174",
        "parentSpanId": "eee19b7ec3c1b173",
        "name": "I'm a server span",
        "startTimeUnixNano": "1544712660000000000",
        "endTimeUnixNano": 1544712661000000000,
        "kind": 2,
        "status": {"code": 2},
        "attributes": [
            {"key": "traceId", "value": {"stringValue": "not an id"}},
            {"key": "count", "value": {"intValue": "3"}},
            {"key": "size", "value": {"intValue": 4}},
        ],
        "links": [{"traceId": TRACE, "spanId": "eee19b7ec3c1b175"}],
        "fieldOfTheFuture": {"any": "thing"},
    }
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "my.service"}}]}
    spans = [fields | changes]
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": spans}]}]}


async def test_keeps_a_protobuf_export(receiver: httpx.AsyncClient, store: Store) -> None:
    sent = span("one")
    request = ExportTraceServiceRequest(resource_spans=export(sent).resource_spans)
    answer = await receiver.post(
        "/v1/traces", content=request.SerializeToString(), headers=PROTOBUF
    )
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/x-protobuf"
    assert ExportTraceServiceResponse.FromString(answer.content) == ExportTraceServiceResponse()
    assert store.trace(sent.trace_id) == export(sent)


async def test_keeps_a_json_export(receiver: httpx.AsyncClient, store: Store) -> None:
    answer = await receiver.post("/v1/traces", json=document())
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {}
    (kept,) = spans_of(store.trace(bytes.fromhex(TRACE)))
    assert kept.span_id.hex() == "eee19b7ec3c1b174"
    assert kept.parent_span_id.hex() == "eee19b7ec3c1b173"
    assert kept.links[0].trace_id.hex() == TRACE
    assert kept.end_time_unix_nano - kept.start_time_unix_nano == 10**9
    assert (kept.kind, kept.status.code) == (2, 2)
    assert kept.attributes[0].value.string_value == "not an id"
    assert [pair.value.int_value for pair in kept.attributes[1:]] == [3, 4]


@pytest.mark.parametrize("headers", [PROTOBUF, JSON])
async def test_decompresses_gzip(
    receiver: httpx.AsyncClient, store: Store, headers: dict[str, str]
) -> None:
    sent = span(trace=bytes.fromhex(TRACE))
    plain = export(sent).SerializeToString()
    body = gzip.compress(plain if headers is PROTOBUF else json.dumps(document()).encode())
    answer = await receiver.post(
        "/v1/traces", content=body, headers=headers | {"Content-Encoding": "gzip"}
    )
    assert answer.status_code == 200
    assert len(spans_of(store.trace(bytes.fromhex(TRACE)))) == 1


async def test_ignores_the_parameters_of_a_content_type(receiver: httpx.AsyncClient) -> None:
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    answer = await receiver.post("/v1/traces", content=b"{}", headers=headers)
    assert answer.status_code == 200


@pytest.mark.parametrize("signal", ["metrics", "logs"])
@pytest.mark.parametrize(("headers", "empty"), [(PROTOBUF, b""), (JSON, b"{}")])
async def test_accepts_and_drops_the_other_signals(
    receiver: httpx.AsyncClient, signal: str, headers: dict[str, str], empty: bytes
) -> None:
    answer = await receiver.post(f"/v1/{signal}", content=b"whatever", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == headers["Content-Type"]
    assert answer.content == empty


@pytest.mark.parametrize(
    "headers",
    [{}, {"Content-Type": "text/plain"}, PROTOBUF | {"Content-Encoding": "br"}],
    ids=["no content type", "text", "brotli"],
)
async def test_refuses_what_it_cannot_read(
    receiver: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    answer = await receiver.post("/v1/traces", content=b"", headers=headers)
    assert answer.status_code == 415


@pytest.mark.parametrize(
    "body",
    [
        b"\xff\xff\xff",
        export(span(trace=b"short")).SerializeToString(),
        export(span(trace=bytes(16))).SerializeToString(),
        export(span(id=b"")).SerializeToString(),
        export(span(start=2**63)).SerializeToString(),
    ],
    ids=["noise", "short trace id", "trace id of zeros", "no span id", "time after 2262"],
)
async def test_refuses_malformed_protobuf(receiver: httpx.AsyncClient, body: bytes) -> None:
    answer = await receiver.post("/v1/traces", content=body, headers=PROTOBUF)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/x-protobuf"
    assert Status.FromString(answer.content).message


@pytest.mark.parametrize(
    "body",
    [
        "{",
        '"text"',
        "[1]",
        "null",
        '{"resourceSpans": 3}',
        '{"resourceSpans": [{"scopeSpans": [{"spans": [{"name": 5}]}]}]}',
        "[" * 100_000,
        '{"resourceSpans": [{"scopeSpans": [{"spans": [{"name": "\\ud800"}]}]}]}',
        json.dumps(document(traceId="xyz")),
        json.dumps(document(traceId=7)),
        json.dumps(document(traceId=TRACE[2:])),
        json.dumps(document(spanId="W47/95gDgQPSabYzgT/GDA==")),
        json.dumps(document(startTimeUnixNano="yesterday")),
    ],
)
async def test_refuses_malformed_json(receiver: httpx.AsyncClient, body: str) -> None:
    answer = await receiver.post("/v1/traces", content=body, headers=JSON)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["message"]


@pytest.mark.parametrize("body", [b"not gzip", gzip.compress(b"x" * 1000, mtime=0)[:-9]])
async def test_refuses_malformed_gzip(receiver: httpx.AsyncClient, body: bytes) -> None:
    headers = PROTOBUF | {"Content-Encoding": "gzip"}
    answer = await receiver.post("/v1/traces", content=body, headers=headers)
    assert answer.status_code == 400


async def test_stores_nothing_of_an_export_with_a_bad_span(
    receiver: httpx.AsyncClient, store: Store
) -> None:
    good = span()
    body = export(good, span(id=b"bad")).SerializeToString()
    answer = await receiver.post("/v1/traces", content=body, headers=PROTOBUF)
    assert answer.status_code == 400
    assert not store.trace(good.trace_id).resource_spans


async def test_refuses_a_body_that_is_too_large(receiver: httpx.AsyncClient) -> None:
    answer = await receiver.post("/v1/traces", content=bytes(MAX_BYTES + 1), headers=PROTOBUF)
    assert answer.status_code == 413
    assert str(MAX_BYTES) in Status.FromString(answer.content).message


async def test_refuses_a_body_that_is_too_large_once_decompressed(
    receiver: httpx.AsyncClient,
) -> None:
    bomb = gzip.compress(bytes(MAX_BYTES + 1))
    headers = JSON | {"Content-Encoding": "gzip"}
    answer = await receiver.post("/v1/traces", content=bomb, headers=headers)
    assert answer.status_code == 413


async def test_says_to_try_again_when_the_database_fails(
    receiver: httpx.AsyncClient, store: Store
) -> None:
    store.close()
    body = export(span()).SerializeToString()
    answer = await receiver.post("/v1/traces", content=body, headers=PROTOBUF)
    assert answer.status_code == 503
