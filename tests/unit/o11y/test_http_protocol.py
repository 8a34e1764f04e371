"""Requests that offer another protocol are answered in HTTP/1.1, over real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import httpx2
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from o11y.web.http_protocol import HttpProtocol
from tests.support.waiting import eventually

SECONDS = 10
LAST = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the method, path, headers and body that have come."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    said = [scope["method"], scope["path"], headers, body.decode()]
    content = json.dumps(said).encode()
    length = [(b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    await send({"type": "http.response.body", "body": content})


@asynccontextmanager
async def server() -> AsyncIterator[int]:
    """The port of a server that echoes."""
    config = uvicorn.Config(
        echo, port=0, http=HttpProtocol, ws="none", lifespan="off", log_config=None
    )
    serving = uvicorn.Server(config)
    task = asyncio.create_task(serving.serve())
    await eventually(lambda: serving.started)
    try:
        yield serving.servers[0].sockets[0].getsockname()[1]
    finally:
        serving.should_exit = True
        await task


async def answers(pieces: Iterable[bytes]) -> list[list[object]]:
    """What comes for these bytes, each piece sent when the ones before it have been read."""
    async with server() as port, asyncio.timeout(SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)  # most come apart; the answers are the same if not
        received = await reader.read()
        writer.close()
    heads_and_bodies = received.split(b"HTTP/1.1 200 OK")[1:]
    return [json.loads(each.partition(b"\r\n\r\n")[2]) for each in heads_and_bodies]


H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
WEBSOCKET = (
    b"Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\n"
)
OTHERS = b"connection: upgrade\r\nconnection: keep-alive\r\nupgrade: TLS/1.0, IRC/6.9\r\n"
LENGTH = b"Content-Length: 11\r\n\r\nhello\r\nbody"
CHUNKS = b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n\r\nbody\r\n0\r\n\r\n"


@pytest.mark.parametrize("offer", [H2C, WEBSOCKET, OTHERS])
@pytest.mark.parametrize("body", [LENGTH, CHUNKS])
@pytest.mark.parametrize("size", [1, 7, 70, 1000])
async def test_a_request_that_offers_another_protocol_is_answered(
    offer: bytes, body: bytes, size: int
) -> None:
    asked = b"POST /first?a=1 HTTP/1.1\r\nHost: x\r\n" + offer + body
    pieces = [asked[at : at + size] for at in range(0, len(asked), size)]
    first, last = await answers([*pieces, LAST])
    method, path, headers, content = first
    assert (method, path, content) == ("POST", "/first", "hello\r\nbody")
    assert isinstance(headers, dict)
    assert "upgrade" not in headers
    assert headers["host"] == "x"
    assert last[:2] == ["GET", "/last"]


async def test_an_offer_without_a_body_and_one_that_follows_at_once() -> None:
    get = b"GET /first HTTP/1.1\r\nHost: x\r\n" + H2C + b"\r\n"
    post = b"POST /second HTTP/1.1\r\nHost: x\r\n" + WEBSOCKET + LENGTH
    found = await answers([get + post + LAST])
    assert [each[1] for each in found] == ["/first", "/second", "/last"]


async def test_an_offer_to_close_stays_one() -> None:
    asked = b"POST /first HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: close, Upgrade\r\n"
    [only] = await answers([asked + LENGTH])
    assert only[3] == "hello\r\nbody"


async def test_a_large_body_comes_whole() -> None:
    async with server() as port, httpx2.AsyncClient() as client:
        headers = {"connection": "upgrade", "upgrade": "h2c"}
        url = f"http://127.0.0.1:{port}/"
        response = await client.post(url, content=b"x" * 1_000_000, headers=headers)
    assert len(response.json()[3]) == 1_000_000
