"""A lean HTTP/1.1 client: connections kept open, answers as they come, and nothing else.

One request over aiohttp takes about 260 µs of CPU, over httpx2 more than 1 ms, over this 50 µs
(`make bench-llm` has the rest of the way). The parser is llhttp's, by httptools, as in the server.
"""

import asyncio
import base64
import contextlib
import ssl
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import cast

import httptools
from yarl import URL

from o11y.wire import Broken, Reply, Unreadable, Unsent, authority

MAX_CONNECTIONS = 512
"""Most connections open at once, over all replicas of a service."""

IDLE_SECONDS = 30.0
"""An unused connection is not trusted for longer: servers close theirs without a word."""

MAX_BUFFERED = 256 << 10
"""So many bytes of an answer are taken in before they are read."""

MAX_HEAD = 64 << 10

Origin = tuple[str, int, str | None]
"""Host, port, and for TLS the name on the certificate."""


class Headers(Mapping[str, str]):
    """Header fields by name, in any case; of several with one name the values, with commas."""

    def __init__(self, fields: list[tuple[bytes, bytes]]) -> None:
        self._fields: dict[str, str] = {}
        for name, value in fields:
            key, text = name.decode("latin-1").lower(), value.decode("latin-1")
            known = self._fields.get(key)
            self._fields[key] = text if known is None else f"{known}, {text}"

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)


class Http1Wire:
    """Requests to any origin, over connections of its own."""

    def __init__(self, connect_seconds: float) -> None:
        self._connect_seconds = connect_seconds
        self._idle: dict[Origin, list[_Connection]] = {}
        self._places = asyncio.Semaphore(MAX_CONNECTIONS)
        self._tls: ssl.SSLContext | None = None
        self._heads: dict[tuple[str, URL], bytes] = {}
        self._open: set[_Connection] = set()
        self._connecting = 0
        self._closed = False

    async def send(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        body: bytes | None = None,
        *,
        server_hostname: str | None = None,
    ) -> Reply:
        """As `Wire.send`."""
        request = self._request(method, url, headers, body)
        tls_name = (server_hostname or url.host) if url.scheme == "https" else None
        origin = (url.host or "", url.port or 80, tls_name)
        await self._places.acquire()
        connection = None
        try:
            connection = self._reused(origin) or await self._connect(origin)
            return await connection.send(request, body)
        except BaseException:
            if connection is not None:
                connection.abort()
            self._places.release()
            raise

    async def close(self) -> None:
        """End every call and every connection."""
        self._closed = True
        for connection in list(self._open):
            connection.abort()

    def release(self, connection: "_Connection", reusable: bool) -> None:
        """Take a connection back whose answer has ended or is not wanted."""
        self._places.release()
        if reusable and connection.is_at_rest:
            self._idle.setdefault(connection.origin, []).append(connection)
        else:
            connection.abort()

    def remember(self, connection: "_Connection") -> None:
        """The connection is there."""
        self._open.add(connection)

    def forget(self, connection: "_Connection") -> None:
        """The connection is gone."""
        self._open.discard(connection)
        idle = self._idle.get(connection.origin)
        if idle is None:
            return
        if connection in idle:
            idle.remove(connection)
        if not idle:
            del self._idle[connection.origin]

    def _reused(self, origin: Origin) -> "_Connection | None":
        idle = self._idle.get(origin)
        limit = time.monotonic() - IDLE_SECONDS
        while idle:
            connection = idle.pop()  # the one used last: the others may then fall idle
            if connection.used > limit and connection.is_open:
                return connection
            connection.abort()
        return None

    async def _connect(self, origin: Origin) -> "_Connection":
        host, port, tls_name = origin
        tls = None
        if tls_name is not None:
            tls = self._tls = self._tls or ssl.create_default_context()
        connection = _Connection(self, origin)
        self._connecting += 1
        self._make_room()
        try:
            async with asyncio.timeout(self._connect_seconds):
                await asyncio.get_running_loop().create_connection(
                    lambda: connection, host, port, ssl=tls, server_hostname=tls_name
                )
        except BaseException as error:
            connection.abort()  # uvloop may have made it, or still make it
            # TLS and DNS failures are OSErrors; a name that can't be asked for is a UnicodeError
            if isinstance(error, OSError | TimeoutError | UnicodeError):
                raise Unsent(str(error) or type(error).__name__) from error
            raise
        finally:
            self._connecting -= 1
        if self._closed:
            connection.abort()
            raise Unsent("the client is closed")
        return connection

    def _make_room(self) -> None:
        """Close what nobody used for long, and what is in the way of a new connection."""
        idle = [connection for unused in self._idle.values() for connection in unused]
        too_many = len(self._open) + self._connecting - MAX_CONNECTIONS
        limit = time.monotonic() - IDLE_SECONDS
        for number, connection in enumerate(sorted(idle, key=lambda one: one.used)):
            if number >= too_many and connection.used > limit:
                break
            connection.abort()

    def _request(
        self, method: str, url: URL, headers: Mapping[str, str], body: bytes | None
    ) -> bytes:
        start = self._heads.get((method, url))
        if start is None:
            if len(self._heads) > 1000:
                self._heads.clear()
            start = f"{method} {url.raw_path_qs} HTTP/1.1\r\n".encode("ascii")
            self._heads[method, url] = start
        lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
        if "host" not in headers:
            lines.append(f"host: {authority(url)}\r\n")
        if url.user is not None and "authorization" not in headers:
            lines.append(f"authorization: {_basic(url)}\r\n")
        if body is not None or method not in ("GET", "HEAD"):
            lines.append(f"content-length: {len(body or b'')}\r\n")
        head = "".join(lines)
        if head.count("\n") != len(lines) or head.count("\r") != len(lines):
            raise ValueError("a header has a line break in it")
        return b"".join((start, head.encode("latin-1"), b"\r\n"))


def _basic(url: URL) -> str:
    """The credentials in an address (RFC 7617)."""
    pair = f"{url.user}:{url.password or ''}".encode()
    return f"Basic {base64.b64encode(pair).decode()}"


class _Connection(asyncio.Protocol):
    """One connection, and the answer now coming over it."""

    def __init__(self, wire: Http1Wire, origin: Origin) -> None:
        self.origin = origin
        self.used = 0.0
        self._unwanted = False
        self._wire = wire
        self._reply: _Reply | None = None
        self._transport: asyncio.Transport | None = None

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    @property
    def is_at_rest(self) -> bool:
        """Open, and nothing of the last request is still to be sent."""
        transport = self._transport
        return (
            transport is not None
            and not transport.is_closing()
            and not transport.get_write_buffer_size()
        )

    async def send(self, head: bytes, body: bytes | None) -> Reply:
        """Send a request and wait for the head of its answer."""
        transport = self._transport
        if transport is None or transport.is_closing():
            raise Unsent("the connection was closed")
        reply = self._reply = _Reply(self._wire, self, transport, head.startswith(b"HEAD "))
        if body:
            transport.writelines((head, body))
        else:
            transport.write(head)
        await reply.head()
        return reply

    def abort(self) -> None:
        self._unwanted = True
        self._wire.forget(self)
        if self._reply is not None:
            self._reply.lost(ConnectionAbortedError("the connection was given up"))
        if self._transport is not None:
            self._transport.abort()

    def ended(self) -> None:
        """The answer has been taken."""
        self._reply = None
        self.used = time.monotonic()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._wire.remember(self)
        if self._unwanted:
            self.abort()

    def data_received(self, data: bytes) -> None:
        if self._reply is None:
            self.abort()  # nobody asked
        else:
            self._reply.feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._wire.forget(self)
        if self._reply is not None:
            self._reply.lost(exc)


class _Reply:
    """An answer as the parser finds it."""

    def __init__(
        self,
        wire: Http1Wire,
        connection: _Connection,
        transport: asyncio.Transport,
        only_head: bool,
    ) -> None:
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self._wire = wire
        self._connection = connection
        self._transport = transport
        self._only_head = only_head
        self._parser = httptools.HttpResponseParser(self)
        self._fields: list[tuple[bytes, bytes]] = []
        self._body: deque[bytes] = deque()
        self._buffered = 0
        self._head_bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._complete = False
        self._until_closed = False
        self._reusable = False
        self._error: Exception | None = None
        self._released = False

    async def head(self) -> None:
        while not self.status:
            await self._wait()

    async def read(self) -> bytes:
        parts = []
        try:
            while chunk := await self.chunk():
                parts.append(chunk)
        except BaseException:  # what came of it is lost
            self.close()
            raise
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def chunk(self) -> bytes:
        while not self._body:
            if self._complete:
                self.close()
                return b""
            await self._wait()
        parts = self._body
        self._body = deque()
        self._resume()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        if self._released:
            return
        self._released = True
        if not self._complete:
            self._fail(Broken("the answer was given up"))
        self._resume()
        self._connection.ended()
        self._wire.release(self._connection, self._complete and self._reusable)

    def _resume(self) -> None:
        """What was taken in is read; the next answer on this connection wants to be, too."""
        if self._buffered > MAX_BUFFERED:
            self._transport.resume_reading()
        self._buffered = 0

    async def _wait(self) -> None:
        """Until something new has come. Raises what went wrong instead."""
        if self._error is not None:
            raise self._error
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: Exception) -> None:
        self._error = self._error or error
        self._wake()

    # What the connection tells

    def feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(Unreadable(str(error)))
            self._transport.abort()
        if not self.status:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD:
                self._fail(Unreadable("the head of the answer has no end"))
                self._transport.abort()

    def lost(self, error: Exception | None) -> None:
        if self._until_closed and error is None and self._error is None:
            self._complete = True
            self._wake()
        elif not self._complete:
            self._fail(Broken(str(error) if error else "the connection was closed"))

    # What the parser finds

    def on_message_begin(self) -> None:
        if self._complete:  # an answer nobody asked for: the next one might be taken for another's
            self._reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.status:  # else it comes after the body
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200 and not self._complete:  # else the answer proper is still to come
            self.headers = headers = Headers(self._fields)
            bodiless = self._only_head or status in (204, 304)
            coding = headers.get("transfer-encoding", "").lower()
            sized = "content-length" in headers or "chunked" in coding
            self._until_closed = not (bodiless or sized)
            self._reusable = self._parser.should_keep_alive() and not self._until_closed
            self.status = status
            if self._only_head:  # the parser waits for a body
                self._complete, self._reusable = True, False
            self._wake()
        self._fields = []

    def on_body(self, body: bytes) -> None:
        if self._complete:
            return
        self._body.append(body)
        self._buffered += len(body)
        if self._buffered > MAX_BUFFERED:
            with contextlib.suppress(RuntimeError):  # it is closing
                self._transport.pause_reading()
        self._wake()

    def on_message_complete(self) -> None:
        if self.status:
            self._complete = True
            self._wake()
