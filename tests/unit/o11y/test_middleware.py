"""What surrounds a request whose client leaves, whose service stops, or whose endpoint fails."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from opentelemetry.trace import StatusCode
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from o11y.http import deadline
from o11y.telemetry import schema
from o11y.web.body_limit import MAX_BODY
from o11y.web.problems import Problem, out_of_time
from o11y.web.routes import PlainRoute
from tests.support.recorded import Recorded, attributes, identity, log_lines
from tests.support.small_service import TIMEOUT_SECONDS, application
from tests.support.waiting import eventually

SERVER_SPAN = "o11y.web.server_span"

Lines = Callable[[], list[dict[str, Any]]]
PATIENCE_SECONDS = 5
HOT = "/v1/hot"
GONE: Message = {"type": "http.disconnect"}


class Work:
    """An endpoint that reads its body, says `first`, and waits until it is let go."""

    def __init__(self, first: bytes = b"") -> None:
        self.first = first
        self.body: bytes | None = None
        self.reached = asyncio.Event()
        self.let_go = asyncio.Event()
        self.cancelled = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.body = await Request(scope, receive).body()
        if self.first:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": self.first, "more_body": True})
        self.reached.set()
        try:
            await self.let_go.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if self.first:
            await send({"type": "http.response.body", "body": b"last"})
        else:
            await Response(b"whole")(scope, receive, send)


class Endpoint:
    """An ASGI application as the endpoint of a route."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


class Visit:
    """A request to the ASGI application: messages are put in, and those it sends are kept."""

    def __init__(
        self,
        recorded: Recorded,
        endpoint: ASGIApp,
        *parts: bytes,
        headers: Any = (),
        body_limits: Mapping[str, int] | None = None,
    ) -> None:
        self.sent: list[Message] = []
        self.spans_sent: list[int] = []
        """How many spans had ended when each message went."""
        self._recorded = recorded
        routes = [PlainRoute(HOT, Endpoint(endpoint))]
        self._app = application(recorded.telemetry, routes=routes, body_limits=body_limits)
        self._coming: asyncio.Queue[Message] = asyncio.Queue()
        self.scope = {
            "type": "http",
            "method": "POST",
            "path": HOT,
            "query_string": b"",
            "headers": list(headers),
        }
        for at, part in enumerate(parts):
            more = at + 1 < len(parts)
            self.comes({"type": "http.request", "body": part, "more_body": more})

    def comes(self, message: Message) -> None:
        self._coming.put_nowait(message)

    async def run(self) -> None:
        await self._app(self.scope, self._coming.get, self._send)

    async def _send(self, message: Message) -> None:
        self.spans_sent.append(len(self._recorded.spans()))
        self.sent.append(message)

    @property
    def status(self) -> int:
        status: int = self.sent[0]["status"]
        return status

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def content(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


@asynccontextmanager
async def visiting(visit: Visit, work: Work) -> AsyncIterator["asyncio.Task[None]"]:
    """A visit whose endpoint has been reached."""
    task = asyncio.create_task(visit.run())
    async with asyncio.timeout(PATIENCE_SECONDS):
        await work.reached.wait()
        yield task
        await asyncio.wait([task])


def active(recorded: Recorded) -> float:
    return sum(point.value for point in recorded.points(schema.HTTP_SERVER_ACTIVE.name))


# The client leaves


@pytest.mark.parametrize("first", [b"", b"first"], ids=["before the answer", "in mid-stream"])
async def test_a_client_that_leaves_cancels_the_work_done_for_it(
    first: bytes, recorded: Recorded, lines: Lines
) -> None:
    work = Work(first)
    visit = Visit(recorded, work, b"{}")
    async with visiting(visit, work) as task:
        assert active(recorded) == 1
        visit.comes(GONE)
    assert work.cancelled
    assert task.exception() is None
    assert visit.content == first
    [span], [line] = recorded.spans(), lines()
    assert (line["status"], line["message"]) == (499, f"POST {HOT} 499")
    assert attributes(span)[schema.ERROR_TYPE] == schema.ERROR_CLIENT_GONE
    assert span.status.status_code is StatusCode.UNSET
    assert attributes(span).get(schema.HTTP_STATUS) == (200 if first else None) or first
    [point] = recorded.points(schema.HTTP_SERVER_DURATION.name)
    assert point.labels[schema.ERROR_TYPE] == schema.ERROR_CLIENT_GONE
    assert active(recorded) == 0


@pytest.mark.parametrize("path", [HOT, "/things"])
async def test_half_a_body_is_no_body(path: str, recorded: Recorded, lines: Lines) -> None:
    work = Work()
    visit = Visit(recorded, work)
    visit.scope["path"] = path
    visit.comes({"type": "http.request", "body": b'{"half": ', "more_body": True})
    visit.comes(GONE)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await visit.run()
    assert (work.body, visit.sent) == (None, [])
    [span], [line] = recorded.spans(), lines()
    assert line["status"] == 499
    assert attributes(span)[schema.ERROR_TYPE] == schema.ERROR_CLIENT_GONE
    assert span.status.status_code is StatusCode.UNSET


async def test_a_client_that_leaves_with_its_answer_has_not_left(
    recorded: Recorded, lines: Lines
) -> None:
    work = Work()
    work.let_go.set()
    visit = Visit(recorded, work, b"{}")
    await visit.run()
    visit.comes(GONE)
    await asyncio.sleep(0)
    assert visit.status == 200
    assert [line["status"] for line in lines()] == [200]
    assert schema.ERROR_TYPE not in attributes(recorded.spans()[0])


class Listening(Work):
    """An endpoint that answers while it listens for its client, as Starlette's responses do."""

    def __init__(self, first: bytes = b"") -> None:
        super().__init__(first)
        self.heard: list[Message] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with asyncio.TaskGroup() as both:
            answering = both.create_task(super().__call__(scope, receive, send))
            await self.reached.wait()
            self.heard.append(await receive())
            assert answering.done()


@pytest.mark.parametrize("first", [b"", b"first"], ids=["whole", "streamed"])
async def test_an_endpoint_that_listens_hears_of_the_end_after_its_answer(
    first: bytes, recorded: Recorded, lines: Lines
) -> None:
    work = Listening(first)
    visit = Visit(recorded, work, b"{}")
    async with visiting(visit, work) as task:
        work.let_go.set()
        await eventually(lambda: visit.content.endswith((b"last", b"whole")))
        visit.comes(GONE)
    assert task.exception() is None
    assert work.heard == [GONE]
    assert [line["status"] for line in lines()] == [200]
    assert schema.ERROR_TYPE not in attributes(recorded.spans()[0])


# The service stops


async def test_a_service_that_stops_says_so_to_whoever_still_waits(
    recorded: Recorded, lines: Lines
) -> None:
    work = Work()
    visit = Visit(recorded, work, b"{}")
    async with visiting(visit, work) as task:
        task.cancel()
    assert task.cancelled()
    assert visit.status == 503
    assert json.loads(visit.content)["error"]["message"] == "this service is stopping"
    assert visit.headers["retry-after"] == "1"
    [span], [line] = recorded.spans(), lines()
    assert visit.headers["x-trace-id"] == f"{identity(span).trace_id:032x}"
    assert (line["status"], attributes(span)[schema.ERROR_TYPE]) == (503, "503")
    assert span.status.status_code is StatusCode.ERROR


async def test_an_answer_that_has_begun_is_cut(recorded: Recorded, lines: Lines) -> None:
    work = Work(b"first")
    visit = Visit(recorded, work, b"{}")
    async with visiting(visit, work) as task:
        task.cancel()
    assert task.cancelled()
    assert visit.content == b"first"
    [span] = recorded.spans()
    assert attributes(span)[schema.ERROR_TYPE] == schema.ERROR_CANCELLED
    assert span.status.status_code is StatusCode.ERROR
    assert active(recorded) == 0


# Bodies


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        ([b"x" * 10], 200),
        ([b"x" * 11], 413),
        ([b"x" * 5, b"x" * 5], 200),
        ([b"x" * 5, b"x" * 5, b"x"], 413),
        ([b"", b"", b""], 200),
    ],
)
async def test_a_body_has_the_limit_of_its_path(
    parts: list[bytes], status: int, recorded: Recorded
) -> None:
    work = Work()
    work.let_go.set()
    visit = Visit(recorded, work, *parts, body_limits={HOT: 10, "/things": 1000})
    await visit.run()
    assert visit.status == status
    if status == 200:
        assert work.body == b"".join(parts)
    else:
        assert json.loads(visit.content)["error"]["code"] == "too_large"


@pytest.mark.parametrize(("limits", "size"), [({"/things": 100}, 100), ({HOT: 100}, MAX_BODY)])
async def test_a_body_that_fastapi_reads_has_a_limit(
    limits: dict[str, int], size: int, recorded: Recorded
) -> None:
    for extra, status in ((0, 422), (1, 413)):
        body = json.dumps({"name": "x" * (size + extra - 12)}).encode()
        assert len(body) == size + extra
        visit = Visit(recorded, Work(), body, body_limits=limits)
        visit.scope["path"] = "/things"
        visit.scope["headers"] = [(b"content-type", b"application/json")]
        await visit.run()
        assert (visit.status, json.loads(visit.content)["code"]) == (
            status,
            "too_large" if status == 413 else "invalid_input",
        )


# The endpoint fails


async def test_what_nobody_foresaw_is_a_500_without_its_words(
    recorded: Recorded, lines: Lines
) -> None:
    async def boom(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("hunter2 in words of no one's business")

    visit = Visit(recorded, boom, b"{}")
    with log_lines(SERVER_SPAN) as heard:
        await visit.run()  # the answer is complete: the connection can serve the next request
    assert visit.status == 500
    assert b"hunter2" not in visit.content
    assert json.loads(visit.content)["error"]["type"] == "server_error"
    [span], [line] = recorded.spans(), lines()
    trace_id = f"{identity(span).trace_id:032x}"
    [unforeseen] = heard()
    assert "hunter2" in unforeseen["exception"]
    assert visit.headers["x-trace-id"] == unforeseen["trace_id"] == trace_id
    assert (line["status"], span.status.status_code) == (500, StatusCode.ERROR)


async def test_an_unforeseen_error_within_an_answer_ends_the_connection(
    recorded: Recorded,
) -> None:
    async def boom(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("the other half is lost")

    visit = Visit(recorded, boom, b"{}")
    with log_lines(SERVER_SPAN) as heard, pytest.raises(RuntimeError):
        await visit.run()  # the server closes the connection
    [span], [line] = recorded.spans(), heard()
    assert attributes(span)["error.type"] == "RuntimeError"
    assert "the other half" in line["exception"]


@pytest.mark.parametrize(("status", "failed"), [(422, False), (429, False), (503, True)])
async def test_a_problem_is_an_answer(status: int, failed: bool, recorded: Recorded) -> None:
    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        raise Problem(status, "no", headers={"Retry-After": "3"}, field="load")

    visit = Visit(recorded, refuse, b"{}")
    await visit.run()
    assert visit.status == status
    assert visit.headers["retry-after"] == "3"
    assert json.loads(visit.content)["error"]["param"] == "load"
    [span] = recorded.spans()
    assert span.status.status_code is (StatusCode.ERROR if failed else StatusCode.UNSET)
    assert span.status.description == ("no" if failed else None)
    assert attributes(span)[schema.HTTP_ROUTE] == HOT


@pytest.mark.parametrize(
    ("asked", "told"),
    [(b"0", schema.ERROR_CALLER_DEADLINE), (b"10", "504"), (b"20", "504"), (None, "504")],
    ids=["no time", "time left", "as much as there is", "nothing asked for"],
)
async def test_a_504_says_whether_its_caller_gave_it_too_little_time(
    asked: bytes | None, told: str, recorded: Recorded
) -> None:
    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        raise out_of_time("whoever was asked did not answer")

    headers = [] if asked is None else [(b"x-request-timeout", asked)]
    await Visit(recorded, late, b"{}", headers=headers).run()
    [span] = recorded.spans()
    assert attributes(span)[schema.ERROR_TYPE] == told
    assert span.status.status_code is StatusCode.ERROR
    [point] = recorded.points(schema.HTTP_SERVER_DURATION.name)
    assert (point.labels[schema.HTTP_STATUS], point.labels[schema.ERROR_TYPE]) == (504, told)


async def test_any_other_error_is_none_of_its_callers_making(recorded: Recorded) -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise Problem(502, "no")

    await Visit(recorded, broken, b"{}", headers=[(b"x-request-timeout", b"0")]).run()
    assert attributes(recorded.spans()[0])[schema.ERROR_TYPE] == "502"


# The span and the answer


@pytest.mark.parametrize("first", [b"", b"first"])
async def test_the_span_has_ended_when_the_last_bytes_go_and_not_before(
    first: bytes, recorded: Recorded
) -> None:
    work = Work(first)
    work.let_go.set()
    visit = Visit(recorded, work, b"{}")
    await visit.run()
    *before, last = visit.spans_sent
    assert (set(before), last) == ({0}, 1)
    assert recorded.span(f"POST {HOT}").status.status_code is StatusCode.UNSET


async def test_an_endpoint_answers_posts_alone(recorded: Recorded) -> None:
    visit = Visit(recorded, Work(), b"")
    visit.scope["method"] = "GET"
    await visit.run()
    assert visit.status == 405
    assert visit.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("asked", "usual", "streaming"),
    [
        (None, TIMEOUT_SECONDS, 600),
        (b"5", 5, 5),
        (b"100", TIMEOUT_SECONDS, 100),
        (b"1000", TIMEOUT_SECONDS, 600),
        (b"soon", TIMEOUT_SECONDS, 600),
    ],
)
async def test_a_stream_may_take_longer_than_a_whole_answer_if_its_caller_waits(
    asked: bytes | None, usual: float, streaming: float, recorded: Recorded
) -> None:
    left: list[float | None] = []

    async def work(scope: Scope, receive: Receive, send: Send) -> None:
        left.append(deadline.remaining())
        deadline.stream(600)
        left.append(deadline.remaining())
        await Response()(scope, receive, send)

    headers = [] if asked is None else [(b"x-request-timeout", asked)]
    await Visit(recorded, work, b"", headers=headers).run()
    assert left == [pytest.approx(usual, abs=0.5), pytest.approx(streaming, abs=0.5)]
    assert deadline.remaining() is None
