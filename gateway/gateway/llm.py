"""OpenAI's SDK for the gateway's own calls to llm-proxy."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import httpx2
from openai import APIError, AsyncOpenAI
from pydantic import ValidationError

from gateway.relay import begin, openai_ending, relayed
from gateway.service_client import ServiceClient, StreamedResponse
from gateway.service_responses import not_as_asked, raise_for_problem
from o11y.contracts import SUMMARY_HEADER, WHOLE_SUMMARY_HEADER
from o11y.http.headers import JSON
from o11y.web.problems import Problem

OPENED = "o11y.opened"
"""Extension of the SDK's response that holds the StreamedResponse it reads."""


def sdk(service: ServiceClient, stream_timeout_seconds: float) -> AsyncOpenAI:
    """The SDK on the connections of a service's client, which needs no key.

    Retries and time-outs are the service client's, and so are failures: calls raise Problem where
    the service can't be reached, is out of time or refuses, not an exception of `openai`.
    """
    return AsyncOpenAI(
        base_url=f"http://{service.service}/v1",
        api_key="none",
        max_retries=0,
        timeout=None,
        http_client=httpx2.AsyncClient(transport=_Transport(service, stream_timeout_seconds)),
    )


@contextmanager
def readable() -> Iterator[None]:
    """Guard the reading of what the SDK parsed: errors become Problem 502.

    The SDK doesn't validate responses, so that any of their values may be of any type.
    """
    try:
        yield
    except APIError as error:
        raise Problem(502, error.message, code="stream_broken") from error
    except ValidationError as error:
        raise not_as_asked("llm-proxy", error) from error
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        raise Problem(502, "llm-proxy's answer is unreadable", code="bad_upstream") from error


def text_of(content: object) -> str:
    """The text of a message's content; some providers have it as a list of parts."""
    if isinstance(content, list):
        texts = (part.get("text") for part in content if isinstance(part, dict))
        return "".join(text for text in texts if isinstance(text, str))
    if content is None or isinstance(content, str):
        return content or ""
    raise TypeError("the content of a message is neither text nor a list")


class _Transport(httpx2.AsyncBaseTransport):
    """Sends requests of the SDK as calls of a service's client.

    The only header passed on is the one that asks for the summary of a stream: the SDK's own, and
    those it takes from the environment, are for OpenAI.
    """

    def __init__(self, service: ServiceClient, stream_timeout_seconds: float) -> None:
        self._service = service
        self._stream_timeout_seconds = stream_timeout_seconds

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request and return its response. Raises Problem for any but a good one."""
        path, content = request.url.path, request.content
        if SUMMARY_HEADER in request.headers:
            opened = await begin(
                self._service,
                path,
                content=content,
                headers={**JSON, SUMMARY_HEADER: "1"},
                seconds=self._stream_timeout_seconds,
            )
            return httpx2.Response(200, stream=_Events(opened), extensions={OPENED: opened})
        response = await self._service.request(
            "POST",
            path,
            content=content,
            headers={**JSON, SUMMARY_HEADER: "1"},
        )
        raise_for_problem(response, self._service.service)
        if WHOLE_SUMMARY_HEADER not in response.headers:
            raise Problem(502, "llm-proxy's answer has no summary", code="bad_upstream")
        return response


class _Events(httpx2.AsyncByteStream):
    """A stream as the SDK reads it: the call has ended before the SDK gets the last event.

    The SDK closes it when it has read `[DONE]` or an error, after which nothing matters. A reader
    that leaves earlier closes the `OPENED` response.
    """

    def __init__(self, opened: StreamedResponse) -> None:
        self._opened = opened
        self._pieces = relayed(opened, openai_ending)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for events in self._pieces:
            yield b"".join(events)

    async def aclose(self) -> None:
        await self._opened.finish()
        await self._pieces.aclose()
