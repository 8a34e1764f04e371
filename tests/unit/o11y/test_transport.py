"""Outgoing HTTP on a real connection: answers in every shape, and what each failure means."""

import asyncio
import gzip
import socket
import threading
import zlib
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from o11y.http import transport
from o11y.http.transport import PIECE, nothing_was_sent
from o11y.telemetry.error_types import error_type
from tests.support.peers import (
    CLOSING,
    HELLO,
    OK,
    Server,
    ask,
    listening,
    over_the_network,
    read_request,
    reset,
    send,
)

LARGE = 8 << 20


@pytest.fixture
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    async with over_the_network() as http:
        yield http


# Requests


async def test_the_request_is_what_was_asked_for(http: httpx2.AsyncClient) -> None:
    server = Server(HELLO, HELLO)
    async with listening(server) as url:
        for method, content in (("POST", b"{}"), ("GET", None)):
            await http.request(method, url, content=content, headers={"X-Key": "k"})
    heads = [request.partition(b"\r\n\r\n")[0].split(b"\r\n") for request in server.requests]
    assert [head[0] for head in heads] == [b"POST /v1?a=b HTTP/1.1", b"GET /v1?a=b HTTP/1.1"]
    names = [sorted(line.lower().partition(b":")[0] for line in head[1:]) for head in heads]
    clients = [b"accept", b"accept-encoding", b"connection", b"host", b"user-agent", b"x-key"]
    assert names == [sorted([*clients, b"content-length"]), clients]
    assert f"host: 127.0.0.1:{url.port}".encode() in [line.lower() for line in heads[0]]
    assert b"content-length: 2" in [line.lower() for line in heads[0]]
    assert server.connections == 1


@pytest.mark.parametrize("target", ["/a%20b/%2F%C3%A9?q=%26&x=a+b", "/", "/v1?a=b&a=c%3D"])
async def test_an_address_goes_out_as_it_is(target: str, http: httpx2.AsyncClient) -> None:
    server = Server(HELLO)
    async with listening(server) as url:
        await ask(http, url.join(target), "GET")
    assert server.requests[0].startswith(f"GET {target} HTTP/1.1\r\n".encode())


async def test_an_ipv6_address_is_in_brackets(http: httpx2.AsyncClient) -> None:
    server = Server(HELLO)
    try:
        async with listening(server, host="::1") as url:
            assert await ask(http, url) == b"hello"
    except OSError:
        pytest.skip("this machine has no IPv6")
    assert f"host: [::1]:{url.port}\r\n".encode() in server.requests[0]


@pytest.mark.parametrize(
    ("method", "body", "length"),
    [
        ("GET", None, None),
        ("POST", None, 0),
        ("POST", b"", 0),
        ("PUT", b"x" * PIECE, PIECE),
        ("PUT", b"x" * LARGE, LARGE),
    ],
)
async def test_a_body_has_its_length(
    method: str, body: bytes | None, length: int | None, http: httpx2.AsyncClient
) -> None:
    server = Server(CLOSING)
    async with listening(server) as url:
        response = await send(http, url, method, body)
        assert response.status_code == 200
        await response.aclose()
    head, _, sent = server.requests[0].partition(b"\r\n\r\n")
    named = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
    assert named == ([] if length is None else [f"content-length: {length}".encode()])
    assert b"transfer-encoding" not in head.lower()
    assert sent == (body or b"")


@pytest.mark.parametrize("value", ["a\r\nx-b: c", "a\n", "\n", "a\rx-b: c"])
async def test_no_header_becomes_two(value: str, http: httpx2.AsyncClient) -> None:
    server = Server(HELLO)
    async with listening(server) as url:
        with pytest.raises(ValueError, match="header"):
            await http.get(url, headers={"x-a": value})
        assert await ask(http, url) == b"hello"
    assert len(server.requests) == 1


async def test_cookies_are_not_kept(http: httpx2.AsyncClient) -> None:
    sets = HELLO.replace(b"\r\n\r\n", b"\r\nset-cookie: a=b; path=/\r\n\r\n")
    server = Server(sets, HELLO)
    async with listening(server) as url:
        await ask(http, url)
        await ask(http, url)
    assert b"cookie" not in server.requests[1].lower()


# Answers


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
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", 304, b""),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + HELLO, 200, b"hello"),
        (b"HTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\n" + HELLO, 200, b"hello"),
        (b"HTTP/1.1 307 No\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n", 307, b""),
        (b"HTTP/1.1 529 Overloaded\r\ncontent-length: 2\r\n\r\nno", 529, b"no"),
        (OK + b"x: " + b"a" * 60_000 + b"\r\ncontent-length: 5\r\n\r\nhello", 200, b"hello"),
    ],
    ids=lambda value: repr(value)[:60],
)
@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "byte by byte"])
async def test_an_answer_is_read_however_it_is_written(
    answer: bytes, status: int, content: bytes, at_once: bool, http: httpx2.AsyncClient
) -> None:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        size = len(answer) if at_once or len(answer) > 1000 else 1
        for at in range(0, len(answer), size):
            writer.write(answer[at : at + size])
            await writer.drain()
            await asyncio.sleep(0)

    async with listening(peer) as url:
        response = await send(http, url)
        assert (response.status_code, await response.aread()) == (status, content)


async def test_headers_are_read_in_any_case_and_as_often_as_they_come(
    http: httpx2.AsyncClient,
) -> None:
    head = b"Retry-After: 7\r\nx-a: 1\r\nX-A: 2\r\nx-b: \xe9\r\ncontent-length: 0\r\n\r\n"
    async with listening(Server(OK + head)) as url:
        response = await send(http, url)
        assert (response.headers["retry-after"], response.headers["RETRY-AFTER"]) == ("7", "7")
        assert (response.headers["x-a"], response.headers["x-b"]) == ("1, 2", "\xe9")
        assert response.headers.get_list("x-a") == ["1", "2"]
        await response.aclose()


@pytest.mark.parametrize(
    ("coding", "packed"),
    [("gzip", gzip.compress(b"hello" * 99)), ("deflate", zlib.compress(b"hello" * 99))],
    ids=["gzip", "deflate"],
)
async def test_a_packed_answer_is_unpacked(
    coding: str, packed: bytes, http: httpx2.AsyncClient
) -> None:
    head = f"content-encoding: {coding}\r\ncontent-length: {len(packed)}\r\n\r\n".encode()
    async with listening(Server(OK + head + packed)) as url:
        assert await ask(http, url) == b"hello" * 99


async def test_what_cannot_be_unpacked_cannot_be_read(http: httpx2.AsyncClient) -> None:
    head = b"content-encoding: gzip\r\ncontent-length: 5\r\n\r\nhello"
    async with listening(Server(OK + head)) as url:
        with pytest.raises(httpx2.DecodingError) as raised:
            await ask(http, url)
    assert error_type(raised.value) == "unreadable_answer"


async def test_a_stream_is_read_as_it_comes(http: httpx2.AsyncClient) -> None:
    read: asyncio.Queue[bytes] = asyncio.Queue()

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK + b"transfer-encoding: chunked\r\n\r\n")
        for piece in (b"data: 1\n\n", b"data: 2\n\n"):
            writer.write(b"9\r\n" + piece + b"\r\n")
            assert await read.get() == piece  # nothing more comes until it has been read
        writer.write(b"0\r\n\r\n")

    async with listening(peer) as url:
        response = await send(http, url)
        async for chunk in response.aiter_bytes():
            read.put_nowait(chunk)


async def test_a_packed_stream_is_read_as_it_comes(http: httpx2.AsyncClient) -> None:
    read: asyncio.Queue[bytes] = asyncio.Queue()

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        head = b"content-encoding: deflate\r\ntransfer-encoding: chunked\r\n\r\n"
        writer.write(OK + head)
        packer = zlib.compressobj()
        for piece in (b"data: 1\n\n", b"data: 2\n\n"):
            packed = packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH)
            writer.write(b"%x\r\n" % len(packed) + packed + b"\r\n")
            assert await read.get() == piece
        packed = packer.flush()
        writer.write(b"%x\r\n" % len(packed) + packed + b"\r\n0\r\n\r\n")

    async with listening(peer) as url:
        response = await send(http, url)
        async for chunk in response.aiter_bytes():
            read.put_nowait(chunk)


# Failures


@pytest.mark.parametrize("name", ["nobody.invalid", "a..b", "x" * 70 + ".test"])
async def test_a_name_without_address_is_nothing_sent(name: str, http: httpx2.AsyncClient) -> None:
    with pytest.raises(httpx2.ConnectError) as raised:
        await ask(http, httpx2.URL(f"http://{name}/?key=hunter2"))
    assert nothing_was_sent(raised.value)
    assert error_type(raised.value) == "connect_error"
    assert "hunter2" not in str(raised.value)


async def test_nobody_there_is_nothing_sent(http: httpx2.AsyncClient) -> None:
    async with listening(Server()) as url:
        pass
    with pytest.raises(httpx2.ConnectError) as raised:
        await ask(http, url)
    assert nothing_was_sent(raised.value)


async def test_an_address_that_is_not_told_in_time_is_nothing_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, let_go = threading.Event(), threading.Event()

    def silent(*_: object, **__: object) -> list[Any]:
        asked.set()
        let_go.wait()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    monkeypatch.setattr(transport, "LOOKUP_SECONDS", 0.05)
    loop = asyncio.get_running_loop()
    if not isinstance(loop, asyncio.BaseEventLoop):
        pytest.skip("uvloop asks the system's resolver by itself")
    try:
        async with over_the_network() as http:
            with pytest.raises(httpx2.ConnectTimeout):
                await ask(http, httpx2.URL("http://llm.test/"))
        assert asked.is_set()
    finally:
        let_go.set()


CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"


@pytest.mark.parametrize(
    ("answer", "kind", "error"),
    [
        (b"", "connection_lost", httpx2.ReadError),
        (b"HTTP/1.1 200", "connection_lost", httpx2.ReadError),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 9, "connection_lost", httpx2.ReadError),
        (OK + b"content-length: 10\r\n\r\nhello", "connection_lost", httpx2.ReadError),
        (CHUNKED, "connection_lost", httpx2.ReadError),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "unreadable_answer", httpx2.RemoteProtocolError),
        (b"<html>" * 100, "unreadable_answer", httpx2.RemoteProtocolError),
        (OK + b"content-length: many\r\n\r\n", "unreadable_answer", httpx2.RemoteProtocolError),
        (
            OK + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello",
            "unreadable_answer",
            httpx2.RemoteProtocolError,
        ),
        (
            OK + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
            "unreadable_answer",
            httpx2.RemoteProtocolError,
        ),
        (
            OK + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
            "unreadable_answer",
            httpx2.RemoteProtocolError,
        ),
        (OK + b"x: " + b"a" * 200_000, "unreadable_answer", httpx2.RemoteProtocolError),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nxyz",
            "unreadable_answer",
            httpx2.RemoteProtocolError,
        ),
    ],
    ids=lambda value: repr(value)[:60],
)
async def test_an_answer_that_ends_early_or_makes_no_sense(
    answer: bytes, kind: str, error: type[Exception], http: httpx2.AsyncClient
) -> None:
    async with listening(Server(answer)) as url:
        with pytest.raises(error) as raised:
            await ask(http, url)
    assert error_type(raised.value) == kind
    assert not nothing_was_sent(raised.value)
    told = str(raised.value)
    assert "a=b" not in told  # a query may hold a key
    assert not {"hello", "aaa", "html"} & set(told.split("'"))  # and so may an answer
    assert "\n" not in told


@pytest.mark.parametrize(
    "begun", [OK + b"content-length: 10\r\n\r\nhello", CHUNKED], ids=["sized", "chunked"]
)
async def test_a_connection_that_is_reset_has_broken_its_answer(
    begun: bytes, http: httpx2.AsyncClient
) -> None:
    read = asyncio.Event()

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(begun)
        await read.wait()
        reset(writer)

    async with listening(peer) as url:
        response = await send(http, url)
        chunks = response.aiter_bytes()
        assert await anext(chunks) == b"hello"
        read.set()
        with pytest.raises(httpx2.ReadError):
            await anext(chunks)


async def test_a_server_that_leaves_while_it_is_sent_to_has_broken_off(
    http: httpx2.AsyncClient,
) -> None:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        reset(writer)

    async with listening(peer) as url:
        with pytest.raises(httpx2.ReadError):
            await ask(http, url, body=b"x" * LARGE)


# Through a proxy


@pytest.mark.parametrize(
    ("credentials", "told"),
    [
        ("", []),
        ("ann:p%20w@", [b"proxy-authorization: basic yw5uonagdw=="]),
    ],
)
async def test_a_request_goes_through_the_proxy_with_its_whole_address(
    credentials: str, told: list[bytes]
) -> None:
    server = Server(HELLO)
    async with (
        listening(server) as url,
        over_the_network(proxy=f"http://{credentials}127.0.0.1:{url.port}") as http,
    ):
        assert await ask(http, httpx2.URL("http://llm.test/v1?a=b")) == b"hello"
    head = server.requests[0].partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert head[0] == b"POST http://llm.test/v1?a=b HTTP/1.1"
    assert [line.lower() for line in head if line.lower().startswith(b"proxy-auth")] == told


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", httpx2.ReadError),
        (OK + b"content-length: 10\r\n\r\nhello", httpx2.ReadError),
        (b"SSH-2.0-OpenSSH\r\n\r\n", httpx2.RemoteProtocolError),
    ],
)
async def test_what_a_proxy_breaks_means_the_same(answer: bytes, error: type[Exception]) -> None:
    async with (
        listening(Server(answer)) as url,
        over_the_network(proxy=f"http://127.0.0.1:{url.port}") as http,
    ):
        with pytest.raises(error) as raised:
            await ask(http, httpx2.URL("http://llm.test/v1?key=hunter2"))
    assert "hunter2" not in str(raised.value)


async def test_a_proxy_that_refuses_the_way_is_an_answer_nobody_can_read() -> None:
    refusing = Server(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
    async with (
        listening(refusing) as url,
        over_the_network(proxy=f"http://ann:hunter2@127.0.0.1:{url.port}") as http,
    ):
        with pytest.raises(httpx2.ProxyError, match="the proxy answered 407") as raised:
            await ask(http, httpx2.URL("https://llm.test/"))
    assert error_type(raised.value) == "unreadable_answer"


async def test_a_proxy_that_is_not_there_is_nothing_sent() -> None:
    async with listening(Server()) as url:
        pass
    async with over_the_network(proxy=f"http://127.0.0.1:{url.port}") as http:
        with pytest.raises(httpx2.ConnectError):
            await ask(http, httpx2.URL("http://llm.test/"))
