"""Callers that leave, connections nobody uses, the end of a wire: nothing stays open or taken."""

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop

from o11y import http1
from o11y.http1 import MAX_CONNECTIONS, Http1Wire
from o11y.wire import Broken, Unsent
from tests.unit.o11y.peers import CLOSING, HELLO, OK, Server, ask, listening, read_request, until


@pytest.fixture
async def wire() -> AsyncIterator[Http1Wire]:
    wire = Http1Wire(1)
    yield wire
    await wire.close()


def free(wire: Http1Wire) -> int:
    return wire._places._value


async def test_bytes_nobody_asked_for_end_an_unused_connection(wire: Http1Wire) -> None:
    answered = asyncio.Event()

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(HELLO)
        await answered.wait()
        answered.clear()
        writer.write(OK + b"content-length: 4\r\n\r\nevil")

    async with listening(peer) as url:
        for _ in range(3):
            assert await ask(wire, url) == b"hello"
            answered.set()
            await until(lambda: not wire._open)


async def test_the_connection_used_last_is_used_first(wire: Http1Wire) -> None:
    connections = 0

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        number, connections = connections, connections + 1
        while True:
            await read_request(reader)
            writer.write(OK + b"content-length: 1\r\n\r\n%d" % number)

    async with listening(peer) as url:
        first, second = [await wire.send("POST", url, {}, b"{}") for _ in range(2)]
        assert [await second.read(), await first.read()] == [b"1", b"0"]
        assert [await ask(wire, url) for _ in range(3)] == [b"0"] * 3


async def test_a_connection_long_unused_is_not_trusted(
    wire: Http1Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, other = Server(*[HELLO] * 3), Server(HELLO)
    async with listening(server) as url, listening(other) as elsewhere:
        await ask(wire, url)
        monkeypatch.setattr(http1, "IDLE_SECONDS", 0)
        await ask(wire, url)
        assert (server.connections, len(wire._open)) == (2, 1)
        await ask(wire, elsewhere)  # what is kept for others is looked at, too
        assert [connection.origin[1] for connection in wire._open] == [elsewhere.port]
        assert len(wire._idle) == 1


async def test_unused_connections_make_room_for_new_ones(
    wire: Http1Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http1, "MAX_CONNECTIONS", 3)
    async with listening(Server(*[HELLO] * 9)) as url, listening(Server(*[HELLO] * 9)) as elsewhere:
        kept = [await wire.send("POST", url, {}, b"{}") for _ in range(3)]
        for reply in kept:
            await reply.read()
        await asyncio.gather(ask(wire, elsewhere), ask(wire, elsewhere))
        ports = Counter(connection.origin[1] for connection in wire._open)
        assert ports == {url.port: 1, elsewhere.port: 2}


async def test_an_answer_that_came_too_early_leaves_a_connection_nobody_uses(
    wire: Http1Wire,
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
            reply = await wire.send("POST", url, {}, b"x" * (8 << 20))
            assert (reply.status, await reply.read()) == (413, b"")
    assert connections == 2


@pytest.mark.parametrize("steps", range(24))
@pytest.mark.parametrize("answer", [HELLO, CLOSING], ids=["kept", "closing"])
async def test_a_caller_may_leave_at_any_step(steps: int, answer: bytes, wire: Http1Wire) -> None:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            for at in range(0, len(answer), 9):
                writer.write(answer[at : at + 9])
                await asyncio.sleep(0)
            if answer is CLOSING:
                return

    async with listening(peer) as url:
        task = asyncio.create_task(ask(wire, url))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert free(wire) == MAX_CONNECTIONS
        await until(lambda: len(wire._open) == sum(map(len, wire._idle.values())))
        assert await ask(wire, url) == b"hello"


async def test_a_caller_may_leave_the_queue(
    wire: Http1Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "_places", asyncio.Semaphore(1))
    async with listening(Server(*[HELLO] * 9)) as url:
        reply = await wire.send("POST", url, {}, b"{}")
        waiting = [asyncio.create_task(ask(wire, url)) for _ in range(5)]
        await asyncio.sleep(0)
        for task in waiting[:3]:
            task.cancel()
        reply.close()
        waiting[3].cancel()  # just when it is its turn
        assert await waiting[4] == b"hello"
        assert await ask(wire, url) == b"hello"
    assert free(wire) == 1


async def test_an_answer_given_up_wakes_who_waits_for_it(wire: Http1Wire) -> None:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"content-length: 5\r\n\r\n")
        await reader.read()
        await reader.read()

    async with listening(peer) as url:
        reply = await wire.send("POST", url, {}, b"{}")
        reading = asyncio.create_task(reply.read())
        await asyncio.sleep(0)
        reply.close()
        reply.close()
        with pytest.raises(Broken):
            await reading
    assert free(wire) == MAX_CONNECTIONS


@pytest.mark.parametrize("head", [OK + b"\r\n", OK + b"content-length: 5\r\n\r\n", b"HTTP/1.1 "])
async def test_a_wire_that_closes_ends_every_call(
    head: bytes, wire: Http1Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "_places", asyncio.Semaphore(1))
    reached = asyncio.Event()

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(head)
        reached.set()
        await reader.read()

    async with listening(peer) as url:
        calls = [asyncio.create_task(ask(wire, url)) for _ in range(2)]
        await reached.wait()
        for _ in range(9):
            await asyncio.sleep(0)
        await wire.close()
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(error) for error in found] == [Broken, Unsent]
        with pytest.raises(Unsent):
            await ask(wire, url)
    assert not wire._open


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_wire_that_is_closed_leaves_nothing_open(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def calls() -> None:
        wire = Http1Wire(1)
        async with listening(Server(*[HELLO] * 9)) as url:
            await asyncio.gather(*(ask(wire, url) for _ in range(3)))
            await wire.send("POST", url, {}, b"{}")
            await wire.close()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(calls())
    gc.collect()  # a transport nobody closed would warn now
