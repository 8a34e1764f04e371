"""Who a request is for: from its body, else its query, else the `X-User-Id` headers."""

from contextlib import AbstractContextManager

from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request

from o11y.contracts import Identity
from o11y.identity import identified

_identity: TypeAdapter[str] = TypeAdapter(Identity)


def caller(
    request: Request, user_id: str | None = None, session_id: str | None = None
) -> AbstractContextManager[None]:
    """The context in which the request's work runs."""
    return identified(
        user_id or _header(request, "x-user-id"), session_id or _header(request, "x-session-id")
    )


def _header(request: Request, name: str) -> str | None:
    """A header that can be an id; one that can't is nobody's, not an error."""
    try:
        return _identity.validate_python(request.headers.get(name))
    except ValidationError:
        return None
