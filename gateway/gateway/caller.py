"""The user and session of a request: from its body, else its query, else its headers.

Our own fields, `user_id` and `session_id` of a body or a query, must hold an id; other values are
refused. OpenAI's fields for the end user (`safety_identifier`, which replaces `user`) and headers
may hold anything; they count where it can be an id. OpenAI's `metadata` never counts: its keys have
no fixed meaning.
"""

import re
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter, ValidationError
from starlette.types import Scope

from o11y.contracts import Identity
from o11y.telemetry.identity import identify
from o11y.web.problems import from_validation

_identity: TypeAdapter[str] = TypeAdapter(Identity)
_NAMES = ("user_id", "session_id")

_NAMED = re.compile(rb'"(?:user|safety_identifier)"\s*:')
"""Pattern of a body that may name its end user; most don't, and needn't be parsed."""


class _Body(msgspec.Struct):
    user: Any = None
    safety_identifier: Any = None


_body = msgspec.json.Decoder(_Body)


def identify_by_query(scope: Scope) -> None:
    """Note the user and session that the query string names. Raises Problem 422."""
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
    """FastAPI dependency: note the user and session that the query string names."""
    identify_by_query(request.scope)


def identify_by_openai_body(content: bytes) -> None:
    """Note the end user that the body of an OpenAI API call names."""
    if not _NAMED.search(content):
        return
    try:
        body = _body.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return  # llm-proxy answers with the error
    for value in (body.safety_identifier, body.user):
        try:
            identify(_identity.validate_python(value))
        except ValidationError:
            continue
        return
