"""A wire of this process: requests go to a handler, as httpx2's mock transport calls one."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import httpx2
from yarl import URL

from o11y.wire import Broken, Reply, Unreadable, Unsent

Answer = httpx2.Response | Reply
Handler = Callable[[httpx2.Request], Answer | Awaitable[Answer]]

SSE = {"content-type": "text/event-stream"}


class NearReply:
    """An answer that is here already."""

    def __init__(self, response: httpx2.Response) -> None:
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self._content = response.content

    async def read(self) -> bytes:
        return self._content

    async def chunk(self) -> bytes:
        content, self._content = self._content, b""
        return content

    def close(self) -> None:
        return


class Streamed:
    """An answer in pieces: bytes come, an error is raised, for an event the reader waits.

    `reached` is set when the reader waits, `closed` when it let go of the answer.
    """

    def __init__(
        self,
        *pieces: bytes | Exception | asyncio.Event,
        status: int = 200,
        headers: Mapping[str, str] = SSE,
    ) -> None:
        self.status = status
        self.headers: Mapping[str, str] = httpx2.Headers(dict(headers))
        self.closed = False
        self.reached = asyncio.Event()
        self._pieces = list(pieces)

    async def read(self) -> bytes:
        content = b""
        while chunk := await self.chunk():
            content += chunk
        return content

    async def chunk(self) -> bytes:
        await asyncio.sleep(0)  # as the network, which others run beside
        while self._pieces:
            match self._pieces.pop(0):
                case asyncio.Event() as event:
                    self.reached.set()
                    await event.wait()
                case bytes(piece):
                    return piece
                case Exception() as error:
                    raise error
        return b""

    def close(self) -> None:
        self.closed = True


class NearWire:
    """Fails as the network does where the handler raises what httpx2 would."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    async def send(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        body: bytes | None = None,
        *,
        server_hostname: str | None = None,
    ) -> Reply:
        del server_hostname
        request = httpx2.Request(method, str(url), headers=dict(headers), content=body)
        try:
            answer = self._handler(request)
            response = await answer if isinstance(answer, Awaitable) else answer
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise Unsent(str(error)) from error
        except httpx2.TimeoutException as error:
            raise TimeoutError(str(error)) from error
        except (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError) as error:
            raise Broken(str(error)) from error
        except httpx2.HTTPError as error:
            raise Unreadable(str(error)) from error
        return NearReply(response) if isinstance(response, httpx2.Response) else response

    async def close(self) -> None:
        return
