"""The attempts of a call to another service: their CLIENT spans, their time, their metric.

Spans are those of the instrumentation of httpx2, under the current conventions for HTTP clients
(semconv http/http-spans#http-client): it starts a span for each request of the transport it
surrounds, and sends `traceparent` and `baggage` from it. A hook adds what only the client knows:
the path as `url.template`, since paths of these services hold no ids, and which attempt it is.
`server.address` is the replica's. The instrumentation would end its span when the head of a
response is here; these end with the body.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import httpx2
from opentelemetry.instrumentation.httpx import AsyncOpenTelemetryTransportHttpx2, RequestInfo
from opentelemetry.instrumentation.utils import suppress_http_instrumentation
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import INVALID_SPAN, Span, StatusCode, Tracer, TracerProvider

from o11y.http import deadline
from o11y.http.balancer import RESEND_COUNT
from o11y.http.transport import port_of, read_and_close
from o11y.telemetry import identity, schema
from o11y.telemetry.environment import opt_into_stable_names
from o11y.telemetry.error_types import error_type
from o11y.telemetry.instruments import NO_LABELS, Histogram, Labels, Value
from o11y.telemetry.signals import Telemetry
from o11y.telemetry.stopwatch import Stopwatch

FOR_THE_WAY_BACK = 0.05
"""The share of the time left, and at most this many seconds, that is not handed on: a service out
of time should still get to say so before its caller stops to listen.
"""

CALL = "o11y.call"
"""Extension of a request: the call it is an attempt of. A request without it has no span."""

ATTEMPT = "o11y.attempt"
"""Extension of a response: the attempt that it is the answer of."""

SPAN = "o11y.span"
"""Extension of a request: its span, where it has one of its own."""


@dataclass
class Call:
    """A call to another service, as all its attempts know it."""

    path: str
    """The path, written as `url.template`: it holds no ids."""
    url: str
    """The URL by the service's name, without credentials."""
    seconds: float
    """Longest wait for the head of a response; where `whole`, for all of it."""
    whole: bool = False
    """True: the response is read to its end before it is handed on."""
    idle_seconds: float | None = None
    """Longest wait for each piece of a body; None is as long as the request has."""
    attributes: Labels = field(default_factory=dict)
    labels: Labels = field(default_factory=dict)
    """Labels of the metric, besides the usual ones."""
    internal: bool = True
    """True: the service is one of ours, and is told the deadline."""
    billed: bool = False
    """True: the span of an attempt does not end before `Attempt.settle` is called."""
    left: float = field(default=0.0, init=False)
    """Seconds that the last attempt had."""
    last: "Attempt | None" = field(default=None, init=False)
    """The last attempt."""


def traced(
    service: str, telemetry: Telemetry, inner: httpx2.AsyncBaseTransport
) -> httpx2.AsyncBaseTransport:
    """The transport for attempts at a service, each with its span and its metric."""
    opt_into_stable_names()
    spans = AsyncOpenTelemetryTransportHttpx2(
        AttemptTransport(telemetry, inner),  # type: ignore[arg-type] # typed for httpx alone
        tracer_provider=_LongSpans(telemetry.tracer_provider),
        meter_provider=NoOpMeterProvider(),  # its duration ends with the head, and has no template
        request_hook=partial(_describe, service),
    )
    return _ReadingTransport(spans)


async def _describe(service: str, span: Span, request: RequestInfo) -> None:
    """Add to the span of an attempt what the client knows of it."""
    extensions, url = request.extensions, cast(httpx2.URL, request.url)
    assert extensions is not None
    extensions[SPAN] = span
    call: Call = extensions[CALL]
    number: int = extensions.get(RESEND_COUNT, 0)
    span.update_name(f"{request.method.decode()} {call.path}")
    span.set_attributes(
        {
            **call.attributes,
            schema.URL_TEMPLATE: call.path,
            schema.URL_FULL: call.url,
            schema.SERVER_PORT: port_of(url),
            schema.PEER_SERVICE: service,
            **({schema.HTTP_RESEND_COUNT: number} if number else {}),
        }
    )


class AttemptTransport(httpx2.AsyncBaseTransport):
    """Ends the span of an attempt with its response, and tells the service how long it may take.

    An attempt that takes longer than that ends with ReadTimeout.
    """

    def __init__(self, telemetry: Telemetry, inner: httpx2.AsyncBaseTransport) -> None:
        self._inner = inner
        self._duration = telemetry.histogram(schema.HTTP_CLIENT_DURATION)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """The response of an attempt when its head has come."""
        call: Call | None = request.extensions.get(CALL)
        if call is None:
            return await self._inner.handle_async_request(request)
        if call.last:
            call.last.settle()
        attempt = call.last = Attempt(self._duration, request, call)
        call.left = deadline.limit(call.seconds)
        until = asyncio.get_running_loop().time() + call.left
        if call.internal:
            theirs = call.left - FOR_THE_WAY_BACK * min(call.left, 1.0)
            request.headers[deadline.HEADER] = f"{theirs:.3f}"
            identity.send_key(request.headers)
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
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class _ReadingTransport(httpx2.AsyncBaseTransport):
    """Reads the response of an attempt whose call wants it whole: one that breaks has failed."""

    def __init__(self, inner: httpx2.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        call: Call | None = request.extensions.get(CALL)
        if call is None:
            with suppress_http_instrumentation():
                return await self._inner.handle_async_request(request)
        response = await self._inner.handle_async_request(request)
        if call.whole:
            await read_and_close(response)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class _AttemptBody(httpx2.AsyncByteStream):
    """The body of a response, with which its attempt ends.

    Without `until`, a time of the loop's clock, it may take as long as the request.
    """

    def __init__(
        self, stream: httpx2.AsyncByteStream, attempt: "Attempt", until: float | None
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
        except (httpx2.HTTPError, TimeoutError) as error:
            self._attempt.end(error_type(error))
            if isinstance(error, TimeoutError):
                raise httpx2.ReadTimeout("time is up") from error
            raise
        self._complete = True

    async def aclose(self) -> None:
        if self._complete:
            self._attempt.end()
        try:
            await self._stream.aclose()
        finally:
            self._attempt.end(schema.ERROR_CANCELLED)

    def _patience(self) -> asyncio.Timeout:
        if self._until is not None:
            return asyncio.timeout_at(self._until)
        left, idle = deadline.remaining(), self._attempt.idle_seconds
        if idle is None or (left is not None and left < idle):
            return asyncio.timeout(left)
        return asyncio.timeout(idle)


class Attempt:
    """One try of a call: its span and its metric, which end together with what was measured.

    That of a call that is billed ends when `settle` was called as well.
    """

    def __init__(self, duration: Histogram, request: httpx2.Request, call: Call) -> None:
        self.idle_seconds = call.idle_seconds
        """Longest wait for the next piece of the body."""
        self._duration = duration
        self._watch = Stopwatch()
        self._span: Span = request.extensions.get(SPAN, INVALID_SPAN)
        self._labels: dict[str, Value] = {
            **call.labels,
            schema.HTTP_METHOD: request.method,
            schema.URL_TEMPLATE: call.path,
            schema.SERVER_ADDRESS: request.url.host,
            schema.SERVER_PORT: port_of(request.url),
        }
        self._outcome: dict[str, Value] = {}
        self._seconds: float | None = None
        self._unsettled = call.billed

    @property
    def ended(self) -> bool:
        return self._seconds is not None

    def answered(self, status: int) -> None:
        """The head of a response has come."""
        self._outcome[schema.HTTP_STATUS] = status
        if status >= 400:
            self._outcome[schema.ERROR_TYPE] = str(status)

    def end(self, error: str | None = None) -> None:
        """End the attempt, once; `error` is the `error.type` of what went wrong after the head."""
        if self.ended:
            return
        self._seconds = self._watch.seconds()
        if error:
            self._outcome.setdefault(schema.ERROR_TYPE, error)
        self._record()

    def settle(self, attributes: Labels = NO_LABELS, error: str | None = None) -> None:
        """Add what is known of the attempt when its response was read, or there was none; `error`
        is the `error.type` where it was no answer. Only the first time counts.
        """
        if not self._unsettled:
            return
        self._unsettled = False
        self._span.set_attributes(attributes)
        if error:
            self._outcome.setdefault(schema.ERROR_TYPE, error)
        self._record()

    def _record(self) -> None:
        if self._seconds is None or self._unsettled:
            return
        self._span.set_attributes(self._outcome)
        if schema.ERROR_TYPE in self._outcome:
            self._span.set_status(StatusCode.ERROR)
        labels = {**self._labels, **self._outcome}
        self._duration.record(self._seconds, labels, self._span.get_span_context())
        self._span.end(_end_ns(self._span, self._seconds))


def _end_ns(span: Span, seconds: float) -> int | None:
    """The end of a span that lasts as long as was measured: its metric has the same value."""
    start = span.start_time if isinstance(span, ReadableSpan) else None
    return None if start is None else start + round(seconds * 1e9)


class _LongSpans(TracerProvider):
    """Tracers whose spans outlive the block they are current in; who knows their end ends them."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider

    def get_tracer(self, *args: Any, **options: Any) -> Tracer:
        return _LongSpanTracer(self._provider.get_tracer(*args, **options))


class _LongSpanTracer(Tracer):
    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def start_span(self, *args: Any, **options: Any) -> Span:
        return self._tracer.start_span(*args, **options)

    def start_as_current_span(  # type: ignore[override]
        self, *args: Any, **options: Any
    ) -> AbstractContextManager[Span]:
        # nor do they tell of exceptions: who ends them says what went wrong
        ours = dict.fromkeys(("end_on_exit", "record_exception", "set_status_on_exception"), False)
        return self._tracer.start_as_current_span(*args, **{**options, **ours})
