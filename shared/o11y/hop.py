"""The client of one downstream service: context, deadline, one CLIENT span an attempt.

Spans and metrics follow the HTTP client conventions (semconv http/http-spans#http-client), with the
path as `url.template`: paths of these services hold no ids.
"""

import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx2
from opentelemetry import propagate
from opentelemetry.trace import SpanKind, StatusCode, use_span

from o11y import deadline, schema
from o11y.problems import Problem, out_of_time, unavailable
from o11y.telemetry import Telemetry

CONNECT_SECONDS = 2.0
CONNECT_ATTEMPTS = 2
MAX_CONNECTIONS = 200


class ServiceClient:
    """HTTP to one service by its base URL.

    A call takes at most `timeout` seconds or what is left of the request's deadline. A connection
    that can't be made is tried once more (nothing was sent yet); nothing else is repeated.
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
        url = urlsplit(base_url)
        self._address: dict[str, str | int] = {
            schema.SERVER_ADDRESS: url.hostname or "",
            schema.SERVER_PORT: url.port or (443 if url.scheme == "https" else 80),
        }
        self._tracer = telemetry.tracer
        self._duration = telemetry.histogram(schema.HTTP_CLIENT_DURATION)
        self._http = httpx2.AsyncClient(
            base_url=base_url,
            transport=transport,
            limits=httpx2.Limits(
                max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS
            ),
        )

    async def request(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        attributes: Mapping[str, str] | None = None,
        seconds: float | None = None,
    ) -> httpx2.Response:
        """Send one call and return the answer whatever its status.

        Raises Problem 503 when the service can't be reached and 504 when time is up.
        """
        for attempt in range(CONNECT_ATTEMPTS):
            left = deadline.limit(seconds or self.timeout)
            if left <= 0:
                raise out_of_time(f"no time left to call {self.service}")
            try:
                return await self._attempt(
                    method, path, json, content, headers, attributes, left, attempt
                )
            except httpx2.TimeoutException as error:
                raise out_of_time(
                    f"{self.service} did not answer {path} within {left:.1f} s"
                ) from error
            except (httpx2.ConnectError, httpx2.RemoteProtocolError, httpx2.ReadError) as error:
                unsent = isinstance(error, httpx2.ConnectError)
                if not unsent or attempt + 1 == CONNECT_ATTEMPTS:
                    state = "can't be reached" if unsent else "closed the connection"
                    raise unavailable(f"{self.service} {state}") from error
        raise AssertionError("unreachable")

    async def json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """Like `request`, but the JSON object of a good answer, and a Problem for any other."""
        response = await self.request(method, path, **options)
        raise_for_problem(response, self.service)
        body = response.json()
        assert isinstance(body, dict)
        return body

    async def probe(self, path: str, seconds: float) -> httpx2.Response:
        """A GET outside any trace, for health checks and scrapes. Raises httpx2.HTTPError."""
        return await self._http.get(path, timeout=seconds)

    async def close(self) -> None:
        await self._http.aclose()

    async def _attempt(
        self,
        method: str,
        path: str,
        json: object,
        content: bytes | None,
        headers: Mapping[str, str] | None,
        attributes: Mapping[str, str] | None,
        seconds: float,
        attempt: int,
    ) -> httpx2.Response:
        route = {schema.HTTP_METHOD: method, schema.URL_TEMPLATE: path, **self._address}
        span = self._tracer.start_span(
            f"{method} {path}",
            kind=SpanKind.CLIENT,
            attributes={
                **route,
                **(attributes or {}),
                schema.URL_FULL: str(self._http.base_url.join(path)),
                schema.PEER_SERVICE: self.service,
                **({schema.HTTP_RESEND_COUNT: attempt} if attempt else {}),
            },
        )
        started = time.perf_counter()
        outcome: dict[str, str | int] = {}
        with use_span(
            span, end_on_exit=True, record_exception=False, set_status_on_exception=False
        ):
            carrier = {deadline.HEADER: f"{seconds:.3f}", **(headers or {})}
            propagate.inject(carrier)
            try:
                response = await self._http.request(
                    method,
                    path,
                    json=json,
                    content=content,
                    headers=carrier,
                    timeout=httpx2.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds)),
                )
                outcome[schema.HTTP_STATUS] = response.status_code
                if response.status_code >= 400:
                    outcome[schema.ERROR_TYPE] = str(response.status_code)
                return response
            except BaseException as error:
                outcome[schema.ERROR_TYPE] = type(error).__qualname__
                raise
            finally:
                span.set_attributes(outcome)
                if schema.ERROR_TYPE in outcome:
                    span.set_status(StatusCode.ERROR)
                self._duration.record(time.perf_counter() - started, {**route, **outcome})


def raise_for_problem(response: httpx2.Response, service: str) -> None:
    """Raise the Problem a bad answer stands for.

    What the caller can mend (400, 404, 409, 422, 429) keeps its status and words; 503 and 504 too,
    since they name the cause; anything else is 502.
    """
    if response.status_code < 400:
        return
    detail, code, errors = _reason(response)
    status = response.status_code
    if status not in (400, 404, 409, 413, 422, 429, 503, 504):
        detail, status, code = f"{service} answered {status}: {detail}", 502, "upstream_error"
    retry = response.headers.get("retry-after")
    raise Problem(
        status, detail, code=code, headers={"Retry-After": retry} if retry else None, errors=errors
    )


def _reason(response: httpx2.Response) -> tuple[str, str | None, list[dict[str, str]]]:
    """Detail, code and field errors of a problem or of OpenAI's envelope; else the status line."""
    plain: tuple[str, None, list[dict[str, str]]] = (
        response.reason_phrase or f"status {response.status_code}",
        None,
        [],
    )
    if "json" not in response.headers.get("content-type", ""):
        return plain
    body = response.json()
    if not isinstance(body, dict):
        return plain
    error = body.get("error")
    if isinstance(error, dict):
        message = str(error.get("message", plain[0]))
        field = error.get("param")
        errors = [{"field": str(field), "message": message}] if field else []
        return message, error.get("code"), errors
    return str(body.get("detail", plain[0])), body.get("code"), body.get("errors", [])
