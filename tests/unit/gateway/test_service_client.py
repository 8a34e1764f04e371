"""The client of a downstream service: what it sends, what it survives, what it tells."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import httpx2
import pytest
from httpx2 import Response
from opentelemetry import baggage, propagate
from opentelemetry.trace import SpanKind, StatusCode, get_current_span
from pydantic import BaseModel

from gateway import stage
from gateway.service_client import ServiceClient
from gateway.service_responses import raise_for_problem
from o11y.http import deadline
from o11y.telemetry import schema
from o11y.web.problems import Problem
from tests.support.near import NearTransport
from tests.support.recorded import Recorded, attributes, identity, traceparent
from tests.support.whose import identified

Handler = Callable[[httpx2.Request], Response]
Clients = Callable[..., ServiceClient]

PATIENCE_SECONDS = 2
"""Longer than any call here may take; only a client that hangs reaches it."""


@pytest.fixture
async def client(recorded: Recorded) -> AsyncIterator[Clients]:
    """Makes clients: of a handler in this process, or without one of the network."""
    made: list[ServiceClient] = []

    def make(
        handler: Handler | None = None, url: str = "http://things:8000", timeout: float = 60
    ) -> ServiceClient:
        near = NearTransport(handler) if handler else None
        made.append(ServiceClient("things", url, recorded.telemetry, timeout, near))
        return made[-1]

    yield make
    for each in made:
        await each.aclose()


class Service:
    """A service that keeps its requests and answers, or fails, in the order given."""

    def __init__(self, *answers: Response | Exception) -> None:
        self.answers = list(answers) or [Response(200, json={})]
        self.requests: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> Response:
        self.requests.append(request)
        answer = self.answers[min(len(self.requests), len(self.answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def headers(self) -> httpx2.Headers:
        [request] = self.requests
        return request.headers


async def problem(call: Awaitable[object]) -> Problem:
    """The problem a call ends with."""
    with pytest.raises(Problem) as raised:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await call
    return raised.value


# Context


async def test_the_service_becomes_a_child_of_the_clients_own_span(
    client: Clients, recorded: Recorded
) -> None:
    service = Service()
    with recorded.telemetry.tracer.start_as_current_span("work"):
        await client(service).request("POST", "/search")
    span = recorded.span("POST /search")
    own = identity(span)
    assert traceparent(service.headers) == (own.trace_id, own.span_id)
    assert span.kind is SpanKind.CLIENT
    assert span.parent == identity(recorded.span("work"))


@pytest.mark.parametrize("user", ["ann", "ann smith", "a,b;c=d", "50%", '"quoted"', "ann@x.org"])
async def test_user_and_session_travel_unchanged(user: str, client: Clients) -> None:
    service = Service()
    with identified(user, "s1"):
        await client(service).request("GET", "/")
    assert dict(baggage.get_all(propagate.extract(service.headers))) == {
        "user.id": user,
        "session.id": "s1",
    }


async def test_a_probe_is_outside_any_trace(client: Clients, recorded: Recorded) -> None:
    service = Service()
    with recorded.telemetry.tracer.start_as_current_span("work"), identified("ann", None):
        await client(service).probe("/readyz", 1)
    assert "baggage" not in service.headers
    assert service.headers["traceparent"].endswith("-00")  # not sampled: nobody records it
    assert recorded.spans(SpanKind.CLIENT) == []


async def test_an_excluded_url_has_no_span_and_ends_nobodys(
    client: Clients, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_PYTHON_HTTPX_EXCLUDED_URLS", "search")
    with recorded.telemetry.tracer.start_as_current_span("work") as span:
        await client(Service()).request("POST", "/search")
        assert span.is_recording()
    assert recorded.spans(SpanKind.CLIENT) == []


async def test_a_span_in_progress_is_not_the_current_one(
    client: Clients, recorded: Recorded
) -> None:
    with recorded.telemetry.tracer.start_as_current_span("work") as span:
        opened = await client(Service()).open("GET", "/")
        assert get_current_span() is span
        assert recorded.spans() == []
        await opened.aclose()
    assert [each.name for each in recorded.spans()] == ["GET /", "work"]


# Time


@pytest.mark.parametrize(
    ("usual", "asked", "left", "sent"),
    [
        (60, None, None, 60),
        (60, 5, None, 5),
        (60, None, 3, 3),
        (60, 5, 3, 3),
        (60, 2, 3, 2),
        (1, None, 3, 1),
    ],
)
async def test_the_service_is_told_the_least_time_there_is(
    usual: float, asked: float | None, left: float | None, sent: float, client: Clients
) -> None:
    service = Service()
    with deadline.within(left or 1000):
        await client(service, timeout=usual).request("GET", "/", seconds=asked)
    assert float(service.headers[deadline.HEADER]) == pytest.approx(sent, abs=0.5)


async def test_each_call_of_a_request_has_less_time_than_the_one_before(client: Clients) -> None:
    service = Service()
    things = client(service)
    with deadline.within(10):
        for _ in range(3):
            await things.request("GET", "/")
            await asyncio.sleep(0.002)
    sent = [float(request.headers[deadline.HEADER]) for request in service.requests]
    assert sent == sorted(set(sent), reverse=True)


async def test_nothing_is_sent_when_no_time_is_left(client: Clients) -> None:
    service = Service()
    with deadline.within(0):
        found = await problem(client(service).request("GET", "/"))
    assert (found.status, service.requests) == (504, [])


Connection = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(answer: Connection) -> AsyncIterator[str]:
    """The URL of a real server that treats each connection so."""
    connections: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        connections.add(task)
        try:
            await answer(reader, writer)
        except (asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


@contextmanager
def refusing() -> Iterator[str]:
    """A URL where nobody listens, and nobody else will."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def trickling(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
    while True:
        writer.write(b".")
        await writer.drain()
        await asyncio.sleep(0.01)


async def well(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    await writer.drain()


async def hanging_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")


@pytest.mark.parametrize("service", [silent, trickling])
async def test_a_call_ends_with_its_time_however_the_service_hangs(
    service: Connection, client: Clients
) -> None:
    async with listening(service) as url:
        found = await problem(client(url=url).request("GET", "/things", seconds=0.3))
    assert found.status == 504
    assert "things did not answer /things within 0.3 s" in found.detail


async def test_a_service_that_is_not_there_is_unavailable(client: Clients) -> None:
    with refusing() as url:
        found = await problem(client(url=url).request("GET", "/"))
    assert (found.status, found.detail) == (503, "things can't be reached")
    assert found.headers == {"Retry-After": "1"}


async def test_a_service_that_hangs_up_is_unavailable(client: Clients) -> None:
    async with listening(hanging_up) as url:
        found = await problem(client(url=url).request("GET", "/"))
    assert (found.status, found.detail) == (503, "things closed the connection")


async def test_a_hop_does_not_leave_the_house_through_a_proxy(
    client: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    with refusing() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy)
        async with listening(well) as url:
            assert (await client(url=url).request("GET", "/")).status_code == 200


# Failures


@pytest.mark.parametrize(
    ("error", "kind", "status", "gets", "posts"),
    [
        (httpx2.ConnectError("refused"), schema.ERROR_CONNECT, 503, 3, 3),
        (httpx2.ReadError("reset"), schema.ERROR_CONNECTION_LOST, 503, 3, 1),
        (httpx2.ReadTimeout("slow"), schema.ERROR_TIMEOUT, 504, 1, 1),
        (httpx2.DecodingError("no gzip"), "unreadable_answer", 502, 1, 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
async def test_only_what_was_not_sent_or_does_no_harm_is_tried_again(
    error: Exception,
    kind: str,
    status: int,
    gets: int,
    posts: int,
    client: Clients,
    recorded: Recorded,
) -> None:
    for method, attempts in (("GET", gets), ("POST", posts)):
        service = Service(error)
        found = await problem(client(service).request(method, "/things"))
        assert (found.status, len(service.requests)) == (status, attempts)
    spans = recorded.spans()
    assert [attributes(span)[schema.ERROR_TYPE] for span in spans] == [kind] * (gets + posts)


@pytest.mark.parametrize(
    ("method", "idempotent", "attempts"), [("POST", True, 3), ("GET", False, 1)]
)
async def test_a_caller_who_knows_better_says_what_may_be_done_twice(
    method: str, idempotent: bool, attempts: int, client: Clients
) -> None:
    service = Service(httpx2.ReadError("reset"))
    await problem(client(service).request(method, "/", idempotent=idempotent))
    assert len(service.requests) == attempts


async def test_the_next_attempt_goes_to_another_replica(
    client: Clients, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def replicas(host: str, port: int) -> list[str]:
        return ["10.0.0.1", "10.0.0.2"]

    monkeypatch.setattr("gateway.service_client.as_is", replicas)
    service = Service(httpx2.ConnectError("refused"), Response(200))
    await client(service).request("GET", "/")
    assert [request.url.host for request in service.requests] == ["10.0.0.1", "10.0.0.2"]
    assert {request.headers["host"] for request in service.requests} == {"things:8000"}
    assert [attributes(span)[schema.SERVER_ADDRESS] for span in recorded.spans()] == [
        "10.0.0.1",
        "10.0.0.2",
    ]


async def test_the_second_attempt_has_its_own_span_that_counts_it(
    client: Clients, recorded: Recorded
) -> None:
    service = Service(httpx2.ConnectError("refused"), Response(200))
    assert (await client(service).request("GET", "/")).status_code == 200
    first, second = recorded.spans()
    assert schema.HTTP_RESEND_COUNT not in attributes(first)
    assert attributes(second)[schema.HTTP_RESEND_COUNT] == 1
    assert (first.status.status_code, second.status.status_code) == (
        StatusCode.ERROR,
        StatusCode.UNSET,
    )
    assert traceparent(service.requests[1].headers)[1] == identity(second).span_id


async def test_a_cancelled_call_ends_its_span(client: Clients, recorded: Recorded) -> None:
    reached = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.set()
        await silent(reader, writer)

    async with listening(answer) as url, asyncio.timeout(PATIENCE_SECONDS):
        call = asyncio.create_task(client(url=url).request("GET", "/"))
        await reached.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    [span] = recorded.spans()
    assert attributes(span)[schema.ERROR_TYPE] == schema.ERROR_CANCELLED
    assert span.status.status_code is StatusCode.ERROR


# What telemetry tells


@pytest.mark.parametrize("status", [200, 404, 429, 500])
async def test_span_and_metric_follow_the_conventions(
    status: int, client: Clients, recorded: Recorded
) -> None:
    service = Service(Response(status))
    with stage.running("search"):
        await client(service).request("POST", "/search")
    failed = {schema.ERROR_TYPE: str(status)} if status >= 400 else {}
    labels = {
        schema.HTTP_METHOD: "POST",
        schema.URL_TEMPLATE: "/search",
        schema.SERVER_ADDRESS: "things",
        schema.SERVER_PORT: 8000,
        schema.HTTP_STATUS: status,
        **failed,
    }
    span = recorded.span("POST /search")
    assert attributes(span) == {
        **labels,
        schema.URL_FULL: "http://things:8000/search",
        schema.PEER_ADDRESS: "things",
        schema.PEER_PORT: 8000,
        schema.PROTOCOL_VERSION: "1.1",
        schema.PEER_SERVICE: "things",
        schema.PIPELINE_STAGE: "search",
    }
    assert span.status.status_code is (StatusCode.ERROR if failed else StatusCode.UNSET)
    [point] = recorded.points(schema.HTTP_CLIENT_DURATION.name)
    assert point == (labels, 1)
    assert set(labels) <= set(schema.HTTP_CLIENT_DURATION.labels)


@pytest.mark.parametrize(
    ("url", "port"), [("http://things", 80), ("https://things", 443), ("http://things:81", 81)]
)
async def test_the_port_is_always_known(
    url: str, port: int, client: Clients, recorded: Recorded
) -> None:
    await client(Service(), url).request("GET", "/")
    assert attributes(recorded.span("GET /"))[schema.SERVER_PORT] == port


async def test_the_span_tells_where_the_request_went(client: Clients, recorded: Recorded) -> None:
    service = Service()
    await client(service, "http://things:8000/api/").request("POST", "/search")
    [request] = service.requests
    assert str(request.url) == "http://things:8000/api/search"
    assert attributes(recorded.span("POST /search"))[schema.URL_FULL] == str(request.url)


async def test_the_span_holds_no_credentials(client: Clients, recorded: Recorded) -> None:
    await client(Service(), "http://user:hunter2@things").request("GET", "/")
    assert "hunter2" not in str(attributes(recorded.span("GET /")))


# Bad answers as problems


def answer(
    status: int, body: object = None, kind: str = "application/problem+json", **headers: str
) -> Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(status, content=content, headers={"content-type": kind, **headers})


def raised(response: Response) -> Problem:
    with pytest.raises(Problem) as caught:
        raise_for_problem(response, "things")
    return caught.value


NAME = [{"field": "name", "message": "required"}]
ENVELOPE = {"message": "no such model", "type": "t", "param": "model", "code": "model_not_found"}
UNAVAILABLE = ("Service Unavailable", "service_unavailable")


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (answer(400, {"detail": "odd", "code": "odd_one"}), (400, "odd", "odd_one")),
        (answer(404, {"detail": "no model x"}), (404, "no model x", "not_found")),
        (answer(409, {"detail": "dimension"}), (409, "dimension", "conflict")),
        (answer(429, {"detail": "busy"}), (429, "busy", "too_many_requests")),
        (answer(503, {"detail": "loading"}), (503, "loading", "service_unavailable")),
        (answer(504, {"detail": "slow"}), (504, "slow", "gateway_timeout")),
        (answer(401, {"detail": "who"}), (502, "things answered 401: who", "upstream_error")),
        (answer(403, {"detail": "no"}), (403, "no", "forbidden")),
        (answer(500, {"detail": "oh"}), (502, "things answered 500: oh", "upstream_error")),
        (answer(404, {"error": ENVELOPE}), (404, "no such model", "model_not_found")),
        (answer(400, {"error": {"message": "odd", "code": None}}), (400, "odd", "bad_request")),
        (answer(503, b"<h1>down</h1>", "text/html"), (503, *UNAVAILABLE)),
        (answer(503, b"\xff\x00", "application/octet-stream"), (503, *UNAVAILABLE)),
        (answer(503, b"", "application/json"), (503, *UNAVAILABLE)),
        (answer(503, b'{"detail": ', "application/json"), (503, *UNAVAILABLE)),
        (answer(503, ["a", "list"]), (503, *UNAVAILABLE)),
    ],
    ids=lambda value: value.content.decode(errors="replace") if isinstance(value, Response) else "",
)
def test_a_bad_answer_becomes_the_problem_it_stands_for(
    response: Response, expected: tuple[int, str, str]
) -> None:
    found = raised(response)
    assert (found.status, found.detail, found.code) == expected


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({"detail": "no", "errors": NAME}, NAME),
        ({"error": ENVELOPE}, [{"field": "model", "message": "no such model"}]),
        ({"detail": "no", "errors": None}, []),
        ({"detail": "no", "errors": "none"}, []),
        ({"detail": "no", "errors": [{"loc": ["name"]}]}, []),
        ({"error": {"message": "no", "param": None}}, []),
    ],
)
def test_the_fields_at_fault_are_kept(body: object, errors: list[dict[str, str]]) -> None:
    assert raised(answer(422, body)).errors == errors


@pytest.mark.parametrize("status", [429, 503])
def test_when_to_come_back_is_kept(status: int) -> None:
    assert raised(answer(status, {}, **{"Retry-After": "7"})).headers == {"Retry-After": "7"}


@pytest.mark.parametrize("status", [200, 201, 204])
def test_a_good_answer_is_no_problem(status: int) -> None:
    raise_for_problem(Response(status), "things")


class Count(BaseModel):
    n: int


async def test_a_good_answer_is_read_as_what_was_asked_for(client: Clients) -> None:
    service = Service(Response(200, json={"n": 1, "more": 2}))
    assert await client(service).call(Count, "POST", "/", json={"q": 2}) == Count(n=1)
    assert json.loads(service.requests[0].content) == {"q": 2}


@pytest.mark.parametrize(
    ("response", "status"),
    [
        (answer(404, {"detail": "gone"}), 404),
        (answer(200, b"<html>", "text/html"), 502),
        (answer(200, b'{"n": ', "application/json"), 502),
        (answer(200, b"\xff", "application/json"), 502),
        (answer(200, [1], "application/json"), 502),
        (answer(200, {"n": "one"}, "application/json"), 502),
        (answer(200, {}, "application/json"), 502),
        (answer(204, b""), 502),
        (answer(302, b"", "text/html", location="/elsewhere"), 502),
    ],
)
async def test_any_other_answer_is_a_problem(
    response: Response, status: int, client: Clients
) -> None:
    found = await problem(client(Service(response)).call(Count, "GET", "/"))
    assert found.status == status
    assert "things" in found.detail or status == 404
