"""Server-sent events as responses (WHATWG HTML 9.2), and how they end."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing

import msgspec
from fastapi import Response
from starlette.types import Receive, Scope, Send

from o11y.http import deadline
from o11y.telemetry import schema
from o11y.web.exchange import exchange_of

logger = logging.getLogger(__name__)

_json = msgspec.json.Encoder(enc_hook=str)


def event(data: object, name: str | None = None) -> bytes:
    """One event with JSON as its data."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + _json.encode(data) + b"\n\n"


class Last(bytes):
    """The event that ends a stream, with whatever comes after it.

    Clients leave when they have read it. So the end of the response is sent with it, in one piece,
    and all spans have ended by then.
    """


class LastError(Last):
    """The event that ends a stream with an error."""


class EventStream(Response):
    """A response whose events are sent as they come; `close` is called however it ends.

    It is complete with its first `Last`, or when `events` end. A stream whose caller does not read
    it is cut a second after the request's deadline. What `close` returns is awaited, if it returns
    anything; it is called more than once.
    """

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        close: Callable[[], Awaitable[None] | None],
        headers: Mapping[str, str] | None = None,
        status: int = 200,
    ) -> None:
        usual = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(None, status, {**usual, **(headers or {})}, "text/event-stream")
        del self.headers["content-length"]
        self._events = events
        self._close_events = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del receive
        left = deadline.remaining()
        start = {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": self.raw_headers,
        }
        try:
            # a second more than the stream itself has: it is cut only if the caller doesn't read
            async with asyncio.timeout(None if left is None else left + 1):
                await send(start)
                last = await self._send_events(send)
                if isinstance(last, LastError):
                    exchange_of(scope).fail(schema.ERROR_STREAM_BROKEN)
                await self._close()
                await send({"type": "http.response.body", "body": last})
        except TimeoutError:
            logger.warning("a caller did not read its stream")
        finally:
            await self._close()

    async def _send_events(self, send: Send) -> bytes:
        """Send all events but the last, which is returned; empty where the stream has none."""
        async with aclosing(self._events) as events:
            async for each in events:
                if isinstance(each, Last):
                    return each
                await send({"type": "http.response.body", "body": each, "more_body": True})
        return b""

    async def _close(self) -> None:
        if (closing := self._close_events()) is not None:
            await closing
