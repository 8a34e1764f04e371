"""Outgoing HTTPS: only a server that proves its name gets the request, and nothing is cut short."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from o11y.http1 import MAX_CONNECTIONS, Http1Wire
from o11y.wire import Broken, Unsent
from tests.unit.o11y.peers import (
    CLOSING,
    HELLO,
    OK,
    Server,
    ask,
    listening,
    make_certificate,
    read_request,
    serving_tls,
    until,
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
async def wire() -> AsyncIterator[Http1Wire]:
    wire = Http1Wire(2)
    yield wire
    await wire.close()


@pytest.mark.usefixtures("trusted")
async def test_an_address_may_answer_for_a_name(tls: ssl.SSLContext, wire: Http1Wire) -> None:
    server = Server(*[HELLO] * 9)
    async with listening(server, tls=tls) as url:
        for _ in range(2):
            reply = await wire.send("POST", url, {}, b"{}", server_hostname=NAME)
            assert await reply.read() == b"hello"
        assert server.connections == 1
        with pytest.raises(Unsent):  # the same address under another name is someone else
            await wire.send("POST", url, {}, b"{}", server_hostname="other.test")
        with pytest.raises(Unsent):
            await wire.send("POST", url, {}, b"{}")
    assert len(server.requests) == 2
    assert wire._places._value == MAX_CONNECTIONS


async def test_a_server_nobody_vouches_for_gets_nothing(
    tls: ssl.SSLContext, wire: Http1Wire
) -> None:
    server = Server(HELLO)
    async with listening(server, tls=tls) as url:
        with pytest.raises(Unsent):
            await wire.send("POST", url, {}, b"{}", server_hostname=NAME)
    assert server.requests == []


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
async def test_a_server_without_tls_gets_nothing(answer: bytes, wire: Http1Wire) -> None:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)

    async with listening(peer) as url:
        with pytest.raises(Unsent):
            await ask(wire, url.with_scheme("https"))
    assert not wire._open


async def test_a_server_that_says_nothing_is_not_waited_for() -> None:
    left = asyncio.Event()

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1 << 16):
            pass
        left.set()

    wire = Http1Wire(0.05)
    async with listening(peer) as url:
        with pytest.raises(Unsent):
            await ask(wire, url.with_scheme("https"))
        await left.wait()
    assert (wire._places._value, len(wire._open)) == (MAX_CONNECTIONS, 0)


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("sized", [True, False], ids=["sized", "until closed"])
async def test_a_slow_reader_loses_nothing(
    sized: bool, tls: ssl.SSLContext, wire: Http1Wire
) -> None:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK + (b"content-length: %d\r\n" % LARGE if sized else b"") + b"\r\n")
        writer.write(b"x" * LARGE)
        await writer.drain()

    async with listening(peer, tls=tls) as url:
        reply = await wire.send("POST", url, {}, b"{}", server_hostname=NAME)
        read = 0
        while chunk := await reply.chunk():
            read += len(chunk)
            for _ in range(20):
                await asyncio.sleep(0)
        assert read == LARGE


@pytest.mark.usefixtures("trusted")
async def test_a_large_body_goes_out(tls: ssl.SSLContext, wire: Http1Wire) -> None:
    server = Server(HELLO, HELLO)
    async with listening(server, tls=tls) as url:
        for _ in range(2):
            reply = await wire.send("POST", url, {}, b"x" * LARGE, server_hostname=NAME)
            assert await reply.read() == b"hello"
    assert {len(request.partition(b"\r\n\r\n")[2]) for request in server.requests} == {LARGE}
    assert server.connections == 1


@pytest.mark.usefixtures("trusted")
async def test_an_answer_cut_short_is_broken(tls: ssl.SSLContext, wire: Http1Wire) -> None:
    async with listening(Server(OK + b"content-length: 9\r\n\r\nhello"), tls=tls) as url:
        reply = await wire.send("POST", url, {}, b"{}", server_hostname=NAME)
        with pytest.raises(Broken):
            await reply.read()
    assert wire._places._value == MAX_CONNECTIONS


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("steps", range(0, 40, 3))
async def test_a_caller_may_leave_at_any_step(
    steps: int, tls: ssl.SSLContext, wire: Http1Wire
) -> None:
    async def call() -> bytes:
        reply = await wire.send("POST", url, {}, b"{}", server_hostname=NAME)
        return await reply.read()

    async with listening(Server(CLOSING, CLOSING), tls=tls) as url:
        task = asyncio.create_task(call())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await until(lambda: not wire._open)
        assert wire._places._value == MAX_CONNECTIONS
        assert await call() == b"hello"
