"""The limit of a request's body."""

from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 2 << 20
"""Largest body in bytes: it has room for the longest `o11y.contracts.Text`, all of it escaped."""

LARGE_BODY = 64 << 20
"""Largest body in bytes where it may hold images, or texts and vectors by the hundred."""


class BodyLimitMiddleware:
    """Refuses a body with 413 as soon as more of it has come than its path allows.

    `limits` has the bytes of paths that need more than `MAX_BODY`.

    Starlette's own answers a body that is declared to be too large with plain text, where callers
    expect problem details or OpenAI's envelope.
    """

    def __init__(self, app: ASGIApp, limits: Mapping[str, int]) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size = 0
        limit = self._limits.get(scope.get("path", ""), MAX_BODY)

        async def receive_limited() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > limit:
                raise HTTPException(413, f"the body is larger than {limit >> 20} MiB")
            return message

        await self._app(scope, receive_limited if scope["type"] == "http" else receive, send)
