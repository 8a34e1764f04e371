"""One request and its answer on the wire, with all that can go wrong there."""

import asyncio
import socket
import struct
import uuid
from collections.abc import Iterator

from aiohttp import web

from tests.support.openai_standin import shapes
from tests.support.openai_standin.answers import Answer
from tests.support.openai_standin.journal import Journal, Outcome, Received
from tests.support.openai_standin.ledger import Account, Ledger
from tests.support.openai_standin.shapes import Event
from tests.support.openai_standin.step import Step


class Splitter:
    """Cuts a stream into pieces of one size; what is left over waits for more."""

    def __init__(self, size: int | None) -> None:
        self._size = size
        self._rest = b""

    def feed(self, data: bytes, *, flush: bool) -> list[bytes]:
        if self._size is None:
            return [data] if data else []
        data = self._rest + data
        end = len(data) if flush else len(data) - len(data) % self._size
        self._rest = data[end:]
        return [data[start : start + self._size] for start in range(0, end, self._size)]


class Exchange:
    """Plays one step to one client. How it ended is in the journal before the client can know."""

    def __init__(
        self, request: web.Request, received: Received, journal: Journal, ledger: Ledger
    ) -> None:
        self._request = request
        self._received = received
        self._journal = journal
        self._ledger = ledger
        self._hanging = False
        transport = request.transport
        if transport is not None:
            # Drained then means: with the kernel. So what counts as sent is on its way.
            transport.set_write_buffer_limits(high=0)

    def interrupted(self, *, stopping: bool) -> None:
        """The connection is gone before the answer was complete."""
        if stopping:
            self._end("server_stopped")
        else:
            self._end("hung_then_left" if self._hanging else "client_left")

    async def before(self, step: Step) -> None:
        """What comes before the first byte."""
        if step.latency:
            await asyncio.sleep(step.latency)
        if step.hang == "before_first_byte":
            await self._hang()
        if step.cut == "before_first_byte":
            await self._cut()

    async def whole(
        self, status: int, body: bytes, step: Step, answer: Answer | None = None
    ) -> web.StreamResponse:
        """A body at once; `answer` is what has to be billed for it."""
        reports = answer is not None and answer.reports_tokens()
        reports = reports and step.usage not in ("absent", "null")
        if step.malformed:
            body, reports = shapes.malformed_body(body, step), False
        response = web.StreamResponse(status=status, headers=self._headers(step))
        response.content_type = step.content_type or "application/json"
        response.content_length = len(body)
        account = await self._open(response, answer, step)
        if step.hang or step.cut:
            await self._write(response, body[: len(body) // 2])
            await self._stop(step)
        await self._write(response, body[:-1])
        if account and reports:
            account.reported()
        self._end("answered")
        await self._write(response, body[-1:])
        await response.write_eof()
        return response

    async def stream(
        self, answer: Answer, step: Step, *, include_usage: bool
    ) -> web.StreamResponse:
        """Server-sent events."""
        response = web.StreamResponse(headers=self._headers(step))
        response.content_type = step.content_type or "text/event-stream"
        if step.content_type is None:
            response.charset = "utf-8"
        account = await self._open(response, answer, step)
        assert account is not None
        splitter = Splitter(step.split)
        middle = answer.chunks // 2 if step.after is None else min(step.after, answer.chunks)
        acts = bool(step.hang or step.cut or step.malformed)
        sent = 0
        for event, last in _with_last(shapes.events(answer, step, include_usage=include_usage)):
            if acts and sent == middle and not event.opening:
                acts = False
                await self._act(response, step, splitter)
            if event.chunks > sent:
                if sent and step.pace:
                    await asyncio.sleep(step.pace)
                sent = event.chunks
                account.used(answer.usage.until(sent, answer.chunks))
                self._journal.sent(self._received, sent)
            *pieces, end = splitter.feed(event.data, flush=last or event.reports) or [b""]
            for piece in pieces:
                await self._write(response, piece)
            if event.reports:
                account.reported()
            if last:
                self._end("answered")
            await self._write(response, end)
        await response.write_eof()
        return response

    async def _open(
        self, response: web.StreamResponse, answer: Answer | None, step: Step
    ) -> Account | None:
        await response.prepare(self._request)
        self._journal.started(self._received, response.status)
        if answer is None:
            return None
        streams = response.content_length is None
        usage = answer.usage.until(0, answer.chunks) if streams else answer.usage
        model = self._received.body["model"]
        return self._ledger.open(self._received.id, model, answer.operation, usage)

    async def _act(self, response: web.StreamResponse, step: Step, splitter: Splitter) -> None:
        if step.malformed:
            for piece in splitter.feed(shapes.malformed_event(step), flush=False):
                await self._write(response, piece)
        if step.hang or step.cut:
            for piece in splitter.feed(b"", flush=True):
                await self._write(response, piece)
            await self._stop(step)

    async def _stop(self, step: Step) -> None:
        if step.hang:
            await self._hang()
        await self._cut()

    async def _hang(self) -> None:
        self._hanging = True
        await asyncio.Event().wait()

    async def _cut(self) -> None:
        self._end("cut")
        transport = self._request.transport
        if transport is not None:
            connection = transport.get_extra_info("socket")
            # Closed without lingering, a connection ends with a reset.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        # The lost connection cancels this handler.
        await asyncio.Event().wait()

    async def _write(self, response: web.StreamResponse, data: bytes) -> None:
        if data:
            await response.write(data)
            await self._request.writer.drain()
            # Writing to a fast client never waits; its leaving has to be noticed all the same.
            await asyncio.sleep(0)

    def _end(self, outcome: Outcome) -> None:
        self._journal.ended(self._received, outcome)

    def _headers(self, step: Step) -> dict[str, str]:
        headers = {
            "x-request-id": f"req_{uuid.uuid4().hex}",
            "openai-version": "2020-10-01",
            "openai-processing-ms": str(round(step.latency * 1000)),
        }
        if step.retry_after is not None:
            headers["retry-after"] = step.retry_after
        return headers


def _with_last(events: Iterator[Event]) -> Iterator[tuple[Event, bool]]:
    held: Event | None = None
    for event in events:
        if held is not None:
            yield held, False
        held = event
    if held is not None:
        yield held, True
