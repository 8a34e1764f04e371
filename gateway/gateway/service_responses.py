"""Responses of the other services: parsed, or raised as the Problem they stand for."""

from http import HTTPStatus
from typing import TypeVar

import httpx2
from pydantic import BaseModel, ValidationError

from o11y.contracts import BUDGET_HEADER
from o11y.web.problems import Problem

M = TypeVar("M", bound=BaseModel)


def parsed(model: type[M], response: httpx2.Response, service: str) -> M:
    """The content of a good response. Raises the Problem another one stands for, or 502."""
    raise_for_problem(response, service)
    try:
        return model.model_validate_json(response.content)
    except ValidationError as error:
        raise not_as_asked(service, error) from error


def not_as_asked(service: str, error: ValidationError) -> Problem:
    """502: an answer that lacks something, or has it in another form."""
    wrong = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in wrong["loc"])
    detail = f"{service}'s answer is not what was asked for: {where} {wrong['msg']}"
    return Problem(502, detail, code="bad_upstream")


def raise_for_problem(response: httpx2.Response, service: str) -> None:
    """Raise the Problem a bad answer stands for.

    A budget that is used up is 402. What the caller can mend (400, 403, 404, 409, 413, 422, 429)
    keeps its status and words; 503 and 504 too, since they name the cause; anything else is 502.
    """
    if response.status_code < 300:
        return
    detail, code, errors = _reason(response)
    status = response.status_code
    if BUDGET_HEADER in response.headers:
        raise Problem(402, detail, code="budget_exceeded", headers=_kept(response, BUDGET_HEADER))
    if status not in (400, 403, 404, 409, 413, 422, 429, 503, 504):
        detail, status, code = f"{service} answered {status}: {detail}", 502, "upstream_error"
    raise Problem(
        status,
        detail,
        code=code,
        headers=_kept(response),
        errors=errors,
        # only a refusal can be in a provider's words; of its own failure a service tells itself
        log_detail=None
        if response.status_code >= 500
        else f"{service} answered {response.status_code}",
    )


def _kept(response: httpx2.Response, *names: str) -> dict[str, str]:
    """The headers that the caller is told as well."""
    return {
        name: response.headers[name] for name in ("Retry-After", *names) if name in response.headers
    }


def _reason(response: httpx2.Response) -> tuple[str, str | None, list[dict[str, str]]]:
    """Detail, code and field errors of a problem or of OpenAI's envelope; else the status line."""
    plain: tuple[str, None, list[dict[str, str]]] = (
        _phrase(response.status_code),
        None,
        [],
    )
    if "json" not in response.headers.get("content-type", ""):
        return plain
    try:
        body = response.json()
    except ValueError:
        return plain
    if not isinstance(body, dict):
        return plain
    error = body.get("error")
    if isinstance(error, dict):
        message = str(error.get("message", plain[0]))
        field = error.get("param")
        errors = [{"field": str(field), "message": message}] if field else []
        return message, _word(error.get("code")), errors
    listed = body.get("errors")
    errors = [
        {"field": str(item["field"]), "message": str(item.get("message", ""))}
        for item in (listed if isinstance(listed, list) else [])
        if isinstance(item, dict) and "field" in item
    ]
    return str(body.get("detail", plain[0])), _word(body.get("code")), errors


def _word(code: object) -> str | None:
    """A code that programs know; some providers have their status there, as a number."""
    return code if isinstance(code, str) and code else None


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"status {status}"
