"""Who a request is for: user and session as W3C baggage, copied onto every span.

The gateway alone decides who it is and drops baggage from outside; behind it, the baggage of the
incoming request is trusted. Keys are the semantic conventions' `user.id` and `session.id`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import baggage, context, trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import Span, SpanProcessor
from starlette.types import ASGIApp, Receive, Scope, Send

from o11y import schema

MAX_LENGTH = 128
"""Longest user or session id, in characters: they travel in a header with every hop."""

_SPAN_KEYS = {
    schema.USER_ID: (schema.USER_ID, schema.USER_ID_ORIGINAL),
    schema.SESSION_ID: (schema.SESSION_ID, schema.SESSION_ID_ORIGINAL, schema.CONVERSATION_ID),
}


def attributes(parent: Context | None = None) -> dict[str, str]:
    """The span attributes that say who, under every name they are known by."""
    found: dict[str, str] = {}
    if not baggage.get_all(parent):
        return found
    for key, names in _SPAN_KEYS.items():
        value = baggage.get_baggage(key, parent)
        if isinstance(value, str):
            found.update(dict.fromkeys(names, value))
    return found


class IdentityOnSpans(SpanProcessor):
    """Writes user and session of the baggage on every span that starts in it."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        found = attributes(parent_context)
        if found:
            span.set_attributes(found)


@contextmanager
def identified(user_id: str | None, session_id: str | None) -> Iterator[None]:
    """Run the block as this user and session; the span already open is told as well."""
    current = context.get_current()
    for key, value in ((schema.USER_ID, user_id), (schema.SESSION_ID, session_id)):
        if value:
            current = baggage.set_baggage(key, value, current)
    trace.get_current_span().set_attributes(attributes(current))
    token = context.attach(current)
    try:
        yield
    finally:
        context.detach(token)


class DropBaggage:
    """ASGI wrapper for the border: removes the `baggage` header before anything reads it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = [pair for pair in scope["headers"] if pair[0] != b"baggage"]
            scope = {**scope, "headers": headers}
        await self.app(scope, receive, send)
