"""The stand-in's server, and what a test sees of it."""

import asyncio
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

from aiohttp import web

from tests.support.openai_standin import shapes
from tests.support.openai_standin.answers import OPERATIONS, Answer, generate
from tests.support.openai_standin.errors import Refusal, envelope
from tests.support.openai_standin.exchange import Exchange
from tests.support.openai_standin.journal import Journal, Received
from tests.support.openai_standin.ledger import Ledger, Operation
from tests.support.openai_standin.step import Script, Step

STOP_SECONDS = 10.0
LARGEST_BODY = 256 * 1024 * 1024


class Standin:
    """A running stand-in. All of it may be used from any thread."""

    def __init__(self, default: Step, *, requires_key: bool) -> None:
        self._changed = threading.Condition()
        self.journal = Journal(self._changed)
        self.ledger = Ledger(self._changed)
        self.default = default
        """The step of requests that bring no script."""
        self.next: deque[Step] = deque()
        """The steps of the first of them."""
        self.requires_key = requires_key
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def requests(self) -> list[Received]:
        """All that were read whole, in order of arrival."""
        return self.journal.requests()

    def of(self, request_id: str) -> list[Received]:
        return [received for received in self.requests if received.id == request_id]

    def wait_for(self, predicate: Callable[[], bool], seconds: float = 5.0) -> None:
        """Return once it is true; it is asked again after every change of a request or a bill."""
        with self._changed:
            if self._changed.wait_for(predicate, seconds):
                return
            seen = [(one.path, one.id, one.status, one.outcome) for one in self.requests]
        raise AssertionError(f"not within {seconds} s; requests: {seen}")

    async def until(self, predicate: Callable[[], bool], seconds: float = 5.0) -> None:
        """`wait_for` that lets the caller's event loop run."""
        await asyncio.to_thread(self.wait_for, predicate, seconds)


class Server:
    """Answers for one stand-in, on the event loop that runs `serve`."""

    def __init__(self, standin: Standin) -> None:
        self._standin = standin
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = False
        self._open: dict[asyncio.Task[Any], web.Request] = {}

    async def serve(self, started: "Future[int]") -> None:
        """Serve until `stop`; `started` gets the port."""
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(client_max_size=LARGEST_BODY)
        app.router.add_route("*", "/{path:.*}", self._handle)
        app.on_shutdown.append(self._leave_clients)
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
            started.set_result(runner.addresses[0][1])
            await self._stop.wait()
        finally:
            await runner.cleanup()

    def stop(self) -> None:
        """May be called from any thread once `serve` has started."""
        assert self._loop is not None
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)

    async def _leave_clients(self, app: web.Application) -> None:
        self._stopping = True
        for request in self._open.values():
            if request.transport is not None:
                request.transport.abort()
        if self._open:
            await asyncio.wait(list(self._open), timeout=STOP_SECONDS)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        arrived = time.monotonic()
        content = await request.read()
        received = Received(
            method=request.method,
            path=request.path,
            query=dict(request.query),
            headers={name.lower(): value for name, value in request.headers.items()},
            body=_parsed(content),
            arrived=arrived,
        )
        self._standin.journal.add(received)
        exchange = Exchange(request, received, self._standin.journal, self._standin.ledger)
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = request
        try:
            return await self._play(received, exchange)
        except (asyncio.CancelledError, ConnectionError):
            exchange.interrupted(stopping=self._stopping)
            raise
        finally:
            del self._open[task]

    async def _play(self, received: Received, exchange: Exchange) -> web.StreamResponse:
        try:
            operation = self._operation(received)
            body = received.body if operation else {}
            step = self._step(received, body)
            answer = _generated(operation, body, step) if operation else None
            content = {} if answer else _listed(received.path)
        except Refusal as refusal:
            return await exchange.whole(refusal.status, shapes.dump(refusal.envelope), Step())
        await exchange.before(step)
        if step.status != 200:
            return await exchange.whole(step.status, shapes.dump(envelope(step.status)), step)
        if answer is None:
            return await exchange.whole(200, shapes.dump(content), step)
        html = step.malformed == "json" and (step.content_type or "").startswith("text/html")
        if body.get("stream") and not html and operation != "embeddings":
            options = body.get("stream_options")
            asked = isinstance(options, dict) and bool(options.get("include_usage"))
            return await exchange.stream(answer, step, include_usage=asked)
        return await exchange.whole(200, shapes.dump(shapes.body(answer, step)), step, answer)

    def _operation(self, received: Received) -> Operation | None:
        """What is asked for; None for the models. Raises Refusal for what nobody may ask."""
        kind, _, bearer = received.headers.get("authorization", "").partition(" ")
        key = bearer.strip() if kind == "Bearer" else received.headers.get("api-key")
        if self._standin.requires_key and not key:
            raise Refusal(401, "You didn't provide an API key.")
        if received.method == "GET" and received.path.startswith("/v1/models"):
            return None
        if received.method != "POST" or received.path not in OPERATIONS:
            raise Refusal(404, f"Invalid URL ({received.method} {received.path})")
        if not isinstance(received.body, dict):
            raise Refusal(400, "We could not parse the JSON body of your request.")
        return OPERATIONS[received.path]

    def _step(self, received: Received, body: dict[str, Any]) -> Step:
        try:
            script = Script.read(body["standin"]) if "standin" in body else None
        except ValueError as error:
            raise Refusal(400, str(error), "standin") from error
        standin = self._standin
        usual = standin.next.popleft() if script is None and standin.next else standin.default
        return standin.journal.play(received, script, usual)


@contextmanager
def running(*, requires_key: bool = True, default: Step | None = None) -> Iterator[Standin]:
    """A stand-in on a free port of this machine until the block ends."""
    standin = Standin(default or Step(), requires_key=requires_key)
    server = Server(standin)
    started: Future[int] = Future()
    with ThreadPoolExecutor(1, "openai-standin") as thread:
        served = thread.submit(lambda: asyncio.run(server.serve(started)))
        either: list[Future[Any]] = [started, served]
        wait(either, return_when=FIRST_COMPLETED)
        if served.done():
            served.result()
        standin.port = started.result()
        try:
            yield standin
        finally:
            server.stop()
            served.result(STOP_SECONDS)


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None


def _generated(operation: Operation, body: dict[str, Any], step: Step) -> Answer:
    try:
        return generate(operation, body, step)
    except (AttributeError, KeyError, TypeError) as error:
        raise Refusal(400, f"A part of the request has the wrong form: {error!r}") from error


def _listed(path: str) -> dict[str, Any]:
    listed = shapes.models()
    name = path.removeprefix("/v1/models").strip("/")
    if not name:
        return listed
    if name in [known["id"] for known in listed["data"]]:
        return shapes.model(name)
    raise Refusal(404, f"The model '{name}' does not exist", "model", "model_not_found")
