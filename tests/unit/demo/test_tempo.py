"""Traces as Tempo's API gives them."""

import base64
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from deploy.demo import tempo
from deploy.demo.tempo import MissingTraceError, TraceError

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
URL = "http://tempo"


def in_base64(text: str) -> str:
    return base64.b64encode(bytes.fromhex(text)).decode()


def in_hex(text: str) -> str:
    return text


def body(encode: Callable[[str], str]) -> dict[str, Any]:
    root = {
        "traceId": encode(TRACE_ID),
        "spanId": encode("b7ad6b7169203331"),
        "name": "POST /chat",
        "startTimeUnixNano": "1795448297638824146",
        "endTimeUnixNano": "1795448298138824146",
        "status": {},
        "attributes": [
            {"key": "http.response.status_code", "value": {"intValue": "200"}},
            {"key": "o11y.cost.usd", "value": {"doubleValue": 0.25}},
            {
                "key": "gen_ai.response.finish_reasons",
                "value": {"arrayValue": {"values": [{"stringValue": "stop"}]}},
            },
            {"key": "empty", "value": {}},
        ],
    }
    child = {
        "traceId": encode(TRACE_ID),
        "spanId": encode("00f067aa0ba902b7"),
        "parentSpanId": encode("b7ad6b7169203331"),
        "name": "chat",
        "startTimeUnixNano": "1795448297738824146",
        "endTimeUnixNano": "1795448297838824146",
        "status": {"code": "STATUS_CODE_ERROR", "message": "no such model"},
    }
    return {"trace": {"resourceSpans": [group("llm-proxy", child), group("gateway", root)]}}


def group(service: str, span: dict[str, Any]) -> dict[str, Any]:
    attributes = [{"key": "service.name", "value": {"stringValue": service}}]
    return {"resource": {"attributes": attributes}, "scopeSpans": [{"spans": [span, span]}]}


@pytest.mark.parametrize("encode", [in_base64, in_hex])
def test_both_encodings_of_ids_give_the_same_trace(encode: Callable[[str], str]) -> None:
    trace = tempo.parse(TRACE_ID, body(encode))

    root, child = trace.spans
    assert (root.id, root.parent_id, root.service) == ("b7ad6b7169203331", None, "gateway")
    assert (child.id, child.parent_id, child.service) == ("00f067aa0ba902b7", root.id, "llm-proxy")
    assert root.attributes == {
        "http.response.status_code": 200,
        "o11y.cost.usd": 0.25,
        "gen_ai.response.finish_reasons": ["stop"],
        "empty": None,
    }
    assert (child.failed, child.message, root.failed) == (True, "no such model", False)
    assert (root.seconds, child.seconds, trace.seconds) == (0.5, 0.1, 0.5)
    assert trace.services == ["gateway", "llm-proxy"]
    assert not trace.orphans


@pytest.mark.parametrize("text", ["b7ad6b71692033", "no id at all!", "AAAA"])
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no id of 8 bytes|base64|padding|non-hexadecimal"):
        tempo.identifier(text, 8)


def client(*answers: httpx2.Response | Exception) -> httpx2.AsyncClient:
    """Gives the answers in turn, the last one again and again."""
    left = list(answers)

    def answer(request: httpx2.Request) -> httpx2.Response:
        found = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(found, Exception):
            raise found
        return found

    return httpx2.AsyncClient(transport=httpx2.MockTransport(answer))


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (httpx2.ConnectError("refused"), TraceError, "No trace store answers at http://tempo"),
        (httpx2.Response(500), TraceError, "answered 500"),
        (httpx2.Response(200, text="<html>"), TraceError, "is no trace store"),
        (httpx2.Response(404), MissingTraceError, f"has no trace {TRACE_ID}"),
        (httpx2.Response(200, json={"trace": {}}), MissingTraceError, f"has no trace {TRACE_ID}"),
    ],
)
async def test_a_trace_that_cannot_be_read_is_a_sentence(
    answer: httpx2.Response | Exception, kind: type[TraceError], words: str
) -> None:
    async with client(answer) as http:
        with pytest.raises(kind, match=words):
            await tempo.fetch(http, URL, TRACE_ID)


async def test_waits_until_every_service_is_there_and_nothing_more_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tempo, "POLL_SECONDS", 0.001)
    whole = body(in_hex)
    half = {"trace": {"resourceSpans": whole["trace"]["resourceSpans"][:1]}}
    answers = [httpx2.Response(404), *(httpx2.Response(200, json=j) for j in (half, half, whole))]

    async with client(*answers) as http:
        trace = await tempo.settled(http, URL, TRACE_ID, ["gateway", "llm-proxy"], 5)

    assert len(trace.spans) == 2


async def test_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempo, "POLL_SECONDS", 0.001)

    async with client(httpx2.Response(200, json=body(in_hex))) as http:
        trace = await tempo.settled(http, URL, TRACE_ID, ["absent"], 0.02)
    assert len(trace.spans) == 2

    async with client(httpx2.Response(404)) as http:
        with pytest.raises(MissingTraceError):
            await tempo.settled(http, URL, TRACE_ID, [], 0.02)
