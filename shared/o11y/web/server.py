"""What surrounds every request a service answers: its SERVER span, its deadline, its access line.

Spans and metrics follow the HTTP server conventions (semconv http/http-spans#http-server). A plain
ASGI wrapper and the outermost one, so that the span covers all of the work and a fast endpoint pays
for nothing else. A client that goes away cancels the work done for it.
"""

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from opentelemetry import context as otel_context
from opentelemetry.metrics import Observation
from opentelemetry.propagate import get_global_textmap
from opentelemetry.trace import (
    Link,
    Span,
    SpanKind,
    StatusCode,
    format_trace_id,
    set_span_in_context,
)
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from o11y.http import deadline
from o11y.telemetry import identity, schema
from o11y.telemetry.instruments import BoundHistogram
from o11y.telemetry.signals import Telemetry
from o11y.telemetry.stopwatch import Stopwatch
from o11y.web import problems
from o11y.web.api_docs import FAVICON
from o11y.web.events import BROKEN
from o11y.web.problems import Problem, unavailable

access = logging.getLogger("o11y.access")

UNOBSERVED = frozenset({"/livez", "/readyz", "/metrics", FAVICON})
"""Paths that machines ask for by themselves, browsers too: no span, no metric, no access line."""

CLIENT_CLOSED_REQUEST = 499
"""What the access line says when nobody waited for the answer; no such status is ever sent."""

METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"}
)
MAX_BODY = 64 << 20
"""Largest body an endpoint reads, in bytes."""

_NAME_LENGTH = 40
"""Longest name of a query's parameter that a span keeps."""

Endpoint = Callable[[Scope, Receive, Send], Awaitable[None]]

_CONTEXT = frozenset(get_global_textmap().fields)
"""Headers the propagators read, which OTEL_PROPAGATORS names."""

_CARRIED = {
    name.lower().encode(): name
    for name in (
        *("traceparent", "tracestate", "x-user-id", "x-session-id", "x-tenant-id"),
        *("host", deadline.HEADER, *_CONTEXT),
    )
}


class Arrival(NamedTuple):
    """The context a request arrives in, and what its span is linked to."""

    context: otel_context.Context | None
    links: Sequence[Link] = ()


Arrive = Callable[[dict[str, str]], Arrival]
"""Of the headers that say so: traceparent and its like, baggage, `x-user-id` and its like."""


def from_our_own(carried: dict[str, str]) -> Arrival:
    """A request of another service of ours: its trace goes on, its baggage says who it is for."""
    if not _CONTEXT.isdisjoint(carried):
        return Arrival(identity.arrived(carried))
    return Arrival(None)


async def read_body(receive: Receive) -> bytes:
    """The whole body of a request. Raises Problem 413 when it is too large."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        part = message.get("body", b"")
        size += len(part)
        if size > MAX_BODY:
            raise Problem(413, f"the body is larger than {MAX_BODY >> 20} MiB", code="too_large")
        parts.append(part)
        if not message.get("more_body"):
            return part if len(parts) == 1 else b"".join(parts)


async def send_whole(
    send: Send, status: int, headers: list[tuple[bytes, bytes]], content: bytes
) -> None:
    """Answer at once."""
    headers.append((b"content-length", b"%d" % len(content)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


class Server:
    """Runs an application's requests under their spans.

    `endpoints` are answered without the application's router and middleware, by POST path.
    `timeout_seconds` is the deadline of a request that brings none, and the longest it may bring.
    `arrive` says what is believed of a request's headers.
    """

    def __init__(
        self,
        app: ASGIApp,
        telemetry: Telemetry,
        timeout_seconds: float,
        endpoints: Mapping[str, Endpoint] | None = None,
        arrive: Arrive = from_our_own,
    ) -> None:
        self._app = app
        self._arrive = arrive
        self._endpoints = {
            path: ServerErrorMiddleware(_answering(endpoint), problems.on_unforeseen)
            for path, endpoint in (endpoints or {}).items()
        }
        self._timeout_seconds = timeout_seconds
        self._tracer = telemetry.tracer
        self._duration = telemetry.histogram(schema.HTTP_SERVER_DURATION)
        self._series: dict[tuple[object, ...], BoundHistogram] = {}
        self._active: Counter[tuple[str, str]] = Counter()
        telemetry.sum(schema.HTTP_SERVER_ACTIVE, self._observe_active)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in UNOBSERVED:
            await self._app(scope, receive, send)
            return
        carried = {
            name: value.decode("latin-1")
            for key, value in scope["headers"]
            if (name := _CARRIED.get(key))
        }
        method = scope["method"] if scope["method"] in METHODS else "_OTHER"
        active = (method, scope.get("scheme", "http"))
        parent, links = self._arrive(carried)
        watch = Stopwatch()
        span = self._start(scope, carried, method, parent, links, watch)
        asked = deadline.parse(carried.get(deadline.HEADER))
        hurried = asked is not None and asked < self._timeout_seconds / 2
        context = set_span_in_context(span, parent)
        given = asked if hurried else None
        request = _Request(scope, receive, send, span, context, watch, self._tell, method, given)
        seconds = self._timeout_seconds if asked is None else min(asked, self._timeout_seconds)
        token = otel_context.attach(context)
        self._active[active] += 1
        try:
            with deadline.within(seconds, patience=math.inf if asked is None else asked):
                await self._answer(request)
        except BaseException as error:
            request.failure = error
            raise
        finally:
            self._active[active] -= 1
            request.end()
            otel_context.detach(token)

    async def _answer(self, request: "_Request") -> None:
        scope = request.scope
        endpoint = self._endpoints.get(scope["path"]) if scope["method"] == "POST" else None
        try:
            if endpoint is None:
                await self._app(scope, request.receive, request.send)
                return
            request.route = scope["path"]
            await endpoint(scope, request.receive, request.send)
        except asyncio.CancelledError:
            if request.left:
                return  # nobody waits for an answer
            if not request.started:  # the server stops, and its patience has ended
                stopping = problems.answer(unavailable("this service is stopping"), scope["path"])
                await stopping(scope, request.receive, request.send)
            raise
        finally:
            request.unwatch()

    def _start(
        self,
        scope: Scope,
        carried: Mapping[str, str],
        method: str,
        parent: otel_context.Context | None,
        links: Sequence[Link],
        watch: Stopwatch,
    ) -> Span:
        name = "HTTP" if method == "_OTHER" else method
        span = self._tracer.start_span(
            name, parent, SpanKind.SERVER, links=links, start_time=watch.start_ns
        )
        if not span.is_recording():
            return span
        attributes: dict[str, str | int] = {
            schema.HTTP_METHOD: method,
            schema.URL_SCHEME: scope.get("scheme", "http"),
            schema.URL_PATH: scope["path"],
            schema.PROTOCOL_VERSION: scope.get("http_version", "1.1"),
            **_server(carried.get("host"), scope),
        }
        if scope["query_string"]:
            attributes[schema.URL_QUERY] = _redacted(scope["query_string"])
        if method == "_OTHER":
            attributes[schema.HTTP_METHOD_ORIGINAL] = scope["method"]
        span.set_attributes(attributes)
        return span

    def _tell(self, request: "_Request") -> None:
        """Everything that is known when a request has ended: access line, metric, span."""
        scope, span, status = request.scope, request.span, request.status
        route = request.route or getattr(scope.get("route"), "path", None)
        found: dict[str, str | int] = {}
        if route is not None:
            found[schema.HTTP_ROUTE] = route
            if span.is_recording():
                span.update_name(f"{request.method} {route}")
        if request.started:
            found[schema.HTTP_STATUS] = status
        if error := request.error():
            found[schema.ERROR_TYPE] = error
            if error != schema.ERROR_CLIENT_GONE:
                span.set_status(StatusCode.ERROR)
        shown = CLIENT_CLOSED_REQUEST if request.left else status
        access.info(
            "%s %s %d",
            scope["method"],
            route or scope["path"],
            shown,
            extra={
                "method": scope["method"],
                "route": route or scope["path"],
                "status": shown,
                "duration_seconds": round(request.watch.seconds(), 6),
            },
        )
        version = scope.get("http_version", "1.1")
        key = (request.method, scope.get("scheme", "http"), version, *found.items())
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = self._duration.of(
                {
                    schema.HTTP_METHOD: request.method,
                    schema.URL_SCHEME: scope.get("scheme", "http"),
                    schema.PROTOCOL_VERSION: version,
                    **found,
                }
            )
        seconds = request.watch.seconds()  # with the line, which lies within the span
        series.record(seconds, request.context)
        span.set_attributes(found)
        span.end(request.watch.end_ns(seconds))

    def _observe_active(self) -> Iterable[Observation]:
        for (method, scheme), count in list(self._active.items()):
            yield Observation(count, {schema.HTTP_METHOD: method, schema.URL_SCHEME: scheme})


class _Request:
    """One request: how far its answer is, and whether its client still waits."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        span: Span,
        context: otel_context.Context,
        watch: Stopwatch,
        tell: Callable[["_Request"], None],
        method: str,
        hurried_seconds: float | None,
    ) -> None:
        self.scope = scope
        self.span = span
        self.context = context
        """That of the span."""
        self.method = method
        self.hurried_seconds = hurried_seconds
        """What its caller gave it, where that is little."""
        self.watch = watch
        self.status = 500
        self.started = False
        self.left = False
        self.broken = False
        self.route: str | None = None
        self.failure: BaseException | None = None
        self._receive = receive
        self._send = send
        self._tell = tell
        self._told = False
        self._watcher: asyncio.Task[Message] | None = None
        self._task = asyncio.current_task()
        self._trace_header = (
            problems.TRACE_HEADER.lower().encode(),
            format_trace_id(span.get_span_context().trace_id).encode(),
        )

    def error(self) -> str | None:
        """`error.type`: why the answer is no good one, or None."""
        if self.left:
            return schema.ERROR_CLIENT_GONE
        if isinstance(self.failure, asyncio.CancelledError):
            return schema.ERROR_CANCELLED
        if self.failure is not None:
            return type(self.failure).__qualname__
        if self.broken:
            return schema.ERROR_STREAM_BROKEN
        if self._ran_out_of_the_callers_time():
            return schema.ERROR_CALLER_DEADLINE
        return str(self.status) if self.status >= 500 else None

    def _ran_out_of_the_callers_time(self) -> bool:
        """Each hop keeps some of the time for the way back, so not all of it has passed."""
        given = self.hurried_seconds
        return self.status == 504 and given is not None and self.watch.seconds() >= given / 2

    async def receive(self) -> Message:
        if self._watcher is not None:
            await asyncio.wait([self._watcher])
            if not self._watcher.cancelled():
                return self._watcher.result()
        # the request's body, or what follows the last bytes of an answer, which nobody watches
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self._told:  # before its body was here
            self._lose()
            raise asyncio.CancelledError
        if message["type"] == "http.request" and not message.get("more_body"):
            self._watcher = asyncio.create_task(self._disconnected())
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.started = message["status"], True
            message["headers"] = [*message.get("headers", ()), self._trace_header]
        elif message["type"] == "http.response.body" and not message.get("more_body"):
            self.broken = message.pop(BROKEN, False)
            # before the last bytes go: the caller's span must not end before this one
            self.unwatch()
            self.end()
        await self._send(message)

    def end(self) -> None:
        if not self._told:
            self._told = True
            self._tell(self)

    def unwatch(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()

    async def _disconnected(self) -> Message:
        """Wait until the client goes, and cancel the work done for it."""
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self._told and self._task is not None:
            self._lose()
            self._task.cancel()
        return message

    def _lose(self) -> None:
        self.left = True


def _answering(endpoint: Endpoint) -> ASGIApp:
    """An endpoint whose problems become answers."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await endpoint(scope, receive, send)
        except Problem as problem:
            problems.report(problem)
            await problems.answer(problem, scope["path"])(scope, receive, send)

    return answer


def _server(host: str | None, scope: Scope) -> dict[str, str | int]:
    """The address the client asked for (semconv server.address), as far as it can be read."""
    if host is None:
        bound = scope.get("server")
        return {schema.SERVER_ADDRESS: bound[0], schema.SERVER_PORT: bound[1]} if bound else {}
    name, _, digits = host.rpartition(":")
    if name and digits.isdecimal() and ":" not in name:  # the usual form, without a parser
        return {schema.SERVER_ADDRESS: name, schema.SERVER_PORT: int(digits)}
    try:
        url = urlsplit(f"//{host}")
        address, port = url.hostname, url.port
    except ValueError:
        return {}
    if not address or url.path or url.query or url.username is not None:
        return {}
    usual = 443 if scope.get("scheme") == "https" else 80
    return {schema.SERVER_ADDRESS: address, schema.SERVER_PORT: port or usual}


def _redacted(query: bytes) -> str:
    """A query string holds prompts and user ids: the span keeps the names of its parameters.

    What has no name, or a long one, may be anything.
    """
    pairs = (part.partition("=") for part in query.decode("latin-1").split("&"))
    names = (
        quote(name, safe="%+") if given and len(name) <= _NAME_LENGTH else ""
        for name, given, _ in pairs
    )
    return "&".join(f"{name}=REDACTED" for name in names)
