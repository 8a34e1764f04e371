"""Answers that a provider compresses, asked or not: whole, streamed, and errors."""

import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from o11y.telemetry import schema
from tests.support.near import SSE, Streamed
from tests.support.recorded import attributes
from tests.support.upstream import CHAT, CHAT_ANSWER, CHAT_CALL, STREAM, Proxy

PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "GZIP": gzip.compress,
    "deflate": zlib.compress,
    "gzip, deflate": lambda content: zlib.compress(gzip.compress(content)),
    "identity": lambda content: content,
}
JSON = {"content-type": "application/json"}
ERROR = {"error": {"message": "the prompt is too long", "code": "context_length_exceeded"}}


def packed(content: bytes, encoding: str, size: int, **options: Any) -> Streamed:
    """A response in pieces of this size."""
    whole = PACKED[encoding](content)
    pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    headers = {**options.pop("headers"), "content-encoding": encoding}
    return Streamed(*pieces, headers=headers, **options)


@pytest.mark.parametrize("encoding", PACKED)
@pytest.mark.parametrize("size", [7, 100_000])
async def test_a_whole_answer_is_unpacked_and_billed(
    encoding: str, size: int, proxy: Proxy
) -> None:
    content = json.dumps(CHAT_ANSWER).encode()
    proxy.upstream.answers[CHAT_CALL] = packed(content, encoding, size, headers=JSON)
    response = await proxy.chat()
    assert (response.status_code, response.content) == (200, content)
    assert "content-encoding" not in response.headers
    span = proxy.recorded.span("chat gpt-4o-mini")
    assert attributes(span)[schema.INPUT_TOKENS] == 1000
    assert schema.USAGE_ESTIMATED not in attributes(span)


@pytest.mark.parametrize("encoding", PACKED)
@pytest.mark.parametrize("size", [7, 100_000])
async def test_a_stream_is_unpacked_and_billed(encoding: str, size: int, proxy: Proxy) -> None:
    content = b"".join(STREAM)
    proxy.upstream.answers[CHAT_CALL] = packed(content, encoding, size, headers=SSE)
    asked = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
    response = await proxy.chat(asked)
    assert (response.status_code, response.content) == (200, content)
    assert attributes(proxy.recorded.span("chat gpt-4o-mini"))[schema.INPUT_TOKENS] == 1000


@pytest.mark.parametrize("encoding", PACKED)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_reaches_the_caller_unpacked(
    encoding: str, stream: bool, proxy: Proxy
) -> None:
    content = json.dumps(ERROR).encode()
    proxy.upstream.answers[CHAT_CALL] = packed(content, encoding, 7, headers=JSON, status=400)
    response = await proxy.chat({**CHAT, "stream": stream})
    assert (response.status_code, response.json()) == (400, ERROR)
    assert response.headers["content-type"] == "application/json"
    assert "content-encoding" not in response.headers


@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_not_packed_as_it_says_is_the_providers_fault(
    stream: bool, proxy: Proxy
) -> None:
    headers = {**(SSE if stream else JSON), "content-encoding": "gzip"}
    proxy.upstream.answers[CHAT_CALL] = Streamed(b"no gzip at all", headers=headers)
    response = await proxy.chat({**CHAT, "stream": stream})
    assert response.status_code == 502
