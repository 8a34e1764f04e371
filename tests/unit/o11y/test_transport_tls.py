"""Outgoing HTTPS: only a server that proves its name gets the request, and nothing is cut short."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from o11y.http import transport
from tests.support.peers import (
    CLOSING,
    HELLO,
    OK,
    Server,
    ask,
    listening,
    make_certificate,
    over_the_network,
    read_request,
    send,
    serving_tls,
)

NAME = "llm.test"
LARGE = 4 << 20


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key with a certificate for NAME, signed by itself."""
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    make_certificate(file, NAME)
    return file


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    return serving_tls(certificate)


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))


@pytest.fixture
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    async with over_the_network(2) as http:
        yield http


@pytest.mark.usefixtures("trusted")
async def test_an_address_may_answer_for_a_name(
    tls: ssl.SSLContext, http: httpx2.AsyncClient
) -> None:
    server = Server(*[HELLO] * 9)
    async with listening(server, tls=tls) as url:
        for _ in range(2):
            response = await send(http, url, name=NAME)
            assert await response.aread() == b"hello"
        assert server.connections == 1
        with pytest.raises(httpx2.ConnectError):  # the same address by another name is another
            await send(http, url, name="other.test")
        with pytest.raises(httpx2.ConnectError):
            await send(http, url)
    assert len(server.requests) == 2


async def test_a_server_nobody_vouches_for_gets_nothing(
    tls: ssl.SSLContext, http: httpx2.AsyncClient
) -> None:
    server = Server(HELLO)
    async with listening(server, tls=tls) as url:
        with pytest.raises(httpx2.ConnectError):
            await send(http, url, name=NAME)
    assert server.requests == []


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
async def test_a_server_without_tls_gets_nothing(answer: bytes, http: httpx2.AsyncClient) -> None:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)

    async with listening(peer) as url:
        with pytest.raises(httpx2.ConnectError):
            await ask(http, url.copy_with(scheme="https"))


async def test_a_server_that_says_nothing_is_not_waited_for() -> None:
    left = asyncio.Event()

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1 << 16):
            pass
        left.set()

    async with listening(peer) as url, over_the_network(0.05) as http:
        with pytest.raises(httpx2.ConnectTimeout):
            await ask(http, url.copy_with(scheme="https"))
        await left.wait()


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("sized", [True, False], ids=["sized", "until closed"])
async def test_a_slow_reader_loses_nothing(
    sized: bool, tls: ssl.SSLContext, http: httpx2.AsyncClient
) -> None:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK + (b"content-length: %d\r\n" % LARGE if sized else b"") + b"\r\n")
        writer.write(b"x" * LARGE)
        await writer.drain()

    async with listening(peer, tls=tls) as url:
        response = await send(http, url, name=NAME)
        read = 0
        async for chunk in response.aiter_bytes():
            read += len(chunk)
            for _ in range(5):
                await asyncio.sleep(0)
        assert read == LARGE


@pytest.mark.usefixtures("trusted")
async def test_a_large_body_goes_out(tls: ssl.SSLContext, http: httpx2.AsyncClient) -> None:
    server = Server(HELLO, HELLO)
    async with listening(server, tls=tls) as url:
        for _ in range(2):
            response = await send(http, url, body=b"x" * LARGE, name=NAME)
            assert await response.aread() == b"hello"
    assert {len(request.partition(b"\r\n\r\n")[2]) for request in server.requests} == {LARGE}
    assert server.connections == 1


@pytest.mark.usefixtures("trusted")
async def test_an_answer_cut_short_is_broken(tls: ssl.SSLContext, http: httpx2.AsyncClient) -> None:
    async with listening(Server(OK + b"content-length: 9\r\n\r\nhello"), tls=tls) as url:
        response = await send(http, url, name=NAME)
        with pytest.raises(httpx2.ReadError):
            await response.aread()


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("steps", range(0, 40, 3))
async def test_a_caller_may_leave_at_any_step(
    steps: int, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "MAX_CONNECTIONS", 1)  # one that is left behind takes the place

    async def call(http: httpx2.AsyncClient, url: httpx2.URL) -> bytes:
        response = await send(http, url, name=NAME)
        return await response.aread()

    async with (
        listening(Server(CLOSING, CLOSING), tls=tls) as url,
        over_the_network(2) as http,
    ):
        task = asyncio.create_task(call(http, url))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert await call(http, url) == b"hello"
