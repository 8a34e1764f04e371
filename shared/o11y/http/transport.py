"""Outgoing HTTP: httpx2 on aiohttp's connections, and what each of its failures means.

The transport of `httpx-aiohttp` takes a lost connection for a connect timeout, and lets some of
aiohttp's exceptions through. `as_httpx` is the only place where exceptions of aiohttp become those
of httpx2, `nothing_was_sent` the only one where these are told apart.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from http.cookiejar import CookieJar, DefaultCookiePolicy

import aiohttp
import httpx2
from aiohttp.abc import ResolveResult
from httpx_aiohttp.httpx2 import AiohttpTransport

MAX_CONNECTIONS = 512
"""Most connections open at once, over all replicas of a service."""

IDLE_SECONDS = 30.0
"""An unused connection is not trusted for longer: servers close theirs without a word."""

LOOKUP_SECONDS = 5.0
"""Longest wait for the addresses of a name."""

END_SECONDS = 1.0
"""Longest wait for the end of a response whose content is complete."""

MAX_HEADER = 64 << 10
"""Longest line of an answer's head in bytes."""

PIECE = 256 << 10
"""Bodies above this many bytes are written bit by bit, so that others get their turn."""

_NOT_AIOHTTPS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
"""Headers that aiohttp would add where httpx2's client has none."""

_FAILURES = (httpx2.TransportError, aiohttp.ClientError, OSError, UnicodeError)


def nothing_was_sent(error: BaseException) -> bool:
    """True for a request that failed before any of it was sent: it may be sent again."""
    return isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout)


def as_httpx(error: BaseException) -> httpx2.TransportError | None:
    """The exception of httpx2 for one of the aiohttp transport; None for what is none of HTTP's.

    - `ConnectError`, `ConnectTimeout`: nothing was sent.
    - `ReadError`: the connection was lost; nobody knows what was done.
    - `RemoteProtocolError`, `ProxyError`: there is an answer, and it can't be read.

    Their words hold no URL, whose query may hold a key, and nothing that a server wrote.
    """
    cause = error.__cause__ if isinstance(error, httpx2.TransportError) else error
    match cause:
        case aiohttp.ConnectionTimeoutError():
            return httpx2.ConnectTimeout("there was no connection in time")
        case aiohttp.ClientConnectorError():
            return httpx2.ConnectError(str(cause.os_error) or type(cause.os_error).__name__)
        case aiohttp.InvalidURL() | UnicodeError():
            return httpx2.ConnectError("the host's name can't be looked up")
        case aiohttp.ServerTimeoutError():
            return httpx2.ReadTimeout("the answer did not come in time")
        case aiohttp.ClientHttpProxyError():
            return httpx2.ProxyError(f"the proxy answered {cause.status}")
        case aiohttp.ClientResponseError():
            return httpx2.RemoteProtocolError(cause.message.partition(":")[0])
        case TimeoutError():  # of whoever waits
            return None
        case aiohttp.ClientConnectionError() | aiohttp.ClientPayloadError() | OSError():
            reason = cause.strerror if isinstance(cause, OSError) else None
            return httpx2.ReadError(reason or "the connection was closed")
        case aiohttp.ClientError():
            return httpx2.RemoteProtocolError(type(cause).__name__)
    return error if isinstance(error, httpx2.TransportError) else None


class NetworkTransport(httpx2.AsyncBaseTransport):
    """Requests over connections of its own, of which no cookies are kept.

    `tls` says whether any of them goes to an `https` URL, the proxy's included: whom to trust is
    then read, from where OpenSSL has it or SSL_CERT_FILE and SSL_CERT_DIR say. The name on the
    certificate is the URL's host, or what the extension `sni_hostname` says. `proxy` is the URL of
    an HTTP proxy, credentials included.
    """

    def __init__(self, *, tls: bool, proxy: str | None = None) -> None:
        self._tls = tls
        self._proxy = proxy
        self._aiohttp = AiohttpTransport(verify=False, client=self._open)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """The response as soon as its head has come. Raises httpx2.TransportError."""
        try:
            response = await self._aiohttp.handle_async_request(_in_pieces(request))
        except _FAILURES as error:
            if (known := as_httpx(error)) is None:
                raise
            raise known from None  # the cause has the URL in its words
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _Body(response.stream)
        if response.status_code == httpx2.codes.SWITCHING_PROTOCOLS:
            await response.aclose()
            raise httpx2.RemoteProtocolError("nobody asked for another protocol")
        return response

    async def aclose(self) -> None:
        """End every call and every connection."""
        await self._aiohttp.aclose()

    def _open(self) -> aiohttp.ClientSession:
        # here and not at the start: a session belongs to the loop it was made in
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=_Resolver(),
                limit=MAX_CONNECTIONS,
                keepalive_timeout=IDLE_SECONDS,
                use_dns_cache=False,
                ssl=ssl.create_default_context() if self._tls else True,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_NOT_AIOHTTPS,
            proxy=self._proxy,
            max_line_size=MAX_HEADER,
            max_field_size=MAX_HEADER,
        )


class _Resolver(aiohttp.ThreadedResolver):
    """Looks names up, for so long: time-outs of connections begin when an address is known."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        async with asyncio.timeout(LOOKUP_SECONDS):
            return await super().resolve(host, port, family)


class _Body(httpx2.AsyncByteStream):
    """The body of a response, whose failures are httpx2's."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._stream:
                yield chunk
        except _FAILURES as error:
            if (known := as_httpx(error)) is None:
                raise
            raise known from None

    async def aclose(self) -> None:
        await self._stream.aclose()


async def read_and_close(response: httpx2.Response) -> None:
    """Read the whole body of a response. Raises httpx2.HTTPError."""
    try:
        await response.aread()
    finally:
        await response.aclose()


def port_of(url: httpx2.URL) -> int:
    """The port of a URL, the scheme's where it names none."""
    return url.port or (443 if url.scheme == "https" else 80)


def no_cookies() -> CookieJar:
    """A jar that keeps nothing."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))


def _in_pieces(request: httpx2.Request) -> httpx2.Request:
    """The request; one with a large body again, with that body as a stream."""
    content = request.content
    if len(content) <= PIECE:
        return request

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(content), PIECE):
            yield content[at : at + PIECE]

    return httpx2.Request(
        request.method,
        request.url,
        headers=request.headers,
        content=pieces(),
        extensions=request.extensions,
    )
