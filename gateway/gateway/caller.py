"""The user and session a request is for: by its body, else its query, else its headers.

What our own fields hold, `user_id` and `session_id` of a body or a query, must be an id or is
refused. OpenAI's fields for the end user (`safety_identifier`, which replaces `user`) and headers
may hold anything; they count where it can be an id. OpenAI's `metadata` doesn't: its keys mean what
the caller says.
"""

import re
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from opentelemetry import context, trace
from pydantic import TypeAdapter, ValidationError
from starlette.types import Scope

from o11y.contracts import Identity
from o11y.telemetry.identity import MAX_LENGTH, attributes, with_identity
from o11y.web.problems import from_validation

_identity: TypeAdapter[str] = TypeAdapter(Identity)
_NAMES = ("user_id", "session_id")

_ID_SCHEMA = {"type": "string", "minLength": 1, "maxLength": MAX_LENGTH, "pattern": "^[ -~]+$"}

PARAMETERS: list[dict[str, Any]] = [
    {"name": name, "in": where, "required": False, "description": description, "schema": schema}
    for name, where, description, schema in (
        ("user_id", "query", "The user; a body that names one comes first.", _ID_SCHEMA),
        (
            "session_id",
            "query",
            "The session; a body that names one comes first.",
            _ID_SCHEMA,
        ),
        ("X-User-Id", "header", "The user, where body and query name none.", {"type": "string"}),
        ("X-Session-Id", "header", "The session, where these name none.", {"type": "string"}),
        ("X-Tenant-Id", "header", "The tenant.", {"type": "string"}),
    )
]
"""The parameters of OpenAPI that every call of the gateway understands."""

_NAMED = re.compile(rb'"(?:user|safety_identifier)"\s*:')
"""A body that may name its end user; most don't, and needn't be read."""


class _Body(msgspec.Struct):
    user: Any = None
    safety_identifier: Any = None


_body = msgspec.json.Decoder(_Body)


def identify(user_id: str | None, session_id: str | None = None) -> None:
    """Do the rest of this request as this user and session; the span already open is told as well.

    It ends with the request: the middleware of the server span puts the context back.
    """
    if user_id or session_id:
        identified = with_identity(context.get_current(), user_id, session_id)
        context.attach(identified)
        trace.get_current_span().set_attributes(attributes(identified))


def identify_by_query(scope: Scope) -> None:
    """Take the user and session whom the query string names. Raises Problem 422."""
    if b"_id=" not in scope["query_string"]:
        return
    given = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
    found: dict[str, str] = {}
    errors: list[Any] = []
    for name in _NAMES:
        if name in given:
            try:
                found[name] = _identity.validate_python(given[name])
            except ValidationError as error:
                errors += [{**item, "loc": ("query", name)} for item in error.errors()]
    if errors:
        raise from_validation(RequestValidationError(errors))
    identify(found.get("user_id"), found.get("session_id"))


async def query_identity(request: Request) -> None:
    """A dependency of routes: take the user and session whom the query string names."""
    identify_by_query(request.scope)


def identify_by_openai_body(content: bytes) -> None:
    """Take the end user that the body of a call of OpenAI's API names."""
    if not _NAMED.search(content):
        return
    try:
        body = _body.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return  # llm-proxy says so
    for value in (body.safety_identifier, body.user):
        try:
            identify(_identity.validate_python(value))
        except ValidationError:
            continue
        return
