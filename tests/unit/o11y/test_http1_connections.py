"""Connections that are kept: none is used again that can't be, none is left behind."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from yarl import URL

from o11y.http1 import MAX_BUFFERED, Http1Wire
from o11y.wire import Unsent
from tests.unit.o11y.peers import HELLO, OK, Server, ask, listening


@pytest.fixture
async def wire() -> AsyncIterator[Http1Wire]:
    wire = Http1Wire(1)
    yield wire
    await wire.close()


async def test_a_connection_is_used_again_and_by_one_call_at_a_time(wire: Http1Wire) -> None:
    server = Server(*[HELLO] * 9)
    async with listening(server) as url:
        for _ in range(3):
            assert await ask(wire, url) == b"hello"
        assert server.connections == 1
        assert await asyncio.gather(*(ask(wire, url) for _ in range(2))) == [b"hello"] * 2
    assert server.connections == 2


@pytest.mark.parametrize(
    "answer",
    [
        HELLO.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"),
        HELLO.replace(b"1.1", b"1.0"),
        HELLO + b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
        HELLO + b"garbage",
    ],
    ids=["closing", "HTTP/1.0", "an answer too many", "garbage"],
)
async def test_a_connection_that_cannot_be_trusted_is_not_used_again(
    answer: bytes, wire: Http1Wire
) -> None:
    server = Server(answer, answer)
    async with listening(server) as url:
        assert await ask(wire, url) == b"hello"
        assert await ask(wire, url) == b"hello"
    assert server.connections == 2


@pytest.mark.parametrize("late", [False, True], ids=["while it is read", "when it has been read"])
async def test_a_server_that_closes_after_its_answer_breaks_nothing(
    late: bool, wire: Http1Wire
) -> None:
    """It promised to keep the connection: nothing of the next request may go to a closed one."""
    closed: asyncio.Queue[None] = asyncio.Queue()

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(HELLO)
        writer.close()
        await writer.wait_closed()
        closed.put_nowait(None)

    async with listening(peer) as url:
        for _ in range(3):
            reply = await wire.send("POST", url, {}, b"{}")
            if late:
                assert await reply.read() == b"hello"
            await closed.get()
            for _ in range(5):
                await asyncio.sleep(0)
            assert late or await reply.read() == b"hello"


@pytest.mark.parametrize("size", [1_000, MAX_BUFFERED + 1, MAX_BUFFERED + 50_000, 3_000_000])
async def test_a_connection_works_on_after_a_large_answer_to_a_slow_reader(
    size: int, wire: Http1Wire
) -> None:
    large = OK + b"content-length: %d\r\n\r\n" % size + b"x" * size
    async with listening(Server(large, HELLO)) as url:
        reply = await wire.send("POST", url, {}, b"{}")
        for _ in range(50):  # it comes meanwhile, as far as it is let
            await asyncio.sleep(0)
        assert await reply.read() == b"x" * size
        assert await ask(wire, url) == b"hello"


async def test_a_slow_reader_holds_the_server_back(wire: Http1Wire) -> None:
    written = 0

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(OK + b"content-length: 1000000000\r\n\r\n")
        while True:
            writer.write(b"x" * (1 << 20))
            await writer.drain()
            written += 1 << 20

    async with listening(peer) as url:
        reply = await wire.send("POST", url, {}, b"{}")
        for _ in range(2_000):
            await asyncio.sleep(0)
        assert written < 100 << 20
        reply.close()


async def test_an_answer_that_is_not_wanted_closes_its_connection(wire: Http1Wire) -> None:
    left = asyncio.Event()

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(OK + b"content-length: 10\r\n\r\nhello")
        await reader.read()
        left.set()

    async with listening(peer) as url:
        reply = await wire.send("POST", url, {}, b"{}")
        assert await reply.chunk() == b"hello"
        reply.close()
        reply.close()
        await left.wait()


@pytest.mark.parametrize("begun", [True, False], ids=["body", "head"])
async def test_a_caller_that_leaves_closes_its_connection(begun: bool, wire: Http1Wire) -> None:
    reached, left = asyncio.Event(), asyncio.Event()

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        if begun:
            writer.write(OK + b"content-length: 10\r\n\r\nhello")
        reached.set()
        await reader.read()
        left.set()

    async def call(url: URL) -> None:
        reply = await wire.send("POST", url, {}, b"{}")
        try:
            await reply.read()
        finally:
            reply.close()

    async with listening(peer) as url:
        task = asyncio.create_task(call(url))
        await reached.wait()
        task.cancel()
        await left.wait()
        await asyncio.wait([task])
        assert task.cancelled()


async def test_so_many_connections_are_open_and_no_more(
    wire: Http1Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "_places", asyncio.Semaphore(2))
    open_now, most = 0, 0

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        await reader.readuntil(b"{}")
        writer.write(HELLO.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
        open_now -= 1

    async with listening(peer) as url:
        assert await asyncio.gather(*(ask(wire, url) for _ in range(9))) == [b"hello"] * 9
        with pytest.raises(Unsent):
            await ask(wire, URL("http://nobody.invalid/"))
        assert await asyncio.gather(*(ask(wire, url) for _ in range(4))) == [b"hello"] * 4
    assert most <= 2
