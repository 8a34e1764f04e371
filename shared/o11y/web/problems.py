"""Errors as answers: RFC 9457 problem details, and OpenAI's envelope under `/v1`."""

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from opentelemetry import trace
from opentelemetry.trace import StatusCode
from starlette.exceptions import HTTPException

from o11y.telemetry.logs import trace_ids

logger = logging.getLogger(__name__)

TRACE_HEADER = "X-Trace-Id"

MAX_ERRORS = 20
"""Most fields at fault that an answer names: a body may have as many as it has bytes."""

MAX_FIELD = 200
"""Most characters of a field's name: that of an unknown one is the caller's."""

MAX_INSTANCE = 512
"""Most characters of a path that an answer repeats."""

NO_QUOTA = "insufficient_quota"
"""OpenAI's type and code for a caller without money."""

_OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class Problem(Exception):
    """An error the caller is told about.

    `status` is the HTTP status, `detail` a sentence for people, `code` a stable word for programs,
    `field` the input it is about. `log_detail` is what logs and spans say instead of a detail that
    quotes somebody else: a provider's words may repeat a prompt or a key.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        code: str | None = None,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
        errors: list[dict[str, str]] | None = None,
        log_detail: str | None = None,
    ) -> None:
        super().__init__(log_detail or detail)
        self.status = status
        self.detail = detail
        self.code = code or HTTPStatus(status).phrase.lower().replace(" ", "_")
        self.headers = dict(headers or {})
        self.errors = errors or ([{"field": field, "message": detail}] if field else [])


def unavailable(detail: str) -> Problem:
    """503: a service this one needs can't be reached."""
    return Problem(503, detail, code="unavailable", headers={"Retry-After": "1"})


def out_of_time(detail: str) -> Problem:
    """504: the deadline passed."""
    return Problem(504, detail, code="out_of_time")


def openai_error(problem: Problem) -> dict[str, object]:
    """OpenAI's envelope, which its clients turn into exceptions of their own."""
    default = "server_error" if problem.status >= 500 else "invalid_request_error"
    kind = _OPENAI_TYPES.get(problem.status, default)
    return {
        "error": {
            "message": problem.detail,
            "type": NO_QUOTA if problem.code == NO_QUOTA else kind,
            "param": problem.errors[0]["field"] if problem.errors else None,
            "code": problem.code,
        }
    }


def details(problem: Problem, instance: str | None = None) -> dict[str, object]:
    """RFC 9457 problem details, with the trace they belong to."""
    body: dict[str, object] = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "code": problem.code,
        **({"instance": instance[:MAX_INSTANCE]} if instance else {}),
        "trace_id": trace_ids().get("trace_id"),
    }
    return body | {"errors": problem.errors} if problem.errors else body


def answer(problem: Problem, path: str) -> JSONResponse:
    """The response for a problem: OpenAI's envelope for paths under `/v1`, RFC 9457 elsewhere."""
    if path.startswith("/v1/"):
        return JSONResponse(openai_error(problem), problem.status, problem.headers)
    return JSONResponse(
        details(problem, path),
        problem.status,
        problem.headers,
        media_type="application/problem+json",
    )


def from_validation(error: RequestValidationError) -> Problem:
    """422 that names the fields at fault, and never repeats the caller's value."""
    found: dict[tuple[str, str], None] = {}
    for item in error.errors()[:MAX_ERRORS]:
        location = item["loc"]
        where = location[1:] if location[:1] in (("body",), ("query",), ("path",)) else location
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "json_invalid":
            where, message = ("body",), f"not valid JSON: {item.get('ctx', {}).get('error', '')}"
        elif location[:1] == ("body",) and error.body is not None:
            where = _within(error.body, where, item["type"])
        found[".".join(map(str, where))[:MAX_FIELD] or "body", message] = None
    errors = [{"field": field, "message": message} for field, message in found]
    detail = "; ".join(f"{item['field']}: {item['message']}" for item in errors)
    return Problem(422, detail, code="invalid_input", errors=errors)


def _within(body: Any, location: Sequence[Any], kind: str) -> list[Any]:
    """The location of an error of this kind as the caller knows it: without the names that pydantic
    has for the alternatives of a field.
    """
    path: list[Any] = []
    for part in location:
        if (isinstance(body, dict) and part in body) or (
            isinstance(body, list) and isinstance(part, int) and part < len(body)
        ):
            body = body[part]
        else:
            continue
        path.append(part)
    return [*path, location[-1]] if kind == "missing" else path


def report(problem: Problem) -> None:
    """Say in the log and on the span what went wrong, where it is not the caller's fault."""
    if problem.status >= 500 and trace.get_current_span().is_recording():
        trace.get_current_span().set_status(StatusCode.ERROR, str(problem))
        logger.warning("%s", problem, extra={"code": problem.code, "status": problem.status})


async def on_unforeseen(request: Request, _: Exception) -> JSONResponse:
    """The answer for an exception that is nobody's Problem."""
    problem = Problem(500, "an error nobody foresaw; the log of this trace has it")
    return answer(problem, request.url.path)


def install(app: FastAPI) -> None:
    """Make every error of this application an answer of this shape."""

    async def on_problem(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Problem)
        report(error)
        return answer(error, request.url.path)

    async def on_invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return answer(from_validation(error), request.url.path)

    async def on_http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        status = error.status_code
        code = "too_large" if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE else None
        problem = Problem(status, str(error.detail), code=code, headers=error.headers)
        return answer(problem, request.url.path)

    app.add_exception_handler(Problem, on_problem)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(Exception, on_unforeseen)
