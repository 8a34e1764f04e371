"""The SERVER span of each request, its duration in the metrics, and its `X-Trace-Id`.

Spans and metrics follow the HTTP server conventions (semconv http/http-spans#http-server). The span
covers all of the response: it ends when the last bytes are about to be sent, so that a caller's
span does not end before it.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from opentelemetry import context as otel_context
from opentelemetry.metrics import Observation
from opentelemetry.propagate import get_global_textmap
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import (
    Link,
    Span,
    SpanKind,
    StatusCode,
    format_trace_id,
    set_span_in_context,
)
from pydantic import SecretStr
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from o11y.telemetry import identity, schema
from o11y.telemetry.signals import Telemetry
from o11y.web.exchange import Exchange, is_last, route_of
from o11y.web.internal_token import INTERNAL_TOKEN, is_token
from o11y.web.problems import TRACE_HEADER

logger = logging.getLogger(__name__)

METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"}
)

_PATH_LENGTH = 512
"""Longest path that a span keeps; those of routes are shorter."""

_HOST_LENGTH = 255
"""Longest name of a host (RFC 1035, 2.3.4)."""

_PARAMETERS = 32
"""Most parameters of a query that a span names."""

_NAME_LENGTH = 40
"""Longest name of a query's parameter that a span keeps."""

_CONTEXT = frozenset({*get_global_textmap().fields, identity.BAGGAGE})
"""Headers the propagators read, which OTEL_PROPAGATORS names; baggage says who calls."""

_CARRIED = {
    name.lower().encode(): name
    for name in (
        *("traceparent", "tracestate", "x-user-id", "x-session-id", "x-tenant-id", "host"),
        *(INTERNAL_TOKEN.lower(), *_CONTEXT),
    )
}


class Extracted(NamedTuple):
    """The context that a request brings, and the spans that its own is linked to."""

    context: otel_context.Context | None
    links: Sequence[Link] = ()


ExtractContext = Callable[[Mapping[str, str]], Extracted]
"""Reads the headers that may carry a context: traceparent and its like, baggage, user ids."""


def extract_with(token: SecretStr) -> ExtractContext:
    """Contexts as `extract_trusted` finds them, for who brings the token; of anybody else it is not
    believed who calls.
    """

    def extract(headers: Mapping[str, str]) -> Extracted:
        if is_token(headers.get(INTERNAL_TOKEN.lower(), "").encode("latin-1"), token):
            return extract_trusted(headers)
        return extract_trusted({key: headers[key] for key in headers if key != identity.BAGGAGE})

    return extract


def extract_trusted(headers: Mapping[str, str]) -> Extracted:
    """The context of a request from another service of ours: its trace, and who it is for."""
    if not _CONTEXT.isdisjoint(headers):
        return Extracted(identity.extract(headers))
    return Extracted(None)


class ServerSpanMiddleware:
    """Runs each request in a SERVER span of its own, and measures how long it takes.

    The outermost middleware: those within find the `Exchange` in the request's state. `extract`
    decides what is believed of a request's headers.
    """

    def __init__(
        self, app: ASGIApp, telemetry: Telemetry, extract: ExtractContext = extract_trusted
    ) -> None:
        self._app = app
        self._extract = extract
        self._tracer = telemetry.tracer
        self._duration = telemetry.histogram(schema.HTTP_SERVER_DURATION)
        self._active: Counter[tuple[str, str]] = Counter()
        telemetry.observable_up_down_counter(schema.HTTP_SERVER_ACTIVE, self._observe_active)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"] if scope["method"] in METHODS else "_OTHER"
        headers: dict[str, str] = {}
        for key, value in scope["headers"]:
            if name := _CARRIED.get(key):
                text = value.decode("latin-1")
                # fields of one name are one list (RFC 9110, 5.3): two traceparents are none
                headers[name] = f"{headers[name]},{text}" if name in headers else text
        exchange = Exchange(scope, method)
        parent, links = self._extract(headers)
        span = self._tracer.start_span(
            "HTTP" if method == "_OTHER" else method,
            parent,
            SpanKind.SERVER,
            links=links,
            start_time=exchange.watch.start_ns,
        )
        if span.is_recording():
            span.set_attributes(_attributes(scope, method, headers.get("host")))
        context = set_span_in_context(span, parent)
        trace_header = (
            TRACE_HEADER.lower().encode(),
            format_trace_id(span.get_span_context().trace_id).encode(),
        )
        ended = False

        def end() -> None:
            nonlocal ended
            if not ended:
                ended = True
                self._end(scope, exchange, span, context)

        async def send_observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status, exchange.started = message["status"], True
                message["headers"] = [*message.get("headers", ()), trace_header]
            elif is_last(message):
                end()
            await send(message)

        active = (method, scope.get("scheme", "http"))
        token = otel_context.attach(context)
        self._active[active] += 1
        try:
            await self._app(scope, receive, send_observed)
        except asyncio.CancelledError:
            exchange.fail(schema.ERROR_CANCELLED)
            raise
        except Exception as error:
            exchange.fail(type(error).__qualname__)
            logger.exception("an error nobody foresaw")
            if not ended:  # the answer can't be completed: the server closes the connection
                raise
        finally:
            self._active[active] -= 1
            end()
            otel_context.detach(token)

    def _end(
        self, scope: Scope, exchange: Exchange, span: Span, context: otel_context.Context
    ) -> None:
        outcome: dict[str, str | int] = {}
        if (route := route_of(scope)) is not None:
            outcome[schema.HTTP_ROUTE] = route
            if span.is_recording():
                span.update_name(f"{exchange.method} {route}")
        if exchange.started:
            outcome[schema.HTTP_STATUS] = exchange.status
        if error := exchange.error or (str(exchange.status) if exchange.status >= 500 else None):
            outcome[schema.ERROR_TYPE] = error
            if error != schema.ERROR_CLIENT_GONE and not _has_failed(span):
                span.set_status(StatusCode.ERROR)
        labels: dict[str, str | int] = {
            schema.HTTP_METHOD: exchange.method,
            schema.URL_SCHEME: scope.get("scheme", "http"),
            schema.PROTOCOL_VERSION: scope.get("http_version", "1.1"),
            **outcome,
        }
        seconds = exchange.watch.seconds()
        self._duration.record(seconds, labels, context)
        span.set_attributes(outcome)
        span.end(exchange.watch.end_ns(seconds))

    def _observe_active(self) -> Iterable[Observation]:
        for (method, scheme), count in list(self._active.items()):
            yield Observation(count, {schema.HTTP_METHOD: method, schema.URL_SCHEME: scheme})


def _has_failed(span: Span) -> bool:
    """True if the span's status says already that it failed, and why."""
    return isinstance(span, ReadableSpan) and span.status.status_code is StatusCode.ERROR


def _attributes(scope: Scope, method: str, host: str | None) -> dict[str, str | int]:
    """The attributes of a request that are known when it arrives."""
    attributes: dict[str, str | int] = {
        schema.HTTP_METHOD: method,
        schema.URL_SCHEME: scope.get("scheme", "http"),
        schema.URL_PATH: scope["path"][:_PATH_LENGTH],
        schema.PROTOCOL_VERSION: scope.get("http_version", "1.1"),
        **_server(host, scope),
    }
    if scope["query_string"]:
        attributes[schema.URL_QUERY] = _redacted(scope["query_string"])
    if method == "_OTHER":
        attributes[schema.HTTP_METHOD_ORIGINAL] = scope["method"]
    return attributes


def _server(host: str | None, scope: Scope) -> dict[str, str | int]:
    """The address the client asked for (semconv server.address), as far as it can be read."""
    if host is None:
        bound = scope.get("server")
        return {schema.SERVER_ADDRESS: bound[0], schema.SERVER_PORT: bound[1]} if bound else {}
    if len(host) > _HOST_LENGTH:
        return {}
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
    """The query with its values redacted, which may be prompts and user ids.

    A parameter without a name, or with a long one, may be anything: its name is left out as well.
    """
    parts = query.decode("latin-1").split("&", _PARAMETERS)[:_PARAMETERS]
    pairs = (part.partition("=") for part in parts)
    names = (
        quote(name, safe="%+") if given and len(name) <= _NAME_LENGTH else ""
        for name, given, _ in pairs
    )
    return "&".join(f"{name}=REDACTED" for name in names)
