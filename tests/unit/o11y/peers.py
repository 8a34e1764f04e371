"""Servers on real sockets, which answer as told, byte by byte."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from yarl import URL

from o11y.wire import Wire

PATIENCE_SECONDS = 5

Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Answers each request of a connection with the next of `answers`, then hangs up."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.requests: list[bytes] = []
        self.connections = 0
        self.left = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while self.answers:
            head = await reader.readuntil(b"\r\n\r\n")
            _, _, length = head.lower().partition(b"content-length: ")
            body = await reader.readexactly(int(length.split(b"\r")[0])) if length else b""
            self.requests.append(head + body)
            writer.write(self.answers.pop(0))
            await writer.drain()


@asynccontextmanager
async def listening(peer: Peer) -> AsyncIterator[URL]:
    peers: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        peers.add(task)
        try:
            await peer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            yield URL(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1?a=b")
    finally:
        server.close()
        for task in peers:
            task.cancel()
        await asyncio.gather(*peers, return_exceptions=True)


OK = b"HTTP/1.1 200 OK\r\n"
HELLO = OK + b"content-length: 5\r\n\r\nhello"


async def ask(wire: Wire, url: URL, method: str = "POST", body: bytes = b"{}") -> bytes:
    reply = await wire.send(method, url, {"x-key": "k"}, body if method == "POST" else None)
    return await reply.read()
