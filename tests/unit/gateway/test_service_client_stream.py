"""An answer of a service as it comes: its span ends with it, and so does its place."""

import asyncio
from collections.abc import AsyncIterator

import httpx2
import pytest
from opentelemetry.trace import StatusCode

from gateway.service_client import ServiceClient
from o11y.http import deadline
from o11y.telemetry import schema
from o11y.web.problems import Problem
from tests.support.near import NearTransport, Streamed
from tests.support.recorded import Recorded, attributes

PATIENCE_SECONDS = 5


class Things:
    """A client of a service that answers once, so."""

    def __init__(self, recorded: Recorded, answer: Streamed) -> None:
        self.recorded = recorded
        self.client = ServiceClient(
            "things", "http://things:8000", recorded.telemetry, 60, NearTransport(lambda _: answer)
        )

    async def is_idle(self) -> bool:
        [replica] = await self.client.balancer.all()
        return replica.in_flight == 0

    async def chunks(self) -> AsyncIterator[bytes]:
        opened = await self.client.open("POST", "/stream")
        assert not await self.is_idle()
        assert self.recorded.spans() == []
        async for chunk in opened.chunks():
            yield chunk


async def test_a_stream_is_one_span_that_ends_with_it(recorded: Recorded) -> None:
    answer = Streamed(b"one", b"two")
    things = Things(recorded, answer)
    assert [chunk async for chunk in things.chunks()] == [b"one", b"two"]
    [span] = recorded.spans()
    assert attributes(span)[schema.HTTP_STATUS] == 200
    assert span.status.status_code is StatusCode.UNSET
    assert answer.closed
    assert await things.is_idle()


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (httpx2.ReadError("reset"), schema.ERROR_CONNECTION_LOST, 503),
        (httpx2.RemoteProtocolError("no HTTP"), "unreadable_answer", 503),
        (httpx2.ReadTimeout("slow"), schema.ERROR_TIMEOUT, 504),
    ],
    ids=repr,
)
async def test_a_stream_that_breaks_is_a_problem(
    error: Exception, kind: str, status: int, recorded: Recorded
) -> None:
    answer = Streamed(b"one", error)
    things = Things(recorded, answer)
    chunks = things.chunks()
    assert await anext(chunks) == b"one"
    with pytest.raises(Problem) as raised:
        await anext(chunks)
    assert raised.value.status == status
    [span] = recorded.spans()
    assert attributes(span)[schema.ERROR_TYPE] == kind
    assert span.status.status_code is StatusCode.ERROR
    assert answer.closed
    assert await things.is_idle()


async def test_a_stream_ends_with_its_time(recorded: Recorded) -> None:
    answer = Streamed(b"one", asyncio.Event())
    things = Things(recorded, answer)
    with deadline.within(0.02), pytest.raises(Problem) as raised:
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert [chunk async for chunk in things.chunks()]
    assert raised.value.status == 504
    assert answer.closed
    assert await things.is_idle()


async def test_who_leaves_a_stream_cuts_it(recorded: Recorded) -> None:
    answer = Streamed(b"one", asyncio.Event())
    things = Things(recorded, answer)

    async def read() -> None:
        assert [chunk async for chunk in things.chunks()]

    task = asyncio.create_task(read())
    async with asyncio.timeout(PATIENCE_SECONDS):
        await answer.reached.wait()
        task.cancel()
        await asyncio.wait([task])
    [span] = recorded.spans()
    assert attributes(span)[schema.ERROR_TYPE] == schema.ERROR_CANCELLED
    assert answer.closed
    assert await things.is_idle()


async def test_an_answer_nobody_reads_can_be_let_go(recorded: Recorded) -> None:
    answer = Streamed(b"one")
    things = Things(recorded, answer)
    opened = await things.client.open("GET", "/")
    await opened.aclose()
    await opened.aclose()
    assert len(recorded.spans()) == 1
    assert answer.closed
    assert await things.is_idle()


@pytest.mark.parametrize(
    "end", [b"", httpx2.ReadError("reset"), httpx2.ReadTimeout("slow")], ids=repr
)
async def test_what_has_said_all_is_complete_however_it_ends(
    end: bytes | Exception, recorded: Recorded
) -> None:
    answer = Streamed(b"all", b" of", b" it", end)
    things = Things(recorded, answer)
    opened = await things.client.open("POST", "/stream")
    chunks = opened.chunks()
    assert await anext(chunks) == b"all"
    assert await opened.finish() == b" of it"
    [span] = recorded.spans()
    assert schema.ERROR_TYPE not in attributes(span)
    assert answer.closed
    assert await things.is_idle()


async def test_what_is_let_go_before_its_end_was_cancelled(recorded: Recorded) -> None:
    things = Things(recorded, Streamed(b"one", b"two"))
    opened = await things.client.open("POST", "/stream")
    await opened.aclose()
    [span] = recorded.spans()
    assert attributes(span)[schema.ERROR_TYPE] == schema.ERROR_CANCELLED
