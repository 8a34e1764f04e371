"""Connections that are kept: none is used again that can't be, none is left behind."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable

import httpx2
import pytest
import uvloop

from o11y.http import transport
from tests.support.peers import (
    CLOSING,
    HELLO,
    OK,
    Server,
    ask,
    listening,
    over_the_network,
    read_request,
    send,
)


@pytest.fixture
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    async with over_the_network() as http:
        yield http


async def test_a_connection_is_used_again_and_by_one_call_at_a_time(
    http: httpx2.AsyncClient,
) -> None:
    server = Server(*[HELLO] * 9)
    async with listening(server) as url:
        for _ in range(3):
            assert await ask(http, url) == b"hello"
        assert server.connections == 1
        assert await asyncio.gather(*(ask(http, url) for _ in range(2))) == [b"hello"] * 2
    assert server.connections == 2


@pytest.mark.parametrize(
    "answer",
    [CLOSING, HELLO.replace(b"1.1", b"1.0"), HELLO + HELLO],
    ids=["closing", "HTTP/1.0", "an answer too many"],
)
async def test_a_connection_that_cannot_be_trusted_is_not_used_again(
    answer: bytes, http: httpx2.AsyncClient
) -> None:
    server = Server(answer, answer)
    async with listening(server) as url:
        assert await ask(http, url) == b"hello"
        assert await ask(http, url) == b"hello"
    assert server.connections == 2


@pytest.mark.parametrize("late", [False, True], ids=["while it is read", "when it has been read"])
async def test_a_server_that_closes_after_its_answer_breaks_nothing(
    late: bool, http: httpx2.AsyncClient
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
            response = await send(http, url)
            if late:
                assert await response.aread() == b"hello"
            await closed.get()
            for _ in range(5):
                await asyncio.sleep(0)
            assert late or await response.aread() == b"hello"


@pytest.mark.parametrize("size", [1_000, 300_000, 3_000_000])
async def test_a_connection_works_on_after_a_large_answer_to_a_slow_reader(
    size: int, http: httpx2.AsyncClient
) -> None:
    large = OK + b"content-length: %d\r\n\r\n" % size + b"x" * size
    server = Server(large, HELLO)
    async with listening(server) as url:
        response = await send(http, url)
        for _ in range(50):  # it comes meanwhile, as far as it is let
            await asyncio.sleep(0)
        assert await response.aread() == b"x" * size
        assert await ask(http, url) == b"hello"
    assert server.connections == 1


async def test_a_slow_reader_holds_the_server_back(http: httpx2.AsyncClient) -> None:
    written = 0

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await read_request(reader)
        writer.write(OK + b"content-length: 1000000000\r\n\r\n")
        while True:
            writer.write(b"x" * (1 << 20))
            await writer.drain()
            written += 1 << 20

    async with listening(peer) as url:
        response = await send(http, url)
        for _ in range(2_000):
            await asyncio.sleep(0)
        assert written < 100 << 20
        await response.aclose()


@pytest.mark.parametrize("read", [True, False], ids=["begun", "not read"])
async def test_an_answer_that_is_not_wanted_closes_its_connection(
    read: bool, http: httpx2.AsyncClient
) -> None:
    left = asyncio.Event()

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(OK + b"content-length: 10\r\n\r\nhello")
        await reader.read()
        left.set()

    async with listening(peer) as url:
        response = await send(http, url)
        chunks = response.aiter_bytes()
        if read:
            assert await anext(chunks) == b"hello"
            await chunks.aclose()
        await response.aclose()
        await response.aclose()
        await left.wait()


@pytest.mark.parametrize("begun", [True, False], ids=["body", "head"])
async def test_a_caller_that_leaves_closes_its_connection(
    begun: bool, http: httpx2.AsyncClient
) -> None:
    reached, left = asyncio.Event(), asyncio.Event()

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        if begun:
            writer.write(OK + b"content-length: 10\r\n\r\nhello")
        reached.set()
        await reader.read()
        left.set()

    async def call(url: httpx2.URL) -> None:
        response = await send(http, url)
        try:
            await response.aread()
        finally:
            await response.aclose()

    async with listening(peer) as url:
        task = asyncio.create_task(call(url))
        await reached.wait()
        task.cancel()
        await left.wait()
        await asyncio.wait([task])
        assert task.cancelled()


@pytest.mark.parametrize("steps", range(24))
@pytest.mark.parametrize("answer", [HELLO, CLOSING], ids=["kept", "closing"])
async def test_a_caller_may_leave_at_any_step(
    steps: int, answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "MAX_CONNECTIONS", 1)  # one that is left behind takes the place

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            for at in range(0, len(answer), 9):
                writer.write(answer[at : at + 9])
                await asyncio.sleep(0)
            if answer is CLOSING:
                return

    async with listening(peer) as url, over_the_network() as http:
        task = asyncio.create_task(ask(http, url))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert await ask(http, url) == b"hello"


async def test_so_many_connections_are_open_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "MAX_CONNECTIONS", 2)
    open_now, most = 0, 0

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        await reader.readuntil(b"{}")
        writer.write(CLOSING)
        open_now -= 1

    async with listening(peer) as url, over_the_network() as http:
        assert await asyncio.gather(*(ask(http, url) for _ in range(9))) == [b"hello"] * 9
        with pytest.raises(httpx2.ConnectError):
            await ask(http, httpx2.URL("http://nobody.invalid/"))
        assert await asyncio.gather(*(ask(http, url) for _ in range(4))) == [b"hello"] * 4
    assert most <= 2


async def test_a_caller_may_leave_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "MAX_CONNECTIONS", 1)
    async with listening(Server(*[HELLO] * 9)) as url, over_the_network() as http:
        response = await send(http, url)
        waiting = [asyncio.create_task(ask(http, url)) for _ in range(5)]
        await asyncio.sleep(0)
        for task in waiting[:3]:
            task.cancel()
        await response.aclose()
        waiting[3].cancel()  # just when it is its turn
        assert await waiting[4] == b"hello"
        assert await ask(http, url) == b"hello"


async def test_an_answer_that_came_too_early_leaves_a_connection_nobody_uses(
    http: httpx2.AsyncClient,
) -> None:
    connections = 0

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")
        await asyncio.Event().wait()  # the body is left where it is

    async with listening(peer) as url:
        for _ in range(2):
            response = await send(http, url, body=b"x" * (8 << 20))
            assert (response.status_code, await response.aread()) == (413, b"")
    assert connections == 2


async def test_a_connection_long_unused_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "IDLE_SECONDS", 0.001)
    server = Server(*[HELLO] * 3)
    async with listening(server) as url, over_the_network() as http:
        await ask(http, url)
        await asyncio.sleep(0.01)
        await ask(http, url)
    assert server.connections == 2


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_client_that_is_closed_leaves_nothing_open(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def calls() -> None:
        async with listening(Server(*[HELLO] * 9)) as url, over_the_network() as http:
            await asyncio.gather(*(ask(http, url) for _ in range(3)))
            await send(http, url)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(calls())
    gc.collect()  # a transport nobody closed would warn now
