"""A transport of this process: requests go to a handler, as httpx2's mock transport calls one."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import httpx2

SSE = {"content-type": "text/event-stream"}


class Streamed(httpx2.AsyncByteStream):
    """A response in pieces: bytes come, an error is raised, the reader waits for an event or some
    seconds.

    `reached` is set when the reader waits, `closed` when it let go of the response.
    """

    def __init__(
        self,
        *pieces: bytes | Exception | asyncio.Event | float,
        status: int = 200,
        headers: Mapping[str, str] = SSE,
    ) -> None:
        self.status_code = status
        self.headers = httpx2.Headers(dict(headers))
        self.closed = False
        self.reached = asyncio.Event()
        self._pieces = list(pieces)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self._pieces:
            await asyncio.sleep(0)  # as the network, which others run beside
            match self._pieces.pop(0):
                case asyncio.Event() as event:
                    self.reached.set()
                    await event.wait()
                case float(seconds):
                    await asyncio.sleep(seconds)
                case bytes(piece):
                    yield piece
                case Exception() as error:
                    raise error

    async def aclose(self) -> None:
        self.closed = True


Answer = httpx2.Response | Streamed
Handler = Callable[[httpx2.Request], Answer | Awaitable[Answer]]


class NearTransport(httpx2.AsyncBaseTransport):
    """Fails as the network does where the handler raises what httpx2 would."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        answer = self.handler(request)
        given = await answer if isinstance(answer, Awaitable) else answer
        body = given if isinstance(given, Streamed) else Streamed(given.content)
        return httpx2.Response(given.status_code, headers=given.headers, stream=body)
