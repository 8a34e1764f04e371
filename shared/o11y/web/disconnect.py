"""The end of the work for a client that has gone away, and the answer of a service that stops."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from o11y.telemetry import schema
from o11y.web import problems
from o11y.web.exchange import Exchange, exchange_of, is_last
from o11y.web.problems import unavailable


class DisconnectMiddleware:
    """Cancels the work of a request whose client leaves before it has all of its response.

    A request that the server cancels because it stops is answered with 503, unless its response
    has begun.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(scope)
        client = _Client(exchange, receive, send)
        try:
            await self._app(scope, client.receive, client.send)
        except asyncio.CancelledError:
            if client.left:
                return  # nobody waits for an answer
            if not exchange.started:
                stopping = problems.answer(unavailable("this service is stopping"), scope["path"])
                await stopping(scope, client.receive, client.send)
            raise
        finally:
            client.unwatch()


class _Client:
    """The other end of the connection: whether it still waits."""

    def __init__(self, exchange: Exchange, receive: Receive, send: Send) -> None:
        self.left = False
        self._exchange = exchange
        self._receive = receive
        self._send = send
        self._answered = False
        self._task = asyncio.current_task()
        self._watcher: asyncio.Task[Message] | None = None

    async def receive(self) -> Message:
        if self._watcher is not None:
            await asyncio.wait([self._watcher])
            if not self._watcher.cancelled():
                return self._watcher.result()
        # the request's body, or what follows the last bytes of an answer, which nobody watches
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self._answered:  # within its body
            self._leave()
            raise asyncio.CancelledError
        if message["type"] == "http.request" and not message.get("more_body"):
            self._watcher = asyncio.create_task(self._disconnected())
        return message

    async def send(self, message: Message) -> None:
        if is_last(message):
            self._answered = True
            self.unwatch()
        await self._send(message)

    def unwatch(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()

    async def _disconnected(self) -> Message:
        """Wait until the client goes, and cancel the work done for it."""
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self._answered and self._task is not None:
            self._leave()
            self._task.cancel()
        return message

    def _leave(self) -> None:
        self.left = True
        self._exchange.fail(schema.ERROR_CLIENT_GONE)
