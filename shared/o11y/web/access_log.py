"""The access line of each request: method, route, status and duration, within its span."""

import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from o11y.telemetry import schema
from o11y.web.exchange import Exchange, exchange_of, is_last, route_of

logger = logging.getLogger("o11y.access")

_PATH_LENGTH = 512
"""Longest path of no route that a line shows."""

CLIENT_CLOSED_REQUEST = 499
"""The status in the access line of a request whose client has left; it is never sent."""


class AccessLogMiddleware:
    """Writes a line for each request, when its response is complete."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(scope)
        written = False

        def write() -> None:
            nonlocal written
            if not written:
                written = True
                _write(scope, exchange)

        async def send_logged(message: Message) -> None:
            if is_last(message):
                write()
            await send(message)

        try:
            await self._app(scope, receive, send_logged)
        finally:
            write()


def _write(scope: Scope, exchange: Exchange) -> None:
    left = exchange.error == schema.ERROR_CLIENT_GONE
    status = CLIENT_CLOSED_REQUEST if left else exchange.status
    method, route = scope["method"], route_of(scope) or scope["path"][:_PATH_LENGTH]
    logger.info(
        "%s %s %d",
        method,
        route,
        status,
        extra={
            "method": method,
            "route": route,
            "status": status,
            "duration_seconds": round(exchange.watch.seconds(), 6),
        },
    )
