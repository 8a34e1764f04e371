"""What servers and callers do to a wire at their worst: every answer is told from every other."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from yarl import URL

from o11y.http1 import MAX_BUFFERED, MAX_CONNECTIONS, Http1Wire, _Reply
from o11y.wire import Broken, Unreadable, Unsent
from tests.unit.o11y.peers import (
    CLOSING,
    HELLO,
    OK,
    Server,
    ask,
    listening,
    read_request,
    reset,
    until,
)

LARGE = 8 << 20


@pytest.fixture
async def wire() -> AsyncIterator[Http1Wire]:
    wire = Http1Wire(1)
    yield wire
    await wire.close()


def free(wire: Http1Wire) -> int:
    return wire._places._value


# Requests


@pytest.mark.parametrize("target", ["/a%20b/%2F%C3%A9?q=%26&x=a+b", "/", "/?", "/v1?a=b&a=c%3D"])
async def test_an_address_goes_out_as_it_is(target: str, wire: Http1Wire) -> None:
    server = Server(HELLO)
    async with listening(server) as url:
        address = URL(f"{url.origin()}{target}", encoded=True)
        await ask(wire, address, "GET")
    assert server.requests[0].startswith(f"GET {target.removesuffix('?')} HTTP/1.1\r\n".encode())


async def test_an_ipv6_address_is_in_brackets(wire: Http1Wire) -> None:
    server = Server(HELLO)
    try:
        async with listening(server, host="::1") as url:
            assert await ask(wire, url) == b"hello"
    except OSError:
        pytest.skip("this machine has no IPv6")
    assert f"host: [::1]:{url.port}\r\n".encode() in server.requests[0]


@pytest.mark.parametrize(
    ("method", "body", "length"),
    [
        ("GET", None, None),
        ("HEAD", None, None),
        ("POST", None, 0),
        ("DELETE", None, 0),
        ("POST", b"", 0),
        ("PUT", b"x" * LARGE, LARGE),
    ],
)
async def test_a_body_has_its_length(
    method: str, body: bytes | None, length: int | None, wire: Http1Wire
) -> None:
    server = Server(CLOSING)
    async with listening(server) as url:
        reply = await wire.send(method, url, {}, body)
        assert reply.status == 200
        reply.close()
    head, _, sent = server.requests[0].partition(b"\r\n\r\n")
    named = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
    assert named == ([] if length is None else [b"content-length: %d" % length])
    assert sent == (body or b"")


@pytest.mark.parametrize("value", ["a\rx-b: c", "\r", "a\nb", "☃"])
async def test_a_header_that_cannot_be_sent_costs_no_place(value: str, wire: Http1Wire) -> None:
    server = Server(HELLO)
    async with listening(server) as url:
        with pytest.raises(ValueError, match=r"line break|latin-1"):
            await wire.send("GET", url, {"x-a": value})
    assert server.connections == 0
    assert free(wire) == MAX_CONNECTIONS


@pytest.mark.parametrize("host", ["a..b", "x" * 70 + ".test"])
async def test_a_name_that_cannot_be_looked_up_is_nothing_sent(host: str, wire: Http1Wire) -> None:
    with pytest.raises(Unsent):
        await ask(wire, URL.build(scheme="http", host=host))
    assert free(wire) == MAX_CONNECTIONS


# Answers


@pytest.mark.parametrize("length", [b"content-length: 5\r\n", b"", b"connection: close\r\n"])
async def test_the_answer_to_head_has_no_body(length: bytes, wire: Http1Wire) -> None:
    server = Server(OK + length + b"\r\n", HELLO)
    async with listening(server) as url:
        reply = await wire.send("HEAD", url, {})
        assert await reply.read() == b""
        assert await ask(wire, url) == b"hello"


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
async def test_some_answers_have_no_body_whatever_they_say(status: bytes, wire: Http1Wire) -> None:
    server = Server(b"HTTP/1.1 " + status + b"\r\ncontent-length: 5\r\n\r\n", HELLO)
    async with listening(server) as url:
        assert await ask(wire, url) == b""
        assert await ask(wire, url) == b"hello"
    assert server.connections == 1


@pytest.mark.parametrize("coding", [b"gzip", b"identity"])
async def test_an_answer_in_another_coding_ends_with_its_connection(
    coding: bytes, wire: Http1Wire
) -> None:
    async with listening(Server(OK + b"transfer-encoding: " + coding + b"\r\n\r\nhello")) as url:
        assert await ask(wire, url) == b"hello"


async def test_what_follows_a_chunked_body_is_no_header(wire: Http1Wire) -> None:
    chunked = OK + b"Transfer-Encoding: Chunked\r\nx-a: 1\r\n\r\n5\r\nhello\r\n0\r\nx-a: 2\r\n\r\n"
    server = Server(chunked, HELLO)
    async with listening(server) as url:
        reply = await wire.send("POST", url, {}, b"{}")
        assert await reply.read() == b"hello"
        assert reply.headers["x-a"] == "1"
        assert await ask(wire, url) == b"hello"
    assert server.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nxyz",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\nxyz",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000,
        OK + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
    ],
    ids=["upgrade", "upgrade to nothing", "endless continue", "two lengths"],
)
async def test_an_answer_to_another_question_cannot_be_read(answer: bytes, wire: Http1Wire) -> None:
    async with listening(Server(answer)) as url:
        with pytest.raises(Unreadable):
            await ask(wire, url)
    assert free(wire) == MAX_CONNECTIONS


@pytest.mark.parametrize("head", [OK + b"content-length: 10\r\n\r\n", OK + b"\r\n"])
async def test_a_connection_that_is_reset_has_broken_its_answer(
    head: bytes, wire: Http1Wire
) -> None:
    read = asyncio.Event()

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(head + b"hello")
        await read.wait()
        reset(writer)

    async with listening(peer) as url:
        reply = await wire.send("POST", url, {}, b"{}")
        assert await reply.chunk() == b"hello"
        read.set()
        with pytest.raises(Broken):
            await reply.read()
        reply.close()
    assert free(wire) == MAX_CONNECTIONS


async def test_a_server_that_leaves_while_it_is_sent_to_has_broken_off(wire: Http1Wire) -> None:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        reset(writer)

    async with listening(peer) as url:
        with pytest.raises(Broken):
            await ask(wire, url, body=b"x" * LARGE)
    assert free(wire) == MAX_CONNECTIONS


async def test_large_bodies_go_both_ways(wire: Http1Wire) -> None:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            body = (await read_request(reader)).partition(b"\r\n\r\n")[2]
            writer.write(OK + b"content-length: %d\r\n\r\n" % len(body) + body)

    bodies = [bytes((number,)) * LARGE for number in range(3)]
    async with listening(peer) as url:
        found = await asyncio.gather(*(ask(wire, url, body=body) for body in bodies))
        assert found == bodies


@pytest.mark.parametrize("sized", [True, False], ids=["sized", "until closed"])
async def test_a_slow_reader_holds_little_and_loses_nothing(sized: bool, wire: Http1Wire) -> None:
    written = 0

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await read_request(reader)
        writer.write(OK + (b"content-length: %d\r\n" % LARGE if sized else b"") + b"\r\n")
        while written < LARGE:
            writer.write(b"x" * (1 << 16))
            written += 1 << 16
            await writer.drain()

    async with listening(peer) as url:
        reply = await wire.send("POST", url, {}, b"{}")
        assert isinstance(reply, _Reply)
        read = 0
        while True:
            for _ in range(20):
                await asyncio.sleep(0)
            assert reply._buffered <= MAX_BUFFERED + (256 << 10)
            if not (chunk := await reply.chunk()):
                break
            read += len(chunk)
        assert read == LARGE


@pytest.mark.parametrize("end", ["reset", "close", "wire"])
async def test_an_answer_held_back_can_still_end(end: str, wire: Http1Wire) -> None:
    held = asyncio.Event()

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK + b"content-length: %d\r\n\r\n" % LARGE + b"x" * (LARGE // 2))
        await held.wait()
        reset(writer)

    async with listening(peer) as url:
        reply = await wire.send("POST", url, {}, b"{}")
        assert isinstance(reply, _Reply)
        await until(lambda: reply._buffered > MAX_BUFFERED)
        match end:
            case "reset":
                held.set()
            case "close":
                reply.close()
            case "wire":
                await wire.close()
        with pytest.raises(Broken):
            await reply.read()
        reply.close()
    assert free(wire) == MAX_CONNECTIONS
