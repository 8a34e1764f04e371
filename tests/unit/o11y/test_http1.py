"""Outgoing HTTP/1.1 on a real connection: answers in every shape, and what each failure means."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from yarl import URL

from o11y.http1 import Http1Wire
from o11y.wire import Broken, ProxiedWire, Unreadable, Unsent
from tests.unit.o11y.peers import HELLO, OK, Server, ask, listening


@pytest.fixture
async def wire() -> AsyncIterator[Http1Wire]:
    wire = Http1Wire(1)
    yield wire
    await wire.close()


@pytest.mark.parametrize(
    ("answer", "status", "content"),
    [
        (HELLO, 200, b"hello"),
        (OK + b"transfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", 200, b"hello"),
        (
            OK + b"transfer-encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\na: b\r\n\r\n",
            200,
            b"hello",
        ),
        (OK + b"connection: close\r\n\r\nhello", 200, b"hello"),
        (b"HTTP/1.0 200 OK\r\n\r\nhello", 200, b"hello"),
        (OK + b"content-length: 0\r\n\r\n", 200, b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + HELLO, 200, b"hello"),
        (b"HTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\n" + HELLO, 200, b"hello"),
        (b"HTTP/1.1 307 No\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n", 307, b""),
        (b"HTTP/1.1 529 Overloaded\r\ncontent-length: 2\r\n\r\nno", 529, b"no"),
    ],
)
@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "byte by byte"])
async def test_an_answer_is_read_however_it_is_written(
    answer: bytes, status: int, content: bytes, at_once: bool, wire: Http1Wire
) -> None:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        for at in range(len(answer)) if not at_once else ():
            writer.write(answer[at : at + 1])
            await writer.drain()
            await asyncio.sleep(0)
        if at_once:
            writer.write(answer)

    async with listening(peer) as url:
        reply = await wire.send("POST", url, {}, b"{}")
        assert (reply.status, await reply.read()) == (status, content)


async def test_the_request_is_what_was_asked_for(wire: Http1Wire) -> None:
    server = Server(HELLO, HELLO)
    async with listening(server) as url:
        await ask(wire, url)
        await ask(wire, url, "GET")
    host = f"host: {url.host}:{url.port}\r\n".encode()
    post = b"POST /v1?a=b HTTP/1.1\r\nx-key: k\r\n" + host + b"content-length: 2\r\n\r\n{}"
    get = b"GET /v1?a=b HTTP/1.1\r\nx-key: k\r\n" + host + b"\r\n"
    assert server.requests == [post, get]
    assert server.connections == 1


async def test_headers_are_read_in_any_case(wire: Http1Wire) -> None:
    head = b"Retry-After: 7\r\nx-a: 1\r\nX-A: 2\r\nx-b: \xe9\r\ncontent-length: 0\r\n\r\n"
    async with listening(Server(OK + head)) as url:
        reply = await wire.send("GET", url, {})
        assert (reply.headers["retry-after"], reply.headers["RETRY-AFTER"]) == ("7", "7")
        assert (reply.headers["x-a"], reply.headers["x-b"]) == ("1, 2", "\xe9")
        assert reply.headers.get("x-c") is None
        reply.close()


@pytest.mark.parametrize("value", ["a\r\nx-b: c", "a\n", "\n"])
async def test_no_header_becomes_two(value: str, wire: Http1Wire) -> None:
    server = Server(HELLO)
    async with listening(server) as url:
        with pytest.raises(ValueError, match="line break"):
            await wire.send("GET", url, {"x-a": value})
    assert server.requests == []


# Failures


async def test_nobody_there_is_nothing_sent(wire: Http1Wire) -> None:
    async with listening(Server()) as url:
        pass
    with pytest.raises(Unsent):
        await ask(wire, url)
    with pytest.raises(Unsent):
        await ask(wire, URL("http://nobody.invalid/"))


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", Broken),
        (b"HTTP/1.1 200", Broken),
        (OK + b"content-length: 10\r\n\r\nhello", Broken),
        (OK + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", Broken),
        (b"SSH-2.0-OpenSSH\r\n\r\n", Unreadable),
        (b"<html>" * 100, Unreadable),
        (OK + b"content-length: many\r\n\r\n", Unreadable),
        (OK + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello", Unreadable),
        (OK + b"transfer-encoding: chunked\r\n\r\nzz\r\n", Unreadable),
        (OK + b"x: " + b"a" * 200_000, Unreadable),
    ],
    ids=lambda value: repr(value)[:50],
)
async def test_an_answer_that_ends_early_or_makes_no_sense(
    answer: bytes, error: type[Exception], wire: Http1Wire
) -> None:
    async with listening(Server(answer)) as url:
        with pytest.raises(error) as raised:
            await ask(wire, url)
    assert "a=b" not in str(raised.value)  # a query may hold a key


# Through a proxy


async def test_a_request_goes_through_the_proxy_with_its_whole_address() -> None:
    server = Server(HELLO)
    async with listening(server) as url:
        wire = ProxiedWire(1, str(url.origin()))
        assert await ask(wire, URL("http://llm.test/v1?a=b")) == b"hello"
        await wire.close()
    assert server.requests[0].startswith(b"POST http://llm.test/v1?a=b HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", Broken),
        (OK + b"content-length: 10\r\n\r\nhello", Broken),
        (b"SSH-2.0-OpenSSH\r\n\r\n", Unreadable),
    ],
)
async def test_what_a_proxy_breaks_means_the_same(answer: bytes, error: type[Exception]) -> None:
    async with listening(Server(answer)) as url:
        wire = ProxiedWire(1, str(url.origin()))
        with pytest.raises(error) as raised:
            await ask(wire, URL("http://llm.test/v1?key=hunter2"))
        await wire.close()
    assert "hunter2" not in str(raised.value)


async def test_a_proxy_that_is_not_there_is_nothing_sent() -> None:
    async with listening(Server()) as url:
        pass
    wire = ProxiedWire(1, str(url.origin()))
    with pytest.raises(Unsent):
        await ask(wire, URL("http://llm.test/"))
    await wire.close()


@pytest.mark.parametrize(
    ("headers", "sent"),
    [
        ({}, b"authorization: Basic YWRhOnAgdw=="),
        ({"authorization": "Bearer x"}, b"authorization: Bearer x"),
    ],
)
async def test_credentials_in_an_address_are_used_unless_there_are_others(
    headers: dict[str, str], sent: bytes, wire: Http1Wire
) -> None:
    server = Server(HELLO)
    async with listening(server) as url:
        reply = await wire.send("POST", url.with_user("ada").with_password("p w"), headers, b"{}")
        await reply.read()
    [request] = server.requests
    lines = request.split(b"\r\n")
    assert [line for line in lines if line.startswith(b"authorization")] == [sent]
