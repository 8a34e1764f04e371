"""The OpenAPI description of a service: bodies of errors, plain routes, headers of every call.

FastAPI describes what its routes declare. What this service does to all of them is added here
(FastAPI's documentation, Extending OpenAPI).
"""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.routing import BaseRoute

from o11y.web.problems import TRACE_HEADER
from o11y.web.routes import PlainRoute

Responses = dict[int | str, dict[str, Any]]
Document = dict[str, Any]

_SCHEMAS = "#/components/schemas/"


class FieldError(BaseModel):
    """A field at fault, and why."""

    field: str
    message: str


class ProblemDetails(BaseModel):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    instance: str | None = None
    trace_id: str | None
    errors: list[FieldError] = []


class OpenAIErrorDetails(BaseModel):
    """The `error` of OpenAI's envelope."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(BaseModel):
    """The body of an error under `/v1`: OpenAI's clients raise their own exceptions of it."""

    error: OpenAIErrorDetails


EVENT: Document = {
    "type": "object",
    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
    "required": ["data"],
}
"""Schema of an event of a stream."""

EVENT_STREAM: Responses = {200: {"content": {"text/event-stream": {"schema": EVENT}}}}
"""The response of a route that streams when it is asked to."""

_ALWAYS = (503, 504)
_WITH_PARAMETERS = (422,)
_WITH_BODY = (400, 413, 422)


def errors(*statuses: int) -> Responses:
    """The `responses` of a route that can fail so, besides the ways in which every route can."""
    return {status: {"description": HTTPStatus(status).phrase} for status in statuses}


def complete(
    document: Document, routes: Iterable[BaseRoute], parameters: Sequence[Mapping[str, Any]]
) -> None:
    """Add to FastAPI's description of an application what it doesn't know of its routes.

    Every operation has these parameters besides its own.
    """
    paths = document.setdefault("paths", {})
    for route in routes:
        if isinstance(route, PlainRoute) and route.operation:
            paths[route.path] = {"post": deepcopy(dict(route.operation))}
    for path, operations in paths.items():
        for operation in operations.values():
            _add_parameters(operation, parameters)
            _add_errors(path, operation)
            for response in operation["responses"].values():
                response.setdefault("headers", {})[TRACE_HEADER] = {
                    "description": "The trace of the call: 32 hexadecimal digits.",
                    "schema": {"type": "string"},
                }
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    models = [(ProblemDetails, "serialization"), (OpenAIError, "serialization")]
    _, definitions = models_json_schema(models, ref_template=_SCHEMAS + "{model}")  # type: ignore[arg-type]
    schemas.update(definitions["$defs"])


def _add_parameters(operation: Document, parameters: Iterable[Mapping[str, Any]]) -> None:
    declared = operation.setdefault("parameters", [])
    names = {(each["in"], each["name"]) for each in declared}
    declared += [dict(each) for each in parameters if (each["in"], each["name"]) not in names]
    if not declared:
        del operation["parameters"]


def _add_errors(path: str, operation: Document) -> None:
    """Give every error its body; those that any route can have are added."""
    responses = operation["responses"]
    default = responses.pop("422", None)  # FastAPI's own body
    statuses = set(_ALWAYS)
    if default or "parameters" in operation:
        statuses.update(_WITH_PARAMETERS)
    if "requestBody" in operation:
        statuses.update(_WITH_BODY)
    for status in sorted(statuses):
        responses.setdefault(str(status), {"description": HTTPStatus(status).phrase})
    for status, response in responses.items():
        if int(status) >= 400 and "content" not in response:
            response["content"] = _error_content(path)
    operation["responses"] = dict(sorted(responses.items()))


def _error_content(path: str) -> Document:
    if path.startswith("/v1/"):
        return {"application/json": {"schema": {"$ref": f"{_SCHEMAS}OpenAIError"}}}
    return {"application/problem+json": {"schema": {"$ref": f"{_SCHEMAS}ProblemDetails"}}}
