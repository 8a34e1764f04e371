"""The limit of a request's body."""

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class BodyLimitMiddleware:
    """Refuses a body of more than `max_bytes` with 413 as soon as so much of it has come.

    Starlette's own answers a body that is declared to be too large with plain text, where callers
    expect problem details or OpenAI's envelope.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size = 0

        async def receive_limited() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._max_bytes:
                limit = f"{self._max_bytes >> 20} MiB"
                raise HTTPException(413, f"the body is larger than {limit}")
            return message

        await self._app(scope, receive_limited if scope["type"] == "http" else receive, send)
