"""Errors as answers: their two shapes, what they name and what they keep to themselves."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from o11y.web.problems import MAX_ERRORS, Problem
from tests.support.recorded import Recorded
from tests.support.small_service import service


@pytest.fixture
async def things(recorded: Recorded) -> AsyncIterator[httpx2.AsyncClient]:
    async with service(recorded) as client:
        yield client


async def test_an_error_is_a_problem_document_of_rfc_9457(things: httpx2.AsyncClient) -> None:
    response = await things.get("/busy")
    assert response.status_code == 429
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["retry-after"] == "3"
    assert response.json() == {
        "type": "about:blank",
        "title": "Too Many Requests",
        "status": 429,
        "detail": "too busy",
        "code": "busy",
        "instance": "/busy",
        "trace_id": response.headers["x-trace-id"],
        "errors": [{"field": "load", "message": "too busy"}],
    }


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/v1/busy", 429, ("too busy", "rate_limit_error", "load", "busy")),
        ("/v1/down", 503, ("the disk is full", "server_error", None, "service_unavailable")),
        ("/v1/none", 404, ("Not Found", "invalid_request_error", None, "not_found")),
    ],
)
async def test_under_v1_it_is_openais_envelope(
    path: str, status: int, error: tuple[object, ...], things: httpx2.AsyncClient
) -> None:
    response = await things.get(path)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    names = ("message", "type", "param", "code")
    assert response.json() == {"error": dict(zip(names, error, strict=True))}


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("DELETE", "/things", 405, "method_not_allowed"),
        ("GET", "/down", 503, "service_unavailable"),
        ("GET", "/boom", 500, "internal_server_error"),
    ],
)
async def test_every_error_has_its_status_and_a_word_for_programs(
    method: str, path: str, status: int, code: str, things: httpx2.AsyncClient
) -> None:
    response = await things.request(method, path)
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.json()["trace_id"] == response.headers["x-trace-id"]


async def test_405_says_what_is_allowed(things: httpx2.AsyncClient) -> None:
    assert (await things.get("/things")).headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, ["name"]),
        ({"name": 7}, ["name"]),
        ({"name": "a", "parts": [{"size": 1}, {"size": 0}]}, ["parts.1.size"]),
        ({"name": "a", "parts": [{}]}, ["parts.0.size"]),
        ({"parts": 3}, ["name", "parts"]),
        ([], ["body"]),
        ("{", ["body"]),
        ("", ["body"]),
        ('{"name": "a"} and more', ["body"]),
    ],
)
async def test_invalid_input_names_every_field_at_fault(
    body: object, fields: list[str], things: httpx2.AsyncClient
) -> None:
    sent: dict[str, Any] = {"content": body} if isinstance(body, str) else {"json": body}
    response = await things.post("/things", headers={"content-type": "application/json"}, **sent)
    answer = response.json()
    assert (response.status_code, answer["code"]) == (422, "invalid_input")
    assert [error["field"] for error in answer["errors"]] == fields
    assert all(field in answer["detail"] for field in fields)


async def test_a_value_in_the_path_is_named_too(things: httpx2.AsyncClient) -> None:
    response = await things.get("/things/seven")
    assert response.json()["errors"][0]["field"] == "number"


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"name": "a", "labels": {"k": [1]}}, {"labels.k"}),
        ({"name": "a", "labels": {"k": {"x": 1}}}, {"labels.k"}),
        ({"name": "a", "alias": 7}, {"alias"}),
        ({"name": "a", "alias": ["b", 7]}, {"alias", "alias.1"}),
        ({"name": "a", "alias": ""}, {"alias"}),
        ({"name": "a", "parts": [{"size": 1}, {}]}, {"parts.1.size"}),
    ],
)
async def test_fields_have_the_names_their_callers_know(
    body: object, fields: set[str], things: httpx2.AsyncClient
) -> None:
    answer = (await things.post("/things", json=body)).json()
    assert {error["field"] for error in answer["errors"]} == fields


async def test_an_answer_names_no_more_fields_than_a_person_reads(
    things: httpx2.AsyncClient,
) -> None:
    body = {"name": "a", "parts": [{"size": 0}] * 10_000}
    response = await things.post("/things", json=body)
    assert len(response.json()["errors"]) == MAX_ERRORS
    long = {"name": "a", "labels": {"k" * 100_000: None}}
    response = await things.post("/things", json=long)
    assert response.status_code == 422
    assert len(response.content) < 3000


async def test_an_answer_does_not_repeat_a_long_path(things: httpx2.AsyncClient) -> None:
    response = await things.get("/" + "a" * 50_000)
    assert response.status_code == 404
    assert len(response.content) < 1000


async def test_invalid_input_under_v1_names_its_first_field(things: httpx2.AsyncClient) -> None:
    error = (await things.post("/v1/things", json={"parts": 3})).json()["error"]
    assert (error["type"], error["param"], error["code"]) == (
        "invalid_request_error",
        "name",
        "invalid_input",
    )


@pytest.mark.parametrize(
    "body",
    [
        {"name": "hunter2"},
        {"name": ["hunter2"]},
        {"name": "a", "parts": "hunter2"},
        {"name": "a", "parts": [{"size": "hunter2"}]},
    ],
)
async def test_what_the_caller_sent_is_not_repeated(
    body: object, things: httpx2.AsyncClient
) -> None:
    response = await things.post("/things", json=body)
    assert response.status_code == 422
    assert "hunter2" not in response.text


@pytest.mark.parametrize("path", ["/boom", "/v1/boom"])
async def test_an_unforeseen_error_keeps_its_words_to_itself(
    path: str, things: httpx2.AsyncClient
) -> None:
    response = await things.get(path)
    assert response.status_code == 500
    assert "hunter2" not in response.text
    assert "Traceback" not in response.text


@pytest.mark.parametrize(
    ("path", "message"), [("/down", "the disk is full"), ("/busy", None), ("/nowhere", None)]
)
async def test_the_span_says_why_the_service_failed(
    path: str, message: str | None, things: httpx2.AsyncClient, recorded: Recorded
) -> None:
    await things.get(path)
    [span] = recorded.spans()
    assert span.status.description == message


def test_a_code_is_made_of_the_status_when_none_is_given() -> None:
    assert Problem(504, "slow").code == "gateway_timeout"
