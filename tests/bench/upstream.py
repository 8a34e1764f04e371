"""A canned provider and an OTLP sink in one process, far faster than what is measured.

`python -m tests.bench.upstream PORT SINK_PORT` answers OpenAI's API on the first port and
`POST /v1/{traces,metrics,logs}` on the second, whose `GET /counts` says what it was sent. Below
`/busy`, `/unavailable`, `/slow`, `/hangs` and `/cuts` the second fails in that way.
"""

import asyncio
import json
import sys
from dataclasses import asdict, dataclass
from typing import cast

import httptools
import uvloop

MODEL = "gpt-4o-mini"
CONTENT = "Hello there, how are you? " * 4
TOKENS = 150
CHUNKS = 100
WORD = "word "


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _answer(content: bytes, kind: bytes = b"application/json", status: bytes = b"200 OK") -> bytes:
    head = b"HTTP/1.1 %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n"
    return head % (status, kind, len(content)) + content


def _event(choices: list[object], usage: dict[str, int] | None) -> bytes:
    event = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": f"{MODEL}-2024-07-18",
        "choices": choices,
        "usage": usage,
    }
    return b"data: " + _json(event) + b"\n\n"


def _chunk(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content)


def _choice(delta: dict[str, str], reason: str | None) -> object:
    return {"index": 0, "delta": delta, "finish_reason": reason}


COMPLETION = _answer(
    _json(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": f"{MODEL}-2024-07-18",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": CONTENT},
                    "finish_reason": "stop",
                }
            ],
            "usage": {
                "prompt_tokens": 100,
                "completion_tokens": 50,
                "total_tokens": TOKENS,
                "prompt_tokens_details": {"cached_tokens": 20},
            },
        }
    )
)
MODELS = _answer(
    _json({"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "openai"}]})
)
EXPORTED = _answer(b"", b"application/x-protobuf")
BUSY = _answer(b"", status=b"429 Too Many Requests")
UNAVAILABLE = _answer(b"", status=b"503 Service Unavailable")
SLOW_SECONDS = 0.5
NOT_FOUND = _answer(b"{}", status=b"404 Not Found")
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
STREAM_CHUNK = _chunk(_event([_choice({"content": WORD}, None)], None))
STREAM_END = (
    _chunk(
        _event([_choice({}, "stop")], None)
        + _event([], {"prompt_tokens": 100, "completion_tokens": CHUNKS, "total_tokens": 200})
        + b"data: [DONE]\n\n"
    )
    + b"0\r\n\r\n"
)


class Provider(asyncio.Protocol):
    """OpenAI's API without a model behind it."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._parser = httptools.HttpRequestParser(self)
        self._body = b""
        self._streams: set[asyncio.Task[None]] = set()

    def connection_lost(self, exc: Exception | None) -> None:
        for stream in self._streams:
            stream.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.close()

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        body, self._body = self._body, b""
        if self._parser.get_method() == b"GET":
            self.transport.write(MODELS)
        elif b'"stream":true' in body or b'"stream": true' in body:
            stream = asyncio.ensure_future(self._stream())
            self._streams.add(stream)
            stream.add_done_callback(self._streams.discard)
        else:
            self.transport.write(COMPLETION)

    async def _stream(self) -> None:
        """Each chunk is a write of its own: a proxy can't get two for the price of one."""
        self.transport.write(STREAM_HEAD)
        for _ in range(CHUNKS):
            self.transport.write(STREAM_CHUNK)
            await asyncio.sleep(0)
        self.transport.write(STREAM_END)


@dataclass
class Counts:
    """What the sink was sent, by all services together."""

    traces: int = 0
    metrics: int = 0
    logs: int = 0
    bytes: int = 0


class Sink(asyncio.Protocol):
    """Takes OTLP over HTTP and forgets it."""

    transport: asyncio.Transport

    def __init__(self, counts: Counts) -> None:
        self.counts = counts

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.close()

    def on_url(self, url: bytes) -> None:
        self._url = url

    def on_body(self, body: bytes) -> None:
        self.counts.bytes += len(body)

    def on_message_complete(self) -> None:
        counts = self.counts
        conduct, _, path = self._url.decode("latin-1").strip("/").rpartition("v1/")
        if path in ("traces", "metrics", "logs"):
            setattr(counts, path, getattr(counts, path) + 1)
            self._conduct(conduct.rstrip("/"))
        elif self._url == b"/counts":
            self.transport.write(_answer(_json(asdict(counts))))
        else:
            self.transport.write(NOT_FOUND)

    def _conduct(self, conduct: str) -> None:
        match conduct:
            case "":
                self.transport.write(EXPORTED)
            case "busy":
                self.transport.write(BUSY)
            case "unavailable":
                self.transport.write(UNAVAILABLE)
            case "slow":
                loop = asyncio.get_running_loop()
                loop.call_later(SLOW_SECONDS, self.transport.write, EXPORTED)
            case "hangs":
                pass  # until who asked gives up
            case "cuts":
                self.transport.abort()
            case _:
                self.transport.write(NOT_FOUND)


async def serve(port: int, sink_port: int) -> None:
    """Listen on both ports until the process ends."""
    loop, counts = asyncio.get_running_loop(), Counts()
    sink = await loop.create_server(lambda: Sink(counts), "127.0.0.1", sink_port)
    provider = await loop.create_server(Provider, "127.0.0.1", port)
    async with sink, provider:
        await provider.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2])))
