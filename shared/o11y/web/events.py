"""Server-sent events as answers (WHATWG HTML 9.2)."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import ClassVar

import msgspec
from fastapi import Response
from starlette.types import Message, Receive, Scope, Send

_json = msgspec.json.Encoder(enc_hook=str)

BROKEN = "o11y.broken"
"""Key of the last message of an answer: it was a stream, and it broke."""


def event(data: object, name: str | None = None) -> bytes:
    """One event with JSON as its data."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + _json.encode(data) + b"\n\n"


class Last(bytes):
    """What a stream ends with. Clients leave when they have read it, so the answer ends with it in
    one piece, and all spans before it goes: nobody can leave between.
    """

    broken: ClassVar[bool] = False


class LastError(Last):
    """The same where it tells what went wrong."""

    broken: ClassVar[bool] = True


def ending(body: bytes = b"", *, broken: bool = False) -> Message:
    """The last message of an answer."""
    return {"type": "http.response.body", "body": body, BROKEN: broken}


class EventStream(Response):
    """A response whose events are sent as they come; `close` is called however it ends.

    What `close` returns is awaited, if it returns anything.
    """

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        close: Callable[[], Awaitable[None] | None],
        headers: Mapping[str, str] | None = None,
    ) -> None:
        told = {"cache-control": "no-cache", "x-accel-buffering": "no", **(headers or {})}
        super().__init__(media_type="text/event-stream", headers=told)
        del self.headers["content-length"]
        self._events = events
        self._close_events = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async with aclosing(self._events) as events:
                async for each in events:
                    if isinstance(each, Last):
                        await self._close()
                        await send(ending(each, broken=each.broken))
                        return
                    await send({"type": "http.response.body", "body": each, "more_body": True})
            await send(ending())
        finally:
            await self._close()

    async def _close(self) -> None:
        if (closing := self._close_events()) is not None:
            await closing
