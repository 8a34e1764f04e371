"""Traces by their id, in the forms that Tempo gives them."""

import base64

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status, TracesData

from deploy.local.trace_store.store import Store
from tests.support.trace_samples import export, new_id, span, spans_of

PROTOBUF = {"Accept": "application/protobuf"}


async def test_gives_a_trace_as_json(api: httpx.AsyncClient, store: Store) -> None:
    sent = span(
        "chat",
        kind=Span.SPAN_KIND_CLIENT,
        status=Status.STATUS_CODE_ERROR,
        attributes={"tokens": 7, "cost": 0.5, "cached": True, "model": "m", "tags": ["a"]},
    )
    store.add(export(sent))
    answer = await api.get(f"/api/traces/{sent.trace_id.hex()}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    (batch,) = answer.json()["batches"]
    assert batch["resource"]["attributes"] == [
        {"key": "service.name", "value": {"stringValue": "gateway"}}
    ]
    (scope_spans,) = batch["scopeSpans"]
    assert scope_spans["scope"] == {"name": "tests"}
    assert scope_spans["spans"] == [
        {
            "traceId": base64.b64encode(sent.trace_id).decode(),
            "spanId": base64.b64encode(sent.span_id).decode(),
            "name": "chat",
            "kind": "SPAN_KIND_CLIENT",
            "startTimeUnixNano": str(sent.start_time_unix_nano),
            "endTimeUnixNano": str(sent.end_time_unix_nano),
            "status": {"code": "STATUS_CODE_ERROR"},
            "attributes": [
                {"key": "tokens", "value": {"intValue": "7"}},
                {"key": "cost", "value": {"doubleValue": 0.5}},
                {"key": "cached", "value": {"boolValue": True}},
                {"key": "model", "value": {"stringValue": "m"}},
                {"key": "tags", "value": {"arrayValue": {"values": [{"stringValue": "a"}]}}},
            ],
        }
    ]


async def test_gives_a_trace_as_protobuf(api: httpx.AsyncClient, store: Store) -> None:
    sent = span(attributes={"key": "value"})
    store.add(export(sent))
    answer = await api.get(f"/api/traces/{sent.trace_id.hex()}", headers=PROTOBUF)
    assert answer.headers["content-type"] == "application/protobuf"
    assert TracesData.FromString(answer.content) == export(sent)


async def test_gives_a_trace_by_the_second_version(api: httpx.AsyncClient, store: Store) -> None:
    sent = span()
    store.add(export(sent))
    first = await api.get(f"/api/traces/{sent.trace_id.hex()}")
    second = await api.get(f"/api/v2/traces/{sent.trace_id.hex()}")
    assert second.json()["trace"] == {"resourceSpans": first.json()["batches"]}


async def test_wraps_the_second_version_in_a_response_message(
    api: httpx.AsyncClient, store: Store
) -> None:
    sent = span("a name long enough for a length of two bytes" * 10)
    store.add(export(sent))
    answer = await api.get(f"/api/v2/traces/{sent.trace_id.hex()}", headers=PROTOBUF)
    trace = export(sent).SerializeToString()
    length = bytes([len(trace) & 0x7F | 0x80, len(trace) >> 7])
    assert answer.content == b"\x0a" + length + trace


async def test_says_when_there_is_no_such_trace(api: httpx.AsyncClient) -> None:
    missing = new_id(16).hex()
    assert (await api.get(f"/api/traces/{missing}")).status_code == 404
    answer = await api.get(f"/api/v2/traces/{missing}")
    assert answer.status_code == 200
    assert answer.json() == {"trace": {}, "metrics": {}}
    answer = await api.get(f"/api/v2/traces/{missing}", headers=PROTOBUF)
    assert answer.content == b"\x0a\x00"


@pytest.mark.parametrize("id", ["xyz", "0" * 33, "12 34", "-1"])
@pytest.mark.parametrize("path", ["/api/traces/", "/api/v2/traces/"])
async def test_refuses_what_is_no_trace_id(api: httpx.AsyncClient, path: str, id: str) -> None:
    assert (await api.get(path + id)).status_code == 400


async def test_finds_a_trace_without_its_leading_zeros(
    api: httpx.AsyncClient, store: Store
) -> None:
    sent = span(trace=bytes(13) + b"\x0a\xbc\xde")
    store.add(export(sent))
    for id in ("abcde", "ABCDE", "0abcde"):
        assert (await api.get(f"/api/traces/{id}")).status_code == 200


async def test_puts_the_exports_of_a_trace_together(api: httpx.AsyncClient, store: Store) -> None:
    parent = span("parent")
    child = span("child", trace=parent.trace_id, parent=parent.span_id)
    store.add(export(child, service="llm-proxy"))
    store.add(export(parent, span("of another trace"), service="gateway"))
    answer = await api.get(f"/api/traces/{parent.trace_id.hex()}", headers=PROTOBUF)
    data = TracesData.FromString(answer.content)
    services = [g.resource.attributes[0].value.string_value for g in data.resource_spans]
    assert sorted(services) == ["gateway", "llm-proxy"]
    assert {span.name for span in spans_of(data)} == {"parent", "child"}


async def test_gives_a_span_once_that_was_exported_twice(
    api: httpx.AsyncClient, store: Store
) -> None:
    sent = span()
    store.add(export(sent))
    store.add(export(sent))
    answer = await api.get(f"/api/traces/{sent.trace_id.hex()}", headers=PROTOBUF)
    assert TracesData.FromString(answer.content) == export(sent)


async def test_answers_the_probes(api: httpx.AsyncClient) -> None:
    assert (await api.get("/api/echo")).text == "echo"
    assert (await api.get("/ready")).text == "ready"
