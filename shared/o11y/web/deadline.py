"""The deadline of each request: what its caller gave it, within what this service allows."""

import math

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from o11y.http import deadline
from o11y.telemetry import schema
from o11y.web.exchange import exchange_of

_HEADER = deadline.HEADER.encode()


class DeadlineMiddleware:
    """Runs each request within the time that its `X-Request-Timeout` leaves.

    `timeout_seconds` is the deadline of a request that brings none, and the longest it may bring.
    A 504 is said to be its caller's doing (`caller_deadline`) where the caller had given it less
    than half of that.
    """

    def __init__(self, app: ASGIApp, timeout_seconds: float) -> None:
        self._app = app
        self._timeout_seconds = timeout_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(scope)
        header = next((value for key, value in scope["headers"] if key == _HEADER), None)
        given = deadline.parse(None if header is None else header.decode("latin-1"))
        if given is None:
            with deadline.within(self._timeout_seconds, patience=math.inf):
                await self._app(scope, receive, send)
            return

        async def send_blamed(message: Message) -> None:
            if (
                message["type"] == "http.response.start"
                and message["status"] == 504
                and given < self._timeout_seconds / 2
                # each hop keeps some of the time for the way back, so not all of it has passed
                and exchange.watch.seconds() >= given / 2
            ):
                exchange.fail(schema.ERROR_CALLER_DEADLINE)
            await send(message)

        with deadline.within(min(given, self._timeout_seconds), patience=given):
            await self._app(scope, receive, send_blamed)
