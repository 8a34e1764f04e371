"""Servers on real sockets, which answer as told, byte by byte."""

import asyncio
import shutil
import socket
import ssl
import struct
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from o11y.http.transport import NetworkTransport, no_cookies

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
            self.requests.append(await read_request(reader))
            writer.write(self.answers.pop(0))
            await writer.drain()


def reset(writer: asyncio.StreamWriter) -> None:
    """Hang up without a word: the other side gets a RST."""
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


@asynccontextmanager
async def listening(
    peer: Peer, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[httpx2.URL]:
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

    server = await asyncio.start_server(accept, host, 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    scheme = "https" if tls else "http"
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            yield httpx2.URL(scheme=scheme, host=host, port=port, path="/v1", query=b"a=b")
    finally:
        server.close()
        for task in peers:
            task.cancel()
        await asyncio.gather(*peers, return_exceptions=True)


def make_certificate(file: Path, name: str) -> None:
    """Write a key with a certificate for the name, signed by itself."""
    openssl = shutil.which("openssl")
    if not openssl:
        pytest.skip("there is no openssl to make a certificate with")
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    named = ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
    made = [openssl, "req", "-x509", *kind, *named, "-keyout", str(file), "-out", f"{file}.crt"]
    subprocess.run(made, check=True, capture_output=True)
    file.write_text(file.read_text() + Path(f"{file}.crt").read_text())


def serving_tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


OK = b"HTTP/1.1 200 OK\r\n"
HELLO = OK + b"content-length: 5\r\n\r\nhello"


CLOSING = HELLO.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """The head and body of one request."""
    head = await reader.readuntil(b"\r\n\r\n")
    _, _, length = head.lower().partition(b"content-length: ")
    return head + (await reader.readexactly(int(length.split(b"\r")[0])) if length else b"")


def over_the_network(
    connect_seconds: float = 1, proxy: str | None = None, tls: bool = True
) -> httpx2.AsyncClient:
    """A client as the services make theirs."""
    return httpx2.AsyncClient(
        transport=NetworkTransport(tls=tls, proxy=proxy),
        timeout=httpx2.Timeout(None, connect=connect_seconds),
        cookies=no_cookies(),
    )


async def send(
    http: httpx2.AsyncClient,
    url: httpx2.URL,
    method: str = "POST",
    body: bytes | None = b"{}",
    *,
    name: str | None = None,
) -> httpx2.Response:
    """A response whose head has come; `name` is the one on the certificate."""
    extensions = {"sni_hostname": name} if name else {}
    request = http.build_request(method, url, content=body, extensions=extensions)
    return await http.send(request, stream=True)


async def ask(
    http: httpx2.AsyncClient, url: httpx2.URL, method: str = "POST", body: bytes = b"{}"
) -> bytes:
    response = await send(http, url, method, body if method == "POST" else None)
    return await response.aread()
