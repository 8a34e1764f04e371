"""Checks of responses: a response must be a good answer, or a refusal of the right form."""

import re
from collections.abc import Callable, Iterable
from typing import TypeVar

import httpx2
from pydantic import BaseModel, ValidationError

from deploy.demo.calls import Judge, Verdict
from o11y.web.problems import TRACE_HEADER

A = TypeVar("A", bound=BaseModel)


class FieldError(BaseModel):
    """An invalid field of a request, as a problem names it."""

    field: str
    message: str


class ProblemBody(BaseModel):
    """RFC 9457 problem details, with the members that this system adds."""

    status: int
    title: str
    detail: str
    trace_id: str
    errors: list[FieldError] = []


class OpenAIError(BaseModel):
    """The error object that OpenAI's SDKs make their exceptions of."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIEnvelope(BaseModel):
    error: OpenAIError


def good(kind: type[A], check: Callable[[A], Iterable[str]]) -> Judge:
    """Expects status 200, a valid `kind` with a trace id, and no failures from `check`."""
    return _judge(200, "application/json", kind, lambda answer, _: check(answer))


def problem(status: int, field: str | None = None, says: str | None = None) -> Judge:
    """Expects a refusal as problem details: about `field`, its detail matching `says`."""

    def check(body: ProblemBody, trace_id: str | None) -> Iterable[str]:
        if body.status != status:
            yield f"the problem's own status is {body.status}, not {status}"
        if field and field not in [item.field for item in body.errors]:
            yield f"the field {field} is not named: {body.detail}"
        if says and not re.search(says, body.detail):
            yield f"the detail does not match {says}: {body.detail}"
        if body.trace_id != trace_id:
            yield f"the problem's trace_id is {body.trace_id}, not that of {TRACE_HEADER}"

    return _judge(status, "application/problem+json", ProblemBody, check)


def openai_error(status: int, code: str, param: str) -> Judge:
    """Expects a refusal in OpenAI's envelope."""

    def check(body: OpenAIEnvelope, _: str | None) -> Iterable[str]:
        if body.error.code != code:
            yield f"the error's code is {body.error.code!r}, not {code!r}"
        if body.error.param != param:
            yield f"the error's param is {body.error.param!r}, not {param!r}"

    return _judge(status, "application/json", OpenAIEnvelope, check)


def _judge(
    status: int, media_type: str, kind: type[A], check: Callable[[A, str | None], Iterable[str]]
) -> Judge:
    def judge(response: httpx2.Response) -> Verdict:
        given = response.headers.get("content-type", "none").partition(";")[0]
        excerpt = " ".join(response.text[:200].split())
        if response.status_code != status:
            return Verdict([f"status {response.status_code}, not {status}: {excerpt}"])
        if given != media_type:
            return Verdict([f"content type {given}, not {media_type}: {excerpt}"])
        try:
            body = kind.model_validate_json(response.content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "body"
            return Verdict([f"the answer is no {kind.__name__}: {where}: {first['msg']}"])
        trace_id = response.headers.get(TRACE_HEADER)
        failures = list(check(body, trace_id))
        if trace_id is None:
            failures.append(f"the answer has no {TRACE_HEADER}")
        return Verdict(failures, body)

    return judge
