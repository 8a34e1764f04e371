"""Outgoing HTTP/1.1: one request, and its answer as it comes.

Every service talks through this, so that a failure means the same everywhere: was nothing sent
(it may be tried again), or does nobody know what was done.
"""

import io
from collections.abc import Mapping
from typing import Protocol
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

CONNECTIONS = 512
"""Most connections open at once, over all replicas of a service."""

_LARGE = 1 << 20
_NOT_OURS = ("Accept", "Accept-Encoding", "User-Agent")
"""Headers the library would add: an answer that nobody unpacks needn't be packed."""


class Unsent(Exception):
    """There is no connection: nothing was sent."""


class Broken(Exception):
    """The connection ended before the answer did: nobody knows what was done."""


class Unreadable(Exception):
    """What came back is not HTTP."""


def proxy_from_environment(url: URL) -> str | None:
    """The proxy that HTTPS_PROXY, HTTP_PROXY and NO_PROXY name for an address outside.

    Read once: the client would do it for each request, in a thread.
    """
    if url.host is None or proxy_bypass(url.host):
        return None
    return getproxies().get(url.scheme)


def authority(url: URL) -> str:
    """The `Host` header of a service's address."""
    host = url.host_subcomponent or ""
    return host if url.is_default_port() else f"{host}:{url.port}"


class Reply(Protocol):
    """An answer whose head has come. It must be read to its end or closed."""

    status: int
    headers: Mapping[str, str]
    """Names in any case."""

    async def read(self) -> bytes:
        """The whole body. Raises Broken or Unreadable."""

    async def chunk(self) -> bytes:
        """The next bytes of the body as they came; empty at its end. Raises Broken, Unreadable."""

    def close(self) -> None:
        """Give the connection back if the answer has ended, and cut it if not."""


class Wire(Protocol):
    """Sends requests."""

    async def send(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        body: bytes | None = None,
        *,
        server_hostname: str | None = None,
    ) -> Reply:
        """Send one request and wait for the head of its answer; redirects are answers.

        `server_hostname` is the name on the certificate where the URL has an address. Raises
        Unsent, Broken or Unreadable. Sets no limit of time but for the connection.
        """

    async def close(self) -> None: ...


class ProxiedWire:
    """The way through an HTTP proxy, by aiohttp."""

    def __init__(self, connect_seconds: float, proxy: str) -> None:
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_seconds)
        self._proxy = proxy
        self._session: aiohttp.ClientSession | None = None

    async def send(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        body: bytes | None = None,
        *,
        server_hostname: str | None = None,
    ) -> Reply:
        session = self._session or self._open()
        # aiohttp wants large bodies as files, so that it can write them bit by bit
        data = io.BytesIO(body) if body and len(body) > _LARGE else body
        try:
            response = await session.request(
                method,
                url,
                data=data,
                headers=headers,
                allow_redirects=False,
                proxy=self._proxy,
                server_hostname=server_hostname,
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise Unsent(str(error)) from error
        except (aiohttp.ClientConnectionError, ConnectionError) as error:
            raise Broken(str(error) or type(error).__name__) from error
        except aiohttp.ClientResponseError as error:  # as text it has the URL, which may hold a key
            raise Unreadable(error.message) from error
        except aiohttp.ClientError as error:
            raise Unreadable(type(error).__name__) from error
        return _AiohttpReply(response)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        # here and not at the start: a session belongs to the loop it was made in
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS, use_dns_cache=False),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=self._timeout,
            skip_auto_headers=_NOT_OURS,
        )
        return self._session


class _AiohttpReply:
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers

    async def read(self) -> bytes:
        try:
            return await self._response.read()
        except (aiohttp.ClientConnectionError, ConnectionError) as error:
            raise Broken(str(error) or type(error).__name__) from error
        except aiohttp.ClientPayloadError as error:
            raise Broken(str(error)) from error
        except aiohttp.ClientError as error:
            raise Unreadable(str(error)) from error

    async def chunk(self) -> bytes:
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientConnectionError, ConnectionError) as error:
            raise Broken(str(error) or type(error).__name__) from error
        except aiohttp.ClientPayloadError as error:
            raise Broken(str(error)) from error
        except aiohttp.ClientError as error:
            raise Unreadable(str(error)) from error

    def close(self) -> None:
        self._response.close()
