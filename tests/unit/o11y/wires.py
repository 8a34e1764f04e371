"""A wire of this process: requests go to a handler, as httpx2's mock transport calls one."""

from collections.abc import Awaitable, Callable, Mapping

import httpx2
from yarl import URL

from o11y.wire import Broken, Reply, Unreadable, Unsent

Handler = Callable[[httpx2.Request], httpx2.Response | Awaitable[httpx2.Response]]


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
            response = answer if isinstance(answer, httpx2.Response) else await answer
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise Unsent(str(error)) from error
        except httpx2.TimeoutException as error:
            raise TimeoutError(str(error)) from error
        except (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError) as error:
            raise Broken(str(error)) from error
        except httpx2.HTTPError as error:
            raise Unreadable(str(error)) from error
        return NearReply(response)

    async def close(self) -> None:
        return
