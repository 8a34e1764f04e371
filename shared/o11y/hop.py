"""The client of one downstream service: context, deadline, balancing, one CLIENT span an attempt.

Spans and metrics follow the HTTP client conventions (semconv http/http-spans#http-client), with the
path as `url.template`: paths of these services hold no ids. `server.address` is the replica's.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, TypeVar

import httpx2
import msgspec
from opentelemetry import propagate
from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context
from pydantic import BaseModel

from o11y import deadline, schema
from o11y.answer import parsed
from o11y.balancer import (
    IDEMPOTENT,
    REPLICA,
    RESEND_COUNT,
    Balancer,
    BalancingTransport,
    Replica,
    as_is,
    resolve,
)
from o11y.error_types import error_type
from o11y.metering import Labels, Series
from o11y.problems import Problem, out_of_time, unavailable
from o11y.stopwatch import Stopwatch
from o11y.telemetry import Telemetry
from o11y.transport import NetworkTransport, no_cookies, nothing_was_sent

UNTRACED = {"traceparent": f"00-{1:032x}-{1:016x}-00"}
"""A parent that isn't recorded (W3C Trace Context): what it calls isn't either."""

M = TypeVar("M", bound=BaseModel)

CONNECT_SECONDS = 2.0
ATTEMPTS = 3

FOR_THE_WAY_BACK = 0.05
"""The share of the time left, and at most this many seconds, that is not handed on: a service out
of time should still get to say so before its caller stops to listen.
"""

END_SECONDS = 1.0
"""How long the end of an answer is waited for that has said all it has to say."""

JSON = {"content-type": "application/json"}

USER_AGENT = {"user-agent": f"o11y-4-ai/{version('o11y')}"}

ATTEMPT = "o11y.attempt"
"""Extension of a response: the attempt that it is the answer of."""

CALL = "o11y.call"
"""Extension of a request: the call it is an attempt of. Without it there is no span."""


@dataclass
class _Call:
    """What the attempts of a call have in common."""

    path: str
    url: str
    """By the service's name, without credentials."""
    seconds: float
    whole: bool
    """Whether the response is read to its end before it is handed on."""
    attributes: Mapping[str, str]
    left: float = field(default=0.0, init=False)
    """Seconds that the last attempt had."""


class StreamedResponse:
    """A response whose head has come. Its span, and its place at the replica, end with it."""

    def __init__(self, service: str, path: str, response: httpx2.Response) -> None:
        self.status_code = response.status_code
        self.headers = response.headers
        self.service = service
        self._path = path
        self._response = response
        self._attempt: _Attempt = response.extensions[ATTEMPT]
        self._chunks = response.aiter_bytes()

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes. Raises Problem when it breaks or time is up."""
        try:
            async for chunk in self._chunks:
                yield chunk
        except httpx2.HTTPError as error:
            raise self._as_problem(error) from error
        finally:
            await self.aclose()

    async def read(self) -> httpx2.Response:
        """The response with its whole body. Raises Problem when it breaks or time is up."""
        content = b"".join([chunk async for chunk in self.chunks()])
        return httpx2.Response(self.status_code, headers=self.headers, content=content)

    async def finish(self) -> bytes:
        """Read what is left of a response that has said what was to be said, and end the call.

        It is complete: whether and how its end comes makes no difference.
        """
        rest = b""
        if not self._attempt.ended:
            self._attempt.end()
            with contextlib.suppress(httpx2.HTTPError, TimeoutError):
                async with asyncio.timeout(END_SECONDS):
                    while chunk := await anext(self._chunks, b""):
                        rest += chunk
            await self.aclose()
        return rest

    async def aclose(self) -> None:
        """End the call; a response that has not ended is cut."""
        await self._chunks.aclose()
        await self._response.aclose()

    def _as_problem(self, error: httpx2.HTTPError) -> Problem:
        if isinstance(error, httpx2.TimeoutException):
            return out_of_time(f"{self.service} did not end {self._path} in time")
        return unavailable(f"{self.service} closed the connection")


class ServiceClient:
    """HTTP to one service by its base URL, spread over its replicas.

    A call takes at most `timeout` seconds or what is left of the request's deadline. A connection
    that can't be made is tried again, at another replica where there is one; a connection that
    breaks only for calls that are idempotent. `transport` replaces the network in tests.
    """

    def __init__(
        self,
        service: str,
        base_url: str,
        telemetry: Telemetry,
        timeout: float,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self.service = service
        self.timeout = timeout
        base = httpx2.URL(base_url.rstrip("/"))
        self._base = str(base)
        self._public_url = str(base.copy_with(userinfo=b""))
        self._balancer = Balancer(self._base, as_is if transport else resolve)
        network = transport or NetworkTransport(tls=base.scheme == "https")
        attempts = AttemptTransport(service, telemetry, network)
        self._client = httpx2.AsyncClient(
            transport=BalancingTransport(self._balancer, attempts, ATTEMPTS),
            # packing and unpacking takes longer than the way from one service to another
            headers={"accept-encoding": "identity", **USER_AGENT},
            timeout=httpx2.Timeout(None, connect=CONNECT_SECONDS),
            cookies=no_cookies(),
        )
        self._urls: dict[str, httpx2.URL] = {}

    async def request(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """Send one call and return the response whatever its status; options as for `open`."""
        return await self._send(method, path, whole=True, **options)

    async def open(self, method: str, path: str, **options: Any) -> StreamedResponse:
        """Send one call and return when the head of its response is here.

        `json` or `content` is the body. `idempotent` says that doing it twice is doing it once; by
        default a GET is. Raises Problem 503 when the service can't be reached and 504 when time is
        up.
        """
        response = await self._send(method, path, whole=False, **options)
        return StreamedResponse(self.service, path, response)

    async def _send(
        self,
        method: str,
        path: str,
        *,
        whole: bool,
        json: object = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        attributes: Mapping[str, str] | None = None,
        seconds: float | None = None,
        idempotent: bool | None = None,
    ) -> httpx2.Response:
        if json is not None:
            content, headers = msgspec.json.encode(json), {**JSON, **(headers or {})}
        url = self._public_url + path
        call = _Call(path, url, seconds or self.timeout, whole, attributes or {})
        extensions = {
            CALL: call,
            IDEMPOTENT: method == "GET" if idempotent is None else idempotent,
        }
        try:
            return await self._client.send(
                self._request(method, path, extensions, headers, content), stream=True
            )
        except httpx2.HTTPError as error:
            raise self._as_problem(error, call) from error

    async def call(self, model: type[M], method: str, path: str, **options: Any) -> M:
        """Like `request`, but what a good answer says, and a Problem for any other."""
        return parsed(model, await self.request(method, path, **options), self.service)

    async def probe(self, path: str, seconds: float) -> httpx2.Response | None:
        """A GET outside any trace, for health checks; None when there is no answer."""
        return await self._get(None, path, seconds)

    async def probe_all(self, path: str, seconds: float) -> dict[str, httpx2.Response | None]:
        """The same at every replica, by address; None from one that doesn't answer."""
        try:
            replicas = await self._balancer.all()
        except OSError:
            return {}
        responses = await asyncio.gather(*(self._get(one, path, seconds) for one in replicas))
        return {
            replica.address: response for replica, response in zip(replicas, responses, strict=True)
        }

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _get(
        self, replica: Replica | None, path: str, seconds: float
    ) -> httpx2.Response | None:
        request = self._request("GET", path, {REPLICA: replica} if replica else {}, UNTRACED)
        try:
            async with asyncio.timeout(seconds):
                return await self._client.send(request)
        except (httpx2.HTTPError, TimeoutError):
            return None

    def _request(
        self,
        method: str,
        path: str,
        extensions: dict[str, Any],
        headers: Mapping[str, str] | None,
        content: bytes | None = None,
    ) -> httpx2.Request:
        url = self._urls.get(path)
        if url is None:
            url = self._urls[path] = httpx2.URL(f"{self._base}{path}")
        given = [(name, value.encode("latin-1")) for name, value in (headers or {}).items()]
        return self._client.build_request(
            method,
            url,
            headers=[(name.encode("ascii"), value) for name, value in given],
            content=content,
            extensions=extensions,
        )

    def _as_problem(self, error: httpx2.HTTPError, call: _Call) -> Problem:
        if nothing_was_sent(error):
            return unavailable(f"{self.service} can't be reached")
        match error:
            case httpx2.TimeoutException() if not call.left:
                return out_of_time(f"no time left to call {self.service}")
            case httpx2.TimeoutException():
                return out_of_time(
                    f"{self.service} did not answer {call.path} within {call.left:.1f} s"
                )
            case httpx2.NetworkError():
                return unavailable(f"{self.service} closed the connection")
        return Problem(502, f"{self.service}'s answer can't be read: {error}", code="bad_upstream")


class AttemptTransport(httpx2.AsyncBaseTransport):
    """Tells telemetry of each attempt of a call, and the service how long it may take.

    An attempt that takes longer than that ends with ReadTimeout.
    """

    def __init__(
        self, service: str, telemetry: Telemetry, inner: httpx2.AsyncBaseTransport
    ) -> None:
        self.service = service
        self.tracer = telemetry.tracer
        self._inner = inner
        self._duration = telemetry.histogram(schema.HTTP_CLIENT_DURATION)
        self._known: dict[tuple[object, ...], Series] = {}

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        call: _Call | None = request.extensions.get(CALL)
        if call is None:
            return await self._inner.handle_async_request(request)
        call.left = deadline.limit(call.seconds)
        if not call.left:
            raise httpx2.ReadTimeout("no time is left")
        theirs = call.left - FOR_THE_WAY_BACK * min(call.left, 1.0)
        request.headers[deadline.HEADER] = f"{theirs:.3f}"
        attempt = _Attempt(self, request, call)
        propagate.inject(request.headers, context=set_span_in_context(attempt.span))
        until = asyncio.get_running_loop().time() + call.left
        try:
            async with asyncio.timeout_at(until):
                response = await self._inner.handle_async_request(request)
        except BaseException as error:
            attempt.end(error_type(error))
            if isinstance(error, TimeoutError):
                raise httpx2.ReadTimeout("time is up") from error
            raise
        attempt.answered(response.status_code)
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _AttemptBody(response.stream, attempt, until if call.whole else None)
        response.extensions = {**response.extensions, ATTEMPT: attempt}
        if call.whole:
            await _read(response)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()

    def series(self, labels: Labels, outcome: Labels) -> Series:
        """The bound histogram for an attempt with these labels that ended so."""
        key = (*labels.values(), *outcome.items())
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._duration.of({**labels, **outcome})
        return found


async def _read(response: httpx2.Response) -> None:
    """Read the whole body; a response that can't be read to its end is cut."""
    try:
        await response.aread()
    finally:
        await response.aclose()


class _AttemptBody(httpx2.AsyncByteStream):
    """The body of a response, with which its attempt ends.

    Without `until`, a time of the loop's clock, it may take as long as the request.
    """

    def __init__(
        self, stream: httpx2.AsyncByteStream, attempt: "_Attempt", until: float | None
    ) -> None:
        self._stream = stream
        self._attempt = attempt
        self._until = until
        self._complete = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        chunks = aiter(self._stream)
        try:
            while True:
                async with self._patience():
                    chunk = await anext(chunks, None)
                if chunk is None:
                    break
                yield chunk
        except Exception as error:
            self._attempt.end(error_type(error))
            if isinstance(error, TimeoutError):
                raise httpx2.ReadTimeout("time is up") from error
            raise
        self._complete = True

    def _patience(self) -> asyncio.Timeout:
        if self._until is not None:
            return asyncio.timeout_at(self._until)
        return asyncio.timeout(deadline.remaining())

    async def aclose(self) -> None:
        if self._complete:
            self._attempt.end()
        try:
            await self._stream.aclose()
        finally:
            self._attempt.end(schema.ERROR_CANCELLED)


class _Attempt:
    """One try of a call: its span and its time."""

    def __init__(self, transport: AttemptTransport, request: httpx2.Request, call: _Call) -> None:
        replica: Replica = request.extensions[REPLICA]
        self._transport = transport
        self._labels: dict[str, str | int] = {
            schema.HTTP_METHOD: request.method,
            schema.URL_TEMPLATE: call.path,
            schema.SERVER_ADDRESS: replica.host,
            schema.SERVER_PORT: replica.port,
        }
        self._watch = Stopwatch()
        self.span = transport.tracer.start_span(
            f"{request.method} {call.path}",
            kind=SpanKind.CLIENT,
            start_time=self._watch.start_ns,
        )
        if self.span.is_recording():
            number = request.extensions[RESEND_COUNT]
            self.span.set_attributes(
                {
                    **self._labels,
                    **call.attributes,
                    schema.URL_FULL: call.url,
                    schema.PEER_SERVICE: transport.service,
                    **({schema.HTTP_RESEND_COUNT: number} if number else {}),
                }
            )
        self.ended = False
        self._outcome: dict[str, str | int] = {}

    def answered(self, status: int) -> None:
        self._outcome[schema.HTTP_STATUS] = status
        if status >= 400:
            self._outcome[schema.ERROR_TYPE] = str(status)

    def end(self, error: str | None = None) -> None:
        if self.ended:
            return
        self.ended = True
        if error:
            self._outcome[schema.ERROR_TYPE] = error
        self.span.set_attributes(self._outcome)
        if schema.ERROR_TYPE in self._outcome:
            self.span.set_status(StatusCode.ERROR)
        seconds = self._watch.seconds()
        self._transport.series(self._labels, self._outcome).record(
            seconds, self.span.get_span_context()
        )
        self.span.end(self._watch.end_ns(seconds))
